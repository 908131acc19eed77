"""From the words of a command line to Inputs: what goes into the model's forward()."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask.intervals import Ints, as_ints
from llmdoctor.mask.types import ALL_BACKENDS, BACKENDS, FLOATS, CachePlan, Inputs

if TYPE_CHECKING:
    from llmdoctor.modeldir.directory import ModelDir

MAX_TOKENS = 2**25  # tokens of a batch that a plan is made for: 32 Mi, which takes about a minute and 5 GB
Phase = Literal["prefill", "decode", "chunk"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Options:
    """The options of `mask inspect` and `mask test`, as typed; None is an option that was not used."""

    shape: str | None = None
    lengths: str | None = None
    pad: str | None = None
    packed: str | None = None
    image: str | None = None
    backend: list[str] | None = None
    phase: str | None = None
    past: int | None = None
    cache: str | None = None
    dtype: str | None = None
    mask: str | None = None
    input_ids: str | None = None
    messages: str | None = None
    mode: str = "plan"
    query: int | None = None
    weights: bool = False
    budget: int | None = None


def ask(options: Options) -> Inputs:
    """The inputs that `options` describe. Raises QuestionError where they cannot be understood or contradict each other."""
    given = [name for name in ("shape", "lengths", "packed", "input_ids", "messages") if getattr(options, name) is not None]
    if options.mask is not None and not given:
        given.append("mask")
    if len(given) > 1:
        names = " and ".join("--" + name.replace("_", "-") for name in given)
        raise QuestionError(f"{names}: give one of them, each says how many tokens there are")
    if options.pad is not None and options.lengths is None:
        raise QuestionError("--pad: only --lengths has padding to place")
    tokens = _tokens(options)
    return _in_phase(tokens, options)


def ask_backends(options: Options) -> tuple[str, ...]:
    """The backends to show: those named, else all of transformers."""
    named = [name.strip() for item in options.backend or () for name in item.split(",") if name.strip()]
    for name in named:
        if name not in ALL_BACKENDS:
            raise QuestionError(f"--backend {name}: unknown backend, expected one of {', '.join(ALL_BACKENDS)}")
    return tuple(dict.fromkeys(named)) or BACKENDS


def ask_dtype(options: Options, model: str) -> str:
    """The dtype of the model's activations, which an additive mask has too."""
    if options.dtype is None:
        return model if model in FLOATS else "float32"
    name = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}.get(options.dtype, options.dtype)
    if name not in FLOATS:
        raise QuestionError(f"--dtype {options.dtype}: expected one of {', '.join(FLOATS)}")
    return name


def ask_cache(text: str | None, default: CachePlan) -> CachePlan:
    """`--cache none|dynamic|static:N`."""
    if text is None:
        return default
    if text in ("none", "dynamic"):
        return CachePlan(text)  # type: ignore[arg-type]
    found = re.fullmatch(r"static:(\d{1,9})", text)
    if found is None or int(found[1]) == 0:
        raise QuestionError(f"--cache {text}: expected none, dynamic or static:N with N tokens of room")
    return CachePlan("static", int(found[1]))


def ask_phase(text: str | None) -> tuple[Phase, int]:
    """`--phase prefill|decode|chunk:Q` and the number of new tokens it says (0 in prefill: all of them)."""
    if text in (None, "prefill"):
        return "prefill", 0
    if text == "decode":
        return "decode", 1
    found = re.fullmatch(r"chunk:(\d{1,9})", text or "")
    if found is None or int(found[1]) == 0:
        raise QuestionError(f"--phase {text}: expected prefill, decode or chunk:Q with Q new tokens")
    return "chunk", int(found[1])


def read_mask(path: str) -> NDArray[Any]:
    """A mask out of a file: 2-D [B, S] or 4-D [B, 1|H, Q, KV], of a number or bool dtype."""
    from llmdoctor.mask.tensorfile import read_tensors

    return _pick(read_tensors(path), ("attention_mask", "mask"), path, (2, 4))


def _pick(tensors: dict[str, NDArray[Any]], names: tuple[str, ...], path: str, ranks: tuple[int, ...]) -> NDArray[Any]:
    found = next((tensors[name] for name in names if name in tensors), tensors.get(""))
    if found is None and len(tensors) == 1:
        found = next(iter(tensors.values()))
    if found is None:
        raise QuestionError(f"{path}: no tensor named {names[0]} in it, found {', '.join(sorted(tensors)) or 'none'}")
    if found.ndim not in ranks or 0 in found.shape:
        expected = " or ".join(f"{rank}-D" for rank in ranks)
        raise QuestionError(f"{path}: {names[0]} has the shape {list(found.shape)}, expected a {expected} tensor with something in it")
    if found.dtype.kind not in "biuf":
        raise QuestionError(f"{path}: {names[0]} is {found.dtype}, expected bool, integers or floats")
    if found.dtype.kind == "f" and bool(np.isnan(found).any()):
        raise QuestionError(f"{path}: {names[0]} holds NaN, expected numbers")
    if found.size > MAX_TOKENS * 8:
        raise QuestionError(f"{path}: {names[0]} has {found.size} elements, at most {MAX_TOKENS * 8} are read")
    return found


def _tokens(options: Options) -> Inputs:
    """The tokens of the whole sequence, as a prefill without a cache."""
    if options.lengths is not None:
        return _padded(options)
    if options.packed is not None:
        return _packed(options.packed)
    if options.input_ids is not None:
        return _from_file(options.input_ids)
    if options.mask is not None and options.shape is None:
        mask = read_mask(options.mask)
        return Inputs(mask.shape[0], mask.shape[-1] if mask.ndim == 2 else mask.shape[2], said=f"a mask of {list(mask.shape)}")
    batch, length = _pair("--shape", options.shape or "1,16")
    _limit("--shape", batch * length)
    said = f"{batch} x {length} tokens, no mask passed"
    return Inputs(batch, length, said=said if options.shape else f"{said} (assumed: give --shape B,S)")


def _padded(options: Options) -> Inputs:
    lengths = _numbers("--lengths", options.lengths or "")
    side = options.pad or "left"
    if side not in ("left", "right"):
        raise QuestionError(f"--pad {side}: expected left or right")
    longest = max(lengths)
    _limit("--lengths", longest * len(lengths))
    at = np.arange(longest)[None, :]
    each = np.asarray(lengths)[:, None]
    mask = (at >= longest - each if side == "left" else at < each).astype(np.int64)
    if options.mask is None and min(lengths) == 0:
        raise QuestionError("--lengths: a length of 0 leaves a row without a single token, expected positive integers")
    said = f"{len(lengths)} x {longest} tokens, " + ("a mask of ones" if mask.all() else f"{side}-padded")
    return Inputs(len(lengths), longest, attention_mask=mask, said=said)


def _packed(text: str) -> Inputs:
    lengths = _numbers("--packed", text)
    _limit("--packed", sum(lengths))
    positions = np.concatenate([np.arange(length, dtype=np.int64) for length in lengths])[None, :]
    shown = "+".join(map(str, lengths)) if len(lengths) <= 8 else f"{sum(lengths)}"
    return Inputs(1, sum(lengths), position_ids=positions, said=f"{len(lengths)} documents packed into one row of {shown} tokens, no mask")


def _from_file(path: str) -> Inputs:
    from llmdoctor.mask.tensorfile import read_tensors

    tensors = read_tensors(path)
    ids = _pick(tensors, ("input_ids",), path, (1, 2))
    if ids.dtype.kind not in "iu":
        raise QuestionError(f"{path}: input_ids is {ids.dtype}, expected integers")
    rows = np.atleast_2d(as_ints(ids))
    batch, length = rows.shape
    _limit(path, batch * length)
    inputs = Inputs(batch, length, input_ids=rows, said=f"{batch} x {length} tokens of {path}")
    if "attention_mask" in tensors:
        mask = _pick(tensors, ("attention_mask",), path, (2, 4))
        if mask.shape[0] != batch:
            raise QuestionError(f"{path}: attention_mask has {mask.shape[0]} rows, input_ids {batch}")
        inputs = replace(inputs, attention_mask=mask)
    if "position_ids" in tensors:
        inputs = replace(inputs, position_ids=_positions(_pick(tensors, ("position_ids",), path, (1, 2, 3)), inputs, path))
    if "labels" in tensors:
        labels = as_ints(_pick(tensors, ("labels",), path, (1, 2)))
        inputs = replace(inputs, labels=np.atleast_2d(labels))
    if "token_type_ids" in tensors:
        image = as_ints(_pick(tensors, ("token_type_ids",), path, (2,)))
        if image.shape != rows.shape:
            raise QuestionError(f"{path}: token_type_ids has the shape {list(image.shape)}, expected {list(rows.shape)} as input_ids")
        inputs = replace(inputs, image=image)
    return inputs


def _positions(found: NDArray[Any], inputs: Inputs, path: str) -> Ints:
    rows = np.atleast_2d(as_ints(found))
    expected = (inputs.batch, inputs.q_len)
    if rows.shape[-1] != inputs.q_len or rows.shape[-2] not in (1, inputs.batch) or (rows.ndim == 3 and rows.shape[0] not in (3, 4)):
        raise QuestionError(f"{path}: position_ids has the shape {list(rows.shape)}, expected {list(expected)}, or 3 or 4 of these")
    return rows


def _in_phase(tokens: Inputs, options: Options) -> Inputs:
    phase, new = ask_phase(options.phase)
    cache = ask_cache(options.cache, CachePlan() if phase == "prefill" else CachePlan("dynamic"))
    tokens = _with_image(_with_mask(tokens, options, new), options.image)
    if phase == "prefill":
        if options.past:
            raise QuestionError("--past: in prefill nothing is cached yet: say --phase decode or chunk:Q")
        return _in_cache(replace(tokens, cache=cache), cache)
    if cache.kind == "none":
        raise QuestionError(f"--phase {options.phase} --cache none: there is no past without a cache")
    length = tokens.q_len
    if options.past is not None and options.past != length:
        raise QuestionError(f"--past {options.past}: the inputs describe {length} cached tokens, and the two must be the same number")
    if tokens.position_ids is not None:
        named = "--packed: packed documents are" if options.packed is not None else f"{options.input_ids}: its position_ids are those of"
        after = (
            "prefilled, there is no decode of them"
            if options.packed is not None
            else f"a prefill, leave them out for --phase {options.phase}"
        )
        raise QuestionError(f"{named} {after}")
    later = replace(tokens, phase=phase, past=length, q_len=new, cache=cache, image=None)
    if tokens.mask_2d is not None and tokens.mask_2d.shape[1] == length:
        grown = np.concatenate((tokens.mask_2d, np.ones((tokens.batch, new), tokens.mask_2d.dtype)), axis=1)
        later = replace(later, attention_mask=grown)
    return _in_cache(later, cache)


def _in_cache(inputs: Inputs, cache: CachePlan) -> Inputs:
    if cache.kind == "static" and inputs.past + inputs.q_len > cache.size:
        raise QuestionError(f"--cache {cache}: {inputs.past + inputs.q_len} tokens do not fit into room for {cache.size}")
    return inputs


def _with_mask(inputs: Inputs, options: Options, new: int) -> Inputs:
    if options.mask is None:
        return inputs
    mask = read_mask(options.mask)
    if mask.shape[0] != inputs.batch:
        raise QuestionError(f"--mask {options.mask}: {mask.shape[0]} rows, but the inputs have {inputs.batch}")
    queries = new or inputs.q_len
    if mask.ndim == 4 and mask.shape[2] != queries:
        raise QuestionError(f"--mask {options.mask}: a 4-D mask for {mask.shape[2]} queries, but there are {queries}")
    if mask.ndim == 2 and mask.shape[1] > inputs.q_len + new:
        raise QuestionError(f"--mask {options.mask}: {mask.shape[1]} columns, but there are {inputs.q_len + new} tokens")
    return replace(inputs, attention_mask=mask)


def _with_image(inputs: Inputs, text: str | None) -> Inputs:
    if text is None:
        return inputs
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    if found is None:
        raise QuestionError(f"--image {text}: expected START:LEN, the first token of the image and how many there are")
    start, length = int(found[1]), int(found[2])
    if length == 0 or start + length > inputs.q_len:
        raise QuestionError(f"--image {text}: outside the {inputs.q_len} tokens there are")
    image = np.zeros((inputs.batch, inputs.q_len), np.int64) if inputs.image is None else inputs.image.copy()
    image[:, start : start + length] = 1
    return replace(inputs, image=image, said=f"{inputs.said}, an image at {start}..{start + length - 1}")


def _pair(option: str, text: str) -> tuple[int, int]:
    numbers = _numbers(option, text)
    if len(numbers) != 2 or 0 in numbers:
        raise QuestionError(f"{option} {text}: expected B,S, the batch and the number of tokens, both positive integers")
    return numbers[0], numbers[1]


def _numbers(option: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(re.fullmatch(r"\s*\d{1,12}\s*", part) for part in parts):
        raise QuestionError(f"{option} {text}: expected positive integers with commas between them, such as 5,8")
    numbers = [int(part) for part in parts]
    if option == "--packed" and 0 in numbers:
        raise QuestionError(f"{option} {text}: a document of 0 tokens, expected positive integers")
    return numbers


def _limit(option: str, tokens: int) -> None:
    if tokens > MAX_TOKENS:
        raise QuestionError(f"{option}: {tokens:,} tokens, a plan is made for at most {MAX_TOKENS:,}")


def ask_size(text: str | None) -> int | None:
    """`8GiB`, `500MB` or a number of bytes."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,15})\s*([KMGT]i?B?|B)?", text)
    if found is None:
        raise QuestionError(f"--budget {text}: expected a number of bytes such as 8GiB")
    unit = found[2] or "B"
    step = 1000 if unit.endswith("B") and "i" not in unit and unit != "B" else 1024
    power = " KMGT".index(unit[0] if unit != "B" else " ")
    return int(found[1]) * int(step**power)


def read_config(directory: ModelDir) -> dict[str, Any]:
    """config.json as an object. Raises QuestionError where there is none, or it is not one."""
    file = directory.config
    if file is None:
        raise QuestionError(f"{directory.shown_name}: no config.json, so there is no model whose masks could be told")
    if not isinstance(file.value, dict):
        reason = file.problems[0].message if file.problems else "expected a JSON object"
        raise QuestionError(reason if file.shown_name in reason else f"{file.shown_name}: {reason}")
    value: dict[str, Any] = file.value
    return value

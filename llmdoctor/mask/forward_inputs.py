"""From options to the inputs of one forward()."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask.documents import ended_by
from llmdoctor.mask.inputs_file import check_size, read_inputs, read_mask
from llmdoctor.mask.options import MaskOptions
from llmdoctor.mask.types import ALL_BACKENDS, BACKENDS, FLOATS, CachePlan, ForwardInputs

if TYPE_CHECKING:
    from llmdoctor.modeldir.directory import ModelDir

Phase = Literal["prefill", "decode", "chunk"]


def forward_inputs(options: MaskOptions) -> ForwardInputs:
    """The inputs that `options` describe. Raises QuestionError where they cannot be understood or contradict each other."""
    given = [name for name in ("shape", "lengths", "packed", "input_ids", "messages") if getattr(options, name) is not None]
    if options.mask is not None and not given:
        given.append("mask")
    if len(given) > 1:
        names = " and ".join("--" + name.replace("_", "-") for name in given)
        raise QuestionError(f"{names}: give one of them, each says how many tokens there are")
    if options.pad is not None and options.lengths is None:
        raise QuestionError("--pad: only --lengths has padding to place")
    inputs = _in_phase(_tokens(options), options)
    if not options.eos:
        return inputs
    if inputs.input_ids is None:
        raise QuestionError("--eos: the documents are found in the ids of --input-ids, which is not given")
    if inputs.position_ids is not None or inputs.cu_seqlens is not None:
        raise QuestionError(
            f"--eos: {options.input_ids} has position_ids or cu_seq_lens, which give the documents: --without one, or leave --eos out"
        )
    return replace(inputs, ended=ended_by(inputs.input_ids, options.eos, inputs.mask_2d))


def backends_of(options: MaskOptions) -> tuple[str, ...]:
    """The backends to show: those named, else all of transformers."""
    named = [name.strip() for item in options.backend or () for name in item.split(",") if name.strip()]
    for name in named:
        if name not in ALL_BACKENDS:
            raise QuestionError(f"--backend {name}: unknown backend, expected one of {', '.join(ALL_BACKENDS)}")
    return tuple(dict.fromkeys(named)) or BACKENDS


def dtype_of(options: MaskOptions, model: str) -> str:
    """The dtype of the model's activations, which an additive mask has too."""
    if options.dtype is None:
        return model if model in FLOATS else "float32"
    name = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}.get(options.dtype, options.dtype)
    if name not in FLOATS:
        raise QuestionError(f"--dtype {options.dtype}: expected one of {', '.join(FLOATS)}")
    return name


def parse_cache(text: str | None, default: CachePlan) -> CachePlan:
    """`--cache none|dynamic|static:N`."""
    if text is None:
        return default
    if text in ("none", "dynamic"):
        return CachePlan(text)  # type: ignore[arg-type]
    if text in ("paged", "continuous"):
        raise QuestionError(f"--cache {text}: continuous batching and its paged cache are not modelled, say dynamic or static:N")
    found = re.fullmatch(r"static:(\d{1,9})", text)
    if found is None or int(found[1]) == 0:
        raise QuestionError(f"--cache {text}: expected none, dynamic or static:N with N tokens of room")
    return CachePlan("static", int(found[1]))


def parse_phase(text: str | None) -> tuple[Phase, int]:
    """`--phase prefill|decode|chunk:Q` and the number of new tokens it says (0 in prefill: all of them)."""
    if text in (None, "prefill"):
        return "prefill", 0
    if text == "decode":
        return "decode", 1
    if text in ("assisted", "speculative"):
        raise QuestionError(f"--phase {text}: assisted decoding checks Q candidate tokens in one forward, which is --phase chunk:Q")
    found = re.fullmatch(r"chunk:(\d{1,9})", text or "")
    if found is None or int(found[1]) == 0:
        raise QuestionError(f"--phase {text}: expected prefill, decode or chunk:Q with Q new tokens")
    return "chunk", int(found[1])


def _tokens(options: MaskOptions) -> ForwardInputs:
    """The tokens of the whole sequence, as a prefill without a cache."""
    if options.lengths is not None:
        return _padded(options)
    if options.packed is not None:
        return _packed(options.packed)
    if options.input_ids is not None:
        return read_inputs(options.input_ids, options.without)
    if options.mask is not None and options.shape is None:
        mask, _ = read_mask(options.mask)
        return ForwardInputs(mask.shape[0], _tokens_of_mask(mask, options), words=f"a mask of {list(mask.shape)}")
    batch, length = _pair("--shape", options.shape or "1,16")
    check_size("--shape", batch * length)
    return ForwardInputs(batch, length, words=f"{batch} x {length} tokens, no mask passed", assumed=options.shape is None)


def _tokens_of_mask(mask: NDArray[Any], options: MaskOptions) -> int:
    """Return the tokens that a mask alone describes: with a new token or chunk, the keys of a 4-D mask less its queries are cached."""
    if mask.ndim == 2:
        return int(mask.shape[1])
    if parse_phase(options.phase)[0] == "prefill":
        return int(mask.shape[2])
    if mask.shape[3] <= mask.shape[2] or parse_cache(options.cache, CachePlan()).kind == "static":
        raise QuestionError(f"--mask {options.mask}: it does not give the number of cached tokens, say --shape B,S with S of them")
    return int(mask.shape[3] - mask.shape[2])


def _padded(options: MaskOptions) -> ForwardInputs:
    lengths = _numbers("--lengths", options.lengths or "")
    side = options.pad or "left"
    if side not in ("left", "right"):
        raise QuestionError(f"--pad {side}: expected left or right")
    longest = max(lengths)
    check_size("--lengths", longest * len(lengths))
    at = np.arange(longest)[None, :]
    each = np.asarray(lengths)[:, None]
    mask = (at >= longest - each if side == "left" else at < each).astype(np.int64)
    if options.mask is None and min(lengths) == 0:
        raise QuestionError("--lengths: a length of 0 leaves a row without a single token, expected positive integers")
    words = f"{len(lengths)} x {longest} tokens, " + ("a mask of ones" if mask.all() else f"{side}-padded")
    return ForwardInputs(len(lengths), longest, attention_mask=mask, words=words)


def _packed(text: str) -> ForwardInputs:
    lengths = _numbers("--packed", text)
    check_size("--packed", sum(lengths))
    positions = np.concatenate([np.arange(length, dtype=np.int64) for length in lengths])[None, :]
    shown = "+".join(map(str, lengths)) if len(lengths) <= 8 else f"{sum(lengths)}"
    return ForwardInputs(
        1, sum(lengths), position_ids=positions, words=f"{len(lengths)} documents packed into one row of {shown} tokens, no mask"
    )


def _in_phase(tokens: ForwardInputs, options: MaskOptions) -> ForwardInputs:
    phase, new = parse_phase(options.phase)
    cache = parse_cache(options.cache, CachePlan() if phase == "prefill" else CachePlan("dynamic"))
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
    later = replace(tokens, phase=phase, past=length, q_len=new, cache=cache, token_types=None, media=None)
    if tokens.mask_2d is not None and tokens.mask_2d.shape[1] == length:
        grown = np.concatenate((tokens.mask_2d, np.ones((tokens.batch, new), tokens.mask_2d.dtype)), axis=1)
        later = replace(later, attention_mask=grown)
    return _in_cache(later, cache)


def _in_cache(inputs: ForwardInputs, cache: CachePlan) -> ForwardInputs:
    if cache.kind == "static" and inputs.past + inputs.q_len > cache.size:
        raise QuestionError(f"--cache {cache}: {inputs.past + inputs.q_len} tokens do not fit into room for {cache.size}")
    return inputs


def _with_mask(inputs: ForwardInputs, options: MaskOptions, new: int) -> ForwardInputs:
    if options.mask is None:
        return inputs
    mask, dtype = read_mask(options.mask)
    if mask.shape[0] != inputs.batch:
        raise QuestionError(f"--mask {options.mask}: {mask.shape[0]} rows, but the inputs have {inputs.batch}")
    queries = new or inputs.q_len
    if mask.ndim == 4 and mask.shape[2] != queries:
        raise QuestionError(f"--mask {options.mask}: a 4-D mask for {mask.shape[2]} queries, but there are {queries}")
    static = parse_cache(options.cache, CachePlan()).kind == "static"
    if mask.ndim == 4 and not static and mask.shape[3] != inputs.q_len + new:
        raise QuestionError(f"--mask {options.mask}: a 4-D mask for {mask.shape[3]} keys, but there are {inputs.q_len + new}")
    if mask.ndim == 2 and mask.shape[1] > inputs.q_len + new:
        raise QuestionError(f"--mask {options.mask}: {mask.shape[1]} columns, but there are {inputs.q_len + new} tokens")
    return replace(inputs, attention_mask=mask, mask_dtype=dtype)


def _with_image(inputs: ForwardInputs, text: str | None) -> ForwardInputs:
    if text is None:
        return inputs
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    if found is None:
        raise QuestionError(f"--image {text}: expected START:LEN, the first token of the image and how many there are")
    start, length = int(found[1]), int(found[2])
    if length == 0 or start + length > inputs.q_len:
        raise QuestionError(f"--image {text}: outside the {inputs.q_len} tokens there are")
    marks = np.zeros((inputs.batch, inputs.q_len), np.int64)
    types = marks.copy() if inputs.token_types is None else inputs.token_types.copy()
    media = marks if inputs.media is None else inputs.media.copy()
    types[:, start : start + length] = 1
    media[:, start : start + length] = 1
    return replace(inputs, token_types=types, media=media, words=f"{inputs.words}, an image at {start}..{start + length - 1}")


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

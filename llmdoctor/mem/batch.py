"""The micro step that the options describe: its batch, its length, its image, which parameters are trained, which attention runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.options import MemOptions
from llmdoctor.mem.settings import Strategy
from llmdoctor.mem.workload import Workload

STAGES = ("vision", "all", "llm")
VISION = "visual"
FLASH = ("flash_attention_2", "flash_attention_3")
DEFAULT_LENGTH = 512


def base_workload(options: MemOptions, strategy: Strategy, config: dict[str, Any]) -> Workload:
    """Return the micro step that the options describe; the strategy fills in what they leave open, else 1 sequence of 512 tokens.

    Raises QuestionError for an option that is out of range or does not suit the model.
    """
    batch = options.batch if options.batch is not None else strategy.batch or 1
    length = options.seq_len if options.seq_len is not None else strategy.seq_len or DEFAULT_LENGTH
    for name, value in (("--batch", batch), ("--seq-len", length)):
        if value < 1:
            raise QuestionError(f"{name} {value}: expected at least 1")
    if strategy.text_only and "vision_config" in config:
        _check_text_only(options, strategy)
    lengths, packed = numbers_of("--lengths", options.lengths), numbers_of("--packed", options.packed)
    batch, length = _fitted(options, batch, length, lengths=lengths, packed=packed)
    kernels = (options.attn or strategy.attention) in FLASH  # they take the documents' bounds, without a mask
    if not packed and strategy.documents is not None and length > 1 and not kernels:
        packed = (-(-length // 2), length // 2)
    return Workload(
        batch=batch,
        seq_len=length,
        lengths=() if kernels else lengths,
        packed=() if kernels else packed,
        flat=strategy.documents == "flat",
        attention=_attention(options.attn or strategy.attention, strategy),
        image=image_size(options.image),
        trainable=_trainable(options, config),
        frozen=(VISION,) if options.stage == "llm" else (),
    )


def _check_text_only(options: MemOptions, strategy: Strategy) -> None:
    """Raise QuestionError unless the options select what the framework trains of a model with images: the language model alone."""
    if strategy.lora is not None:
        raise QuestionError(f"{strategy.name}: adapters on the language model alone of a model with images are not modelled")
    if options.stage != "llm":
        raise QuestionError(f"{strategy.name}: of a model with images its framework trains the language model alone: add --stage llm")


def resized(workload: Workload, batch: int, length: int) -> Workload:
    """Return the same micro step with another batch or length: sequences are cut, documents keep their number of two."""
    if length == workload.seq_len:
        return replace(workload, batch=batch)
    halves = tuple(part for part in (-(-length // 2), length // 2) if part)
    lengths = tuple(min(tokens, length) for tokens in workload.lengths)
    return replace(workload, batch=batch, seq_len=length, lengths=lengths, packed=halves if workload.packed else ())


def numbers_of(option: str, text: str | None) -> tuple[int, ...]:
    """Return the numbers of a text such as 512,300; empty for None. Raises QuestionError for any other text."""
    if text is None:
        return ()
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 0 < int(part) < 2**31 for part in parts):
        raise QuestionError(f"{option} {text}: expected numbers of tokens separated by commas, such as 512,300")
    return tuple(int(part) for part in parts)


def _fitted(options: MemOptions, batch: int, length: int, *, lengths: tuple[int, ...], packed: tuple[int, ...]) -> tuple[int, int]:
    """Return (batch, tokens of a sequence) with what --lengths or --packed say of them. Raises QuestionError if options contradict each other."""
    if lengths and packed:
        raise QuestionError("--lengths and --packed exclude each other: packed sequences have no padding")
    if (lengths or packed) and options.image is not None:
        raise QuestionError("--image with --lengths or --packed is not modelled")
    if lengths and options.batch not in (None, len(lengths)):
        raise QuestionError(f"--lengths {options.lengths} names {len(lengths)} sequences, --batch is {options.batch}")
    needed = max(lengths, default=0) if lengths else sum(packed)
    if options.seq_len is not None and (needed > options.seq_len or (packed and needed != options.seq_len)):
        raise QuestionError(f"{'--lengths' if lengths else '--packed'}: {needed} tokens contradict --seq-len {options.seq_len}")
    return (len(lengths) or batch), (length if options.seq_len is not None else needed or length)


def _attention(name: str | None, strategy: Strategy) -> str | None:
    """Return the attention to trace. The kernels of flash-attn, which need not be installed, keep what torch's own flash kernel keeps."""
    if name is None or name in ("sdpa", "eager"):
        return name
    if name not in FLASH:
        raise QuestionError(f"attention {name}: expected sdpa, eager or one of {', '.join(FLASH)}")
    if strategy.dtype == "float32" and strategy.autocast is None:
        raise QuestionError(f"attention {name}: {strategy.name} computes in float32, and flash attention has 16-bit kernels only")
    return "sdpa"


def _trainable(options: MemOptions, config: dict[str, Any]) -> tuple[str, ...]:
    if options.stage is None:
        return options.trainable
    if options.stage not in STAGES:
        raise QuestionError(f"--stage {options.stage}: expected one of {', '.join(STAGES)}")
    if "vision_config" not in config:
        raise QuestionError(f"--stage {options.stage}: this model ({config.get('model_type')}) has no vision part")
    if options.trainable and options.stage != "all":
        raise QuestionError(f"--stage {options.stage} and --trainable both select the trained parameters: use one of them")
    return (VISION,) if options.stage == "vision" else options.trainable


def image_size(text: str | None) -> tuple[int, int] | None:
    """Return (width, height) in pixels of a text such as 448x448; None for None. Raises QuestionError for any other text."""
    if text is None:
        return None
    width, cross, height = text.lower().partition("x")
    if not cross or not width.isdecimal() or not height.isdecimal() or not 0 < int(width) <= 2**15 or not 0 < int(height) <= 2**15:
        raise QuestionError(f"--image {text}: expected WIDTHxHEIGHT in pixels, such as 448x448")
    return int(width), int(height)

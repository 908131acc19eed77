"""Calls made for real: a Qwen2-VL directory, a real image, the real processor and generate(), and the real TRL trainer.

Everything heavy is imported inside functions. The tiny directory of llmdoctor.demo.live.tiny_qwen2_vl runs here in tenths of a
second on a CPU; a published Qwen2-VL directory works the same way.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmdoctor.core.errors import MissingExtra

StopReason = Literal["eos", "stop_string", "length", "other"]
PROMPT = "Describe this image."
_COMMAND = "a live gencfg run"
# Package -> (the distribution to install, the extra that has it).
_EXTRAS = {
    "torch": ("torch", "live"),
    "transformers": ("transformers", "live"),
    "qwen_vl_utils": ("qwen-vl-utils", "vlm"),
    "torchvision": ("torchvision", "vlm"),
    "PIL": ("pillow", "vlm"),
    "trl": ("trl", "dev"),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model and its processor, ready to generate. `terminators` are the ids that end a turn, as the files had them when loaded."""

    model: Any
    processor: Any
    terminators: frozenset[int]


@dataclass(frozen=True, slots=True)
class DecodedSequence:
    """One decoded sequence. `passed_terminator_at` is the index among the new tokens, from 0, of the first id in Loaded.terminators
    after which decoding went on; None where it went past none. `text` is what was decoded, special tokens shown."""

    prompt_tokens: int
    new_tokens: int
    stop_reason: StopReason
    passed_terminator_at: int | None
    text: str


@dataclass(frozen=True, slots=True)
class LiveResult:
    """What a generate() did: its sequences, and the GenerationConfig that the library really decoded with, without its None fields."""

    sequences: tuple[DecodedSequence, ...]
    eos_token_id: tuple[int, ...]
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Assigned:
    """An assignment on a generation config that was seen to happen, with the place in the code that made it."""

    field: str
    value: Any
    before: Any
    file: str
    line: int


def load(model_dir: Path | str) -> Loaded:
    """Load a Qwen2-VL directory with its real classes, on the CPU. Raises MissingExtra where a package is missing."""
    _need("torch", "transformers", "torchvision", "PIL")
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = Qwen2VLForConditionalGeneration.from_pretrained(str(model_dir)).eval()
    processor = AutoProcessor.from_pretrained(str(model_dir))
    declared = model.generation_config.eos_token_id
    ids = {processor.tokenizer.eos_token_id, *(declared if isinstance(declared, list) else [declared])}
    return Loaded(model, processor, frozenset(ids - {None}))


def run_call(
    model: Loaded | Path | str,
    *,
    user_config: Mapping[str, Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    mutations: Mapping[str, Any] | None = None,
    image: Any = None,
    prompt: str = PROMPT,
    seed: int = 0,
) -> LiveResult:
    """One real generate() about one image.

    `user_config` are the fields of the GenerationConfig passed (None: none is passed), `kwargs` further arguments of generate(),
    `mutations` are assigned on model.generation_config for this call only. `image` is a path or a PIL image (default: draw_image()).
    What the library raises is not caught.
    """
    loaded = model if isinstance(model, Loaded) else load(model)
    inputs = _inputs(loaded, image, prompt)
    import torch
    from transformers import GenerationConfig

    arguments = dict(kwargs or {})
    if user_config is not None:
        arguments["generation_config"] = GenerationConfig(**user_config)
    torch.manual_seed(seed)
    with torch.no_grad(), _mutated(loaded.model, mutations or {}), _effective(loaded.model) as seen:
        output = loaded.model.generate(**inputs, **arguments)
    rows = getattr(output, "sequences", output)
    return _result(loaded, seen[-1], inputs["input_ids"].shape[1], rows.tolist())


def draw_image() -> Any:
    """A red square on white, 112 x 84 pixels, as a PIL image."""
    _need("PIL")
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (112, 84), "white")
    ImageDraw.Draw(image).rectangle((36, 22, 76, 62), fill=(200, 30, 30))
    return image


@contextmanager
def watched(model: Any) -> Iterator[list[Assigned]]:
    """Every assignment on model.generation_config while the block runs, with the file and the line it was made at."""
    config = model.generation_config
    kind = type(config)
    seen: list[Assigned] = []

    class Watched(kind):  # type: ignore[misc, valid-type]
        def __setattr__(self, name: str, value: Any) -> None:
            caller = sys._getframe(1)
            seen.append(Assigned(name, value, getattr(self, name, None), caller.f_code.co_filename, caller.f_lineno))
            super().__setattr__(name, value)

    Watched.__name__, Watched.__qualname__ = kind.__name__, kind.__qualname__
    config.__class__ = Watched
    try:
        yield seen
    finally:
        object.__setattr__(config, "__class__", kind)  # not an assignment to be seen


# --- inside -----------------------------------------------------------------------------------------------------------------------


def _need(*packages: str) -> None:
    from importlib.util import find_spec

    for package in packages:
        if find_spec(package) is None:
            raise MissingExtra(_COMMAND, *_EXTRAS[package])


def _inputs(loaded: Loaded, image: Any, prompt: str) -> Any:
    """The real path from a message to tensors: chat template, qwen_vl_utils, processor."""
    _need("qwen_vl_utils")
    from qwen_vl_utils import process_vision_info

    picture = draw_image() if image is None else str(image) if isinstance(image, Path) else image
    limits = {"min_pixels": 4 * 28 * 28, "max_pixels": 16 * 28 * 28}
    content = [{"type": "image", "image": picture, **limits}, {"type": "text", "text": prompt}]
    messages = [{"role": "user", "content": content}]
    text = loaded.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images, videos = process_vision_info(messages)
    return loaded.processor(text=[text], images=images, videos=videos, padding=True, return_tensors="pt").to(loaded.model.device)


@contextmanager
def _mutated(model: Any, mutations: Mapping[str, Any]) -> Iterator[None]:
    import copy

    before = copy.deepcopy(model.generation_config)
    for name, value in mutations.items():
        setattr(model.generation_config, name, value)
    try:
        yield
    finally:
        model.generation_config = before


@contextmanager
def _effective(model: Any) -> Iterator[list[Any]]:
    """The GenerationConfig objects that generate() prepares; the library completes each in place, so read them afterwards."""
    seen: list[Any] = []
    prepare = model._prepare_generation_config

    def recorded(*args: Any, **kwargs: Any) -> Any:
        prepared = prepare(*args, **kwargs)
        seen.append(prepared[0])
        return prepared

    model._prepare_generation_config = recorded
    try:
        yield seen
    finally:
        del model._prepare_generation_config


def _result(loaded: Loaded, config: Any, prompt_tokens: int, rows: list[list[int]]) -> LiveResult:
    declared = config.eos_token_id
    eos = tuple(declared) if isinstance(declared, list | tuple) else () if declared is None else (int(declared),)
    sequences = tuple(_sequence(loaded, config, eos, prompt_tokens, row[prompt_tokens:]) for row in rows)
    fields = {name: value for name, value in config.to_dict().items() if value is not None and not name.startswith("_")}
    return LiveResult(sequences, eos, fields)


def _sequence(loaded: Loaded, config: Any, eos: tuple[int, ...], prompt_tokens: int, row: list[int]) -> DecodedSequence:
    end = next((index + 1 for index, token in enumerate(row) if token in eos), len(row))  # what follows eos is padding
    new = row[:end]
    text = loaded.processor.tokenizer.decode(new)
    passed = next((index for index, token in enumerate(new[:-1]) if token in loaded.terminators), None)
    return DecodedSequence(prompt_tokens, len(new), _reason(config, eos, prompt_tokens, new, text), passed, text)


def _reason(config: Any, eos: tuple[int, ...], prompt_tokens: int, new: list[int], text: str) -> StopReason:
    strings = [config.stop_strings] if isinstance(config.stop_strings, str) else config.stop_strings or []
    if new and new[-1] in eos:
        return "eos"
    if any(text.endswith(string) for string in strings):
        return "stop_string"
    if prompt_tokens + len(new) >= (config.max_length or sys.maxsize):
        return "length"
    return "other"

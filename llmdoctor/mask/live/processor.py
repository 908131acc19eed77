"""A chat through the real qwen_vl_utils and the model's own processor."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from llmdoctor.core.errors import MissingExtra, QuestionError
from llmdoctor.mask.live import build
from llmdoctor.modeldir.live.classes import class_of


def process(directory: str, messages: list[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """(tensors by name, names of the first row's tokens); M-RoPE ids as mrope_position_ids [3, B, S] where the model has them.

    Raises QuestionError where the processor cannot be loaded or refuses the messages.
    """
    build.need("torch", "transformers")
    build.quiet()
    from transformers import AutoProcessor, AutoTokenizer

    pictures = any(isinstance(one.get("content"), list) and any(_is_picture(part) for part in one["content"]) for one in messages)
    try:
        if pictures:
            for package in ("qwen_vl_utils", "PIL", "torchvision"):
                if find_spec(package) is None:
                    raise MissingExtra("mask inspect --messages", package, "vlm")
            processor = AutoProcessor.from_pretrained(directory, trust_remote_code=False)
            made = _with_pictures(processor, messages)
            tokenizer = processor.tokenizer
        else:
            tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            made = tokenizer([text], return_tensors="pt")
    except MissingExtra:
        raise
    except Exception as error:  # noqa: BLE001 a processor and its template can raise anything over a chat
        line = (str(error).strip().splitlines() or [""])[0][:200]
        raise QuestionError(f"{directory}: its processor refuses the chat: {type(error).__name__}: {line}") from None
    tensors = {name: value.numpy() for name, value in made.items() if hasattr(value, "numpy")}
    positions = _mrope(directory, made)
    if positions is not None:
        tensors["mrope_position_ids"] = positions
    return tensors, tokenizer.convert_ids_to_tokens(np.atleast_2d(tensors["input_ids"])[0].tolist())


def _is_picture(part: Any) -> bool:
    return isinstance(part, dict) and (part.get("type") in ("image", "video", "image_url") or "image" in part or "video" in part)


def _with_pictures(processor: Any, messages: list[dict[str, Any]]) -> Any:
    from qwen_vl_utils import process_vision_info

    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images, videos, options = process_vision_info(messages, return_video_kwargs=True)
    options = {name: value for name, value in options.items() if videos}
    return processor(text=[text], images=images, videos=videos, padding=True, return_tensors="pt", **options)


def _mrope(directory: str, made: Any) -> Any:
    """get_rope_index of the model itself, on a model without weights: int64 [3, B, S]."""
    import inspect

    import torch

    config = build.config_of(directory)
    with torch.device("meta"):
        model = class_of(config)._from_config(config, attn_implementation="eager")
    inner = getattr(model, "model", model)
    if not hasattr(inner, "get_rope_index"):
        return None
    wanted = inspect.signature(inner.get_rope_index).parameters
    arguments = {name: value for name, value in made.items() if name in wanted}
    if "mm_token_type_ids" in wanted and "mm_token_type_ids" not in arguments:
        kinds = torch.zeros_like(made["input_ids"])
        kinds[made["input_ids"] == getattr(config, "image_token_id", -1)] = 1
        kinds[made["input_ids"] == getattr(config, "video_token_id", -1)] = 2
        arguments["mm_token_type_ids"] = kinds
    return inner.get_rope_index(**arguments)[0].numpy()

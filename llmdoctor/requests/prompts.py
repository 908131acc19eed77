"""Records that hold their prompt in front of the output: a terminator in a prompt shows nothing about where decoding stopped.

If the record also holds the prompt, its repetition in the output is removed (transformers' pipelines return it with the text by
default, generate() with the ids). If not, only what follows the last turn is searched in a record that begins like a chat prompt.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

PROMPTS = ("prompt", "prompt_ids", "prompt_token_ids", "input_ids")
# What opens a turn in the chat templates of published models, and what opens the model's own turn there.
_TURNS: Mapping[str, str] = {
    **{token: token for token in ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "<|header_start|>", "<|START_OF_TURN_TOKEN|>")},
    **dict.fromkeys(("<|user|>", "<|system|>"), "<|assistant|>"),
    "[INST]": "[/INST]",
    "<｜User｜>": "<｜Assistant｜>",
}
_BOS = r"<\|begin_of_text\|>|<s>|<bos>|<｜begin▁of▁sentence｜>|<BOS_TOKEN>|\[gMASK\]<sop>"
_BEGINS = re.compile(rf"\s*(?:{_BOS})?\s*({'|'.join(map(re.escape, _TURNS))})")
_SYSTEM = re.compile(r"user|system|developer|human")


def stored_prompts(value: Mapping[str, Any]) -> list[Any]:
    """What a record keeps of its prompt: ids and texts."""
    return [prompt for name in PROMPTS if (prompt := value.get(name)) and isinstance(prompt, list | str)]


def without_prompt(output: Any, prompts: Iterable[Any]) -> Any:
    """An output (ids, or a text) without the prompt that it begins with; as it is if it begins with none, or holds nothing else."""
    for prompt in prompts:
        size = len(prompt)
        if type(prompt) is type(output) and 1 < size < len(output) and output[:size] == prompt:
            return output[size:]
    return output


def answers(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages behind the last that a person or the system wrote; all of them if none did, or if it is the last."""
    last = max((at for at, message in enumerate(messages) if _SYSTEM.fullmatch(str(message.get("role", message.get("from"))))), default=-1)
    return messages[last + 1 :] or messages


def text_start(text: str) -> int:
    """Return the offset of the answer in a text that begins like a chat prompt; 0 for any other text."""
    begins = _BEGINS.match(text)
    if begins is None:
        return 0
    own = _TURNS[begins.group(1)]
    at = text.rfind(own)
    return at + len(own) if at >= 0 else begins.end()


def turn_ids(id_of: Callable[[str], int | None]) -> dict[int, int]:
    """The ids of the tokens that open a turn, each with that which opens the model's own; `id_of` is the tokenizer's."""
    found = {opener: (id_of(opener), id_of(own)) for opener, own in _TURNS.items()}
    return {number: own for number, own in found.values() if number is not None and own is not None}


def ids_start(ids: bytes, pads: frozenset[int], terminators: Container[bytes], turns: Mapping[int, int]) -> int:
    """Return the index of the answer in a row's ids: after the padding at its left, and after the last turn of a row that begins like a prompt."""
    size, start = len(ids) // 4, 0
    first = ids[:4]
    if size and (_number(first) in pads or (first in terminators and ids[4:8] == first)):
        while start < size and ids[4 * start : 4 * start + 4] == first:
            start += 1
        if start == size:
            return 0
    for at in (start, start + 1):  # a bos may be in front
        own = turns.get(_number(ids[4 * at : 4 * at + 4])) if at < size else None
        if own is not None:
            wanted, place = struct.pack("=i", own), len(ids)
            while (place := ids.rfind(wanted, 0, place)) >= 0 and place % 4:
                place += 3
            return place // 4 + 1 if place >= 0 else at + 1
    return start


def _number(token: bytes) -> int:
    return int.from_bytes(token, sys.byteorder, signed=True)

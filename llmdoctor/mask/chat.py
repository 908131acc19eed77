"""`--messages chat.json`: a chat through the model's own processor."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llmdoctor.core.document import Block, Cell, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.mask.forward_inputs import parse_cache, parse_phase, read_config
from llmdoctor.mask.options import MaskOptions
from llmdoctor.mask.types import CachePlan, ForwardInputs

if TYPE_CHECKING:
    from llmdoctor.modeldir.directory import ModelDir

MAX_MESSAGES = 1000


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ChatPart:
    """What a chat adds to a report: blocks, and `result.chat`."""

    blocks: tuple[Block, ...]
    result: dict[str, Any]


def chat_inputs(directory: ModelDir, options: MaskOptions) -> tuple[ForwardInputs, ChatPart]:
    """Return the tensors that the processor makes of the messages.

    Raises QuestionError if the file holds no list of messages or the processor refuses it, MissingExtra if a package is missing.
    """
    messages = read_messages(options.messages or "")
    if parse_phase(options.phase)[0] != "prefill":
        raise QuestionError("--messages: a chat is prefilled; --phase decode takes --lengths")
    from llmdoctor.mask.live.processor import process

    tensors, tokens = process(directory.path, messages)
    config = read_config(directory)
    ids = np.atleast_2d(tensors["input_ids"])
    if ids.shape[1] == 0:
        raise QuestionError(f"{options.messages}: the model's tokenizer makes no tokens of this chat")
    image_ids = [value for name in ("image_token_id", "video_token_id", "image_token_index") if isinstance(value := config.get(name), int)]
    image = np.isin(ids, image_ids).astype(np.int64)
    inputs = ForwardInputs(
        ids.shape[0], ids.shape[1], cache=parse_cache(options.cache, CachePlan()), attention_mask=tensors.get("attention_mask"), input_ids=ids,
        token_types=tensors.get("token_type_ids"), media=tensors.get("mm_token_type_ids"),
        grids={name: tensors[name] for name in ("image_grid_thw", "video_grid_thw") if name in tensors}, tokens=(tuple(tokens),),
        words=f"{len(messages)} messages, {ids.shape[1]} tokens, {int(image.sum())} of them placeholders",
    )  # fmt: skip
    positions = tensors.get("mrope_position_ids")
    blocks = (*_grids(tensors), *([] if positions is None else [_positions(positions, image)]))
    kept = ("image_grid_thw", "video_grid_thw", "mrope_position_ids")
    return inputs, ChatPart(blocks, {name: tensors[name].tolist() for name in kept if name in tensors})


def read_messages(path: str) -> list[dict[str, Any]]:
    """Return the messages of a chat: a JSON list, or an object with a list under "messages". Raises QuestionError for anything else."""
    from llmdoctor.files.jsonfile import read_json_file

    file = read_json_file(path)
    value = file.value.get("messages") if isinstance(file.value, dict) else file.value
    if file.value is None and file.problems:
        raise QuestionError(file.problems[0].message)
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) and isinstance(one.get("role"), str) for one in value):
        raise QuestionError(f"{path}: expected a list of messages, each with a role and a content")
    if len(value) > MAX_MESSAGES:
        raise QuestionError(f"{path}: {len(value)} messages, at most {MAX_MESSAGES} are read")
    for one in value:
        content = one.get("content")
        if not isinstance(content, str | list) or (isinstance(content, list) and not all(isinstance(part, dict) for part in content)):
            raise QuestionError(f"{path}: a message of {one['role']} has a content that is neither a text nor a list of parts")
    return value


def _grids(tensors: dict[str, Any]) -> list[Block]:
    lines = [
        f"{kind} {number}: {t} x {h} x {w} patches" for kind in ("image", "video") if (grid := tensors.get(f"{kind}_grid_thw")) is not None
        for number, (t, h, w) in enumerate(grid.tolist())
    ]  # fmt: skip
    return [Note("Pictures", "\n".join(lines))] if lines else []


def _positions(positions: Any, image: Any) -> Table:
    """Return the M-RoPE ids, one row per run of text or picture: first and last of time, height, width."""
    line = image[0]
    edges = [0, *(np.flatnonzero(np.diff(line)) + 1).tolist(), len(line)]
    rows: list[tuple[str | Cell, ...]] = []
    for start, end in itertools.pairwise(edges):
        axes = [f"{positions[axis, 0, start:end].min()}..{positions[axis, 0, start:end].max()}" for axis in range(3)]
        rows.append((f"{start}..{end - 1}", "picture" if line[start] else "text", *axes))
    return Table(("M-RoPE, tokens", "", "time", "height", "width"), tuple(rows))

"""`--messages chat.json`: a chat through the model's own processor, with the checks that only its inputs allow."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmdoctor.core.document import Block, Cell, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding
from llmdoctor.mask.check import finding
from llmdoctor.mask.options import Options, ask_cache, ask_phase, read_config
from llmdoctor.mask.types import CachePlan, Inputs

if TYPE_CHECKING:
    from llmdoctor.modeldir.directory import ModelDir

MAX_MESSAGES = 1000


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Chat:
    """What a chat adds to a report."""

    findings: tuple[Finding, ...]
    blocks: tuple[Block, ...]
    result: dict[str, Any]


def ask_chat(directory: ModelDir, options: Options) -> tuple[Inputs, Chat]:
    """The tensors that the processor makes of the messages, and what is wrong with them.

    Raises QuestionError where the file is no list of messages or the processor refuses it, MissingExtra where a package is missing.
    """
    messages = read_messages(options.messages or "")
    if ask_phase(options.phase)[0] != "prefill":
        raise QuestionError("--messages: a chat is prefilled; --phase decode asks about --lengths")
    from llmdoctor.mask.live.processor import process

    tensors, tokens = process(directory.path, messages)
    config = read_config(directory)
    ids = np.atleast_2d(tensors["input_ids"])
    if ids.shape[1] == 0:
        raise QuestionError(f"{options.messages}: the model's tokenizer makes no tokens of this chat")
    image_ids = [value for name in ("image_token_id", "video_token_id", "image_token_index") if isinstance(value := config.get(name), int)]
    image = np.isin(ids, image_ids).astype(np.int64)
    inputs = Inputs(
        ids.shape[0], ids.shape[1], cache=ask_cache(options.cache, CachePlan()), attention_mask=tensors.get("attention_mask"), input_ids=ids,
        tokens=tuple(tokens), said=f"{len(messages)} messages, {ids.shape[1]} tokens, {int(image.sum())} of them placeholders",
    )  # fmt: skip
    if "token_type_ids" in tensors:
        inputs = replace(inputs, image=tensors["token_type_ids"])
    found = tuple(placeholders(ids, tensors, config))
    positions = tensors.get("mrope_position_ids")
    blocks = (*_grids(tensors), *([] if positions is None else [_positions(positions, ids, image)]))
    result = {
        "chat": {name: tensors[name].tolist() for name in ("image_grid_thw", "video_grid_thw", "mrope_position_ids") if name in tensors}
    }
    return inputs, Chat(found, blocks, result)


def read_messages(path: str) -> list[dict[str, Any]]:
    """The messages of a chat: a JSON list, or an object with a list under "messages"."""
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


def placeholders(ids: Any, tensors: dict[str, Any], config: dict[str, Any]) -> list[Finding]:
    """MSK021: as many placeholder tokens as the grids make patches after merging."""
    merge = (config.get("vision_config") or {}).get("spatial_merge_size", 2)
    out = []
    for kind in ("image", "video"):
        token, grid = config.get(f"{kind}_token_id"), tensors.get(f"{kind}_grid_thw")
        if not isinstance(token, int):
            continue
        held = int((ids == token).sum())
        wanted = 0 if grid is None else int((grid.prod(axis=1) // merge**2).sum())
        if held != wanted:
            out.append(
                finding(
                    "MSK021", f"{held} {kind} placeholder tokens, but {kind}_grid_thw makes {wanted}", placeholders=held, patches=wanted
                )
            )
    return out


def _grids(tensors: dict[str, Any]) -> list[Block]:
    lines = [
        f"{kind} {number}: {t} x {h} x {w} patches" for kind in ("image", "video") if (grid := tensors.get(f"{kind}_grid_thw")) is not None
        for number, (t, h, w) in enumerate(grid.tolist())
    ]  # fmt: skip
    return [Note("PICTURES", "\n".join(lines))] if lines else []


def _positions(positions: Any, ids: Any, image: Any) -> Table:
    """The M-RoPE ids, one row a run of text or picture: first and last of time, height, width."""
    del ids
    line = image[0]
    edges = [0, *(np.flatnonzero(np.diff(line)) + 1).tolist(), len(line)]
    rows: list[tuple[str | Cell, ...]] = []
    for start, end in itertools.pairwise(edges):
        axes = [f"{positions[axis, 0, start:end].min()}..{positions[axis, 0, start:end].max()}" for axis in range(3)]
        rows.append((f"{start}..{end - 1}", "picture" if line[start] else "text", *axes))
    return Table(("M-RoPE, tokens", "", "time", "height", "width"), tuple(rows))

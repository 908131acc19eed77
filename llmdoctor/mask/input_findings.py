"""What is wrong with the inputs themselves: the 2-D mask, the positions, the marks and placeholders of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from llmdoctor.core.finding import Finding, Location
from llmdoctor.mask import rules
from llmdoctor.mask.accounting import pad_id_of
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.intervals import Bools, runs_of
from llmdoctor.mask.plan import unequal
from llmdoctor.mask.types import ForwardInputs


def place(inputs: ForwardInputs, field: str, row: int | None = None) -> Location | None:
    """Return the place of a field in the inputs file; None if no file holds it."""
    if inputs.source is None or field not in inputs.fields:
        return None
    return Location(inputs.source, f"/{field}" if row is None else f"/{field}/{row}")


def of_inputs(arch: Architecture, inputs: ForwardInputs, config: Mapping[str, Any]) -> Iterator[Finding]:
    """Return what is wrong with the inputs, whatever the backend."""
    pad_id = pad_id_of(config)
    if inputs.mask_2d is not None:
        inverted = _inverted(inputs, pad_id)
        if inverted is not None:
            yield inverted
            return
        yield from _of_2d_mask(arch, inputs, inputs.mask_2d)
    elif inputs.attention_mask is None:
        yield from _unmasked(arch, inputs, config)
    yield from _unmarked(arch, inputs, config)
    yield from _all_apart(arch, inputs, pad_id)


def _inverted(inputs: ForwardInputs, pad_id: int | None) -> Finding | None:
    """Return the finding of a 2-D mask that is 1 on padding and 0 on every other token, as the ids or the labels show; else None."""
    mask, ids, labels = inputs.mask_2d, inputs.input_ids, inputs.labels
    if mask is None or ids is None or mask.shape != ids.shape or _odd_values(mask) is not None or bool((mask != 0).all()):
        return None
    shown = mask != 0
    padding = None if pad_id is None else ids == pad_id
    by_ids = padding is not None and bool((shown == padding).all()) and bool(padding.any())
    trained = labels != -100 if labels is not None and labels.shape == mask.shape else None
    by_labels = trained is not None and bool(trained.any()) and bool((~shown[trained]).all()) and bool((~trained[shown]).all())
    if not by_ids and not (by_labels and bool(shown.any()) and _at_edges(shown)):
        return None
    why = f"it is 1 exactly where input_ids is pad_token_id {pad_id}" if by_ids else "it is 1 exactly where the labels are -100"
    count = int(shown.sum())
    return rules.INVERTED_2D.at(
        place(inputs, "attention_mask"), f"the 2-D mask is inverted: {why} ({count} tokens), and 0 on the other {mask.size - count} tokens",
        cause=rules.INVERTED_2D.reason, shown=count, hidden=int(mask.size) - count, by="ids" if by_ids else "labels",
    )  # fmt: skip


def _at_edges(shown: Bools) -> bool:
    """Return whether what the mask shows lies at one end of each row, as padding does."""
    return all(not line.any() or (len(runs_of(line)) == 1 and (line[0] or line[-1])) for line in shown)


def _of_2d_mask(arch: Architecture, inputs: ForwardInputs, mask: Any) -> Iterator[Finding]:
    odd = _odd_values(mask)
    at = place(inputs, "attention_mask")
    if odd is not None:
        yield rules.MASK_CAST.at(
            at,
            f"the 2-D mask holds {odd}; cast to bool it is {_as_bool(mask)}",
            cause=rules.MASK_CAST.reason,
            fix=_as_mask(mask),
            values=odd,
        )
        return
    yield from _holes(mask, inputs)
    yield from _short(mask, inputs)
    real = mask != 0
    empty = np.flatnonzero(~real[:, : inputs.past or None].any(axis=1))
    if len(empty):
        row = int(empty[0])
        yield rules.DEAD_ROW.at(
            place(inputs, "attention_mask", row), f"row {row} of the 2-D mask has no real token at all ({len(empty)} such rows)",
            cause=rules.DEAD_ROW.reason, fix="leave the row out of the batch, or give it a real token", row=row,
        )  # fmt: skip
        return
    if inputs.phase in ("decode", "chunk") and inputs.past and not arch.cross:
        yield from _right_padded(real, inputs)
    if arch.traits.get("absolute") and inputs.position_ids is None and inputs.phase == "prefill":
        rows = np.flatnonzero(~real[:, 0] & real.any(axis=1))
        if len(rows):
            row = int(rows[0])
            shift = int(real[row].argmax())
            yield rules.LEFT_PADDED_POSITIONS.at(
                place(inputs, "attention_mask", row),
                f"row {row} starts at column {shift}, and {arch.model_type} counts its positions from column 0: every position is {shift} too high",
                cause=rules.LEFT_PADDED_POSITIONS.reason, row=row, shift=shift,
            )  # fmt: skip


def _odd_values(mask: Any) -> str | None:
    """Return the first values of a 2-D mask if it holds others than 0 and 1, else None."""
    values = np.unique(mask)
    if mask.dtype == np.bool_ or bool(np.isin(values, (0, 1)).all()):
        return None
    shown = ", ".join(f"{value:g}" for value in values[:5].astype(float))
    return shown + (" ..." if len(values) > 5 else "")


def _as_bool(mask: Any) -> str:
    share = int((mask != 0).sum())
    where = "all True" if share == mask.size else f"True in {share} of {mask.size} places"
    if bool((mask < 0).any()):
        return f"{where}, the additive ones inverted"
    whole = bool((mask == np.floor(mask)).all())
    return f"{where}: " + ("documents are not kept apart" if whole else "what is not 0 counts as a real token")


def _as_mask(mask: Any) -> str:
    """Return the change that makes a 2-D mask of ones and zeros, or documents, of what the mask holds."""
    if bool((mask < 0).any()):
        return "attention_mask = (attention_mask == 0).long()  # it was one to add to the scores"
    if bool((mask == np.floor(mask)).all()):
        return "the numbers are documents: pass position_ids that start anew at each, no attention_mask, and use_cache=False"
    return "attention_mask = (attention_mask > 0.5).long()"


def _holes(mask: Any, inputs: ForwardInputs) -> Iterator[Finding]:
    """Find zeros with real tokens on both sides, among the tokens of the prompt."""
    mask = mask[:, : inputs.past] if inputs.past else mask
    for row in range(mask.shape[0]):
        runs = runs_of(np.asarray(mask[row] != 0, np.bool_))
        if len(runs) < 2:
            continue
        holes = [(runs[at][1], runs[at + 1][0]) for at in range(len(runs) - 1)]
        spans = ", ".join(f"{start}" if end == start + 1 else f"{start}..{end - 1}" for start, end in holes[:4])
        more = f" and {len(holes) - 4} more" if len(holes) > 4 else ""
        name = ""
        if inputs.input_ids is not None and holes[0][0] < inputs.input_ids.shape[1]:
            token = int(inputs.input_ids[row, holes[0][0]])
            name = f" (token id {token}" + (", put there by masked_fill)" if token == 0 else ")")
        rows = sum(len(runs_of(np.asarray(line != 0, np.bool_))) > 1 for line in mask)
        yield rules.MASK_HOLE.at(
            place(inputs, "attention_mask", row),
            f"row {row} is masked inside its text, at {spans}{more}{name}; {rows} of {mask.shape[0]} rows have holes",
            cause=rules.MASK_HOLE.reason, row=row, spans=[list(hole) for hole in holes[:20]], rows=rows,
        )  # fmt: skip
        return


def _short(mask: Any, inputs: ForwardInputs) -> Iterator[Finding]:
    """Find a 2-D mask without one column per token."""
    total, columns = inputs.past + inputs.q_len, int(mask.shape[1])
    at, cause = place(inputs, "attention_mask"), rules.SHORT_MASK.reason
    if unequal(inputs):
        yield rules.SHORT_MASK.at(
            at, f"the 2-D mask has {columns} columns for {total} tokens: without a cache its columns count as the keys, and forward() raises if the "
            "mask is written out", cause=cause, fix="attention_mask with one column per token", columns=columns, tokens=total,
        )  # fmt: skip
    elif columns < total:
        yield rules.SHORT_MASK.at(
            at, f"the 2-D mask has {columns} columns for {inputs.past} cached and {inputs.q_len} new tokens: no query sees tokens "
            f"{columns}..{total - 1}", cause=cause, columns=columns, tokens=total,
        )  # fmt: skip


def _right_padded(real: Bools, inputs: ForwardInputs) -> Iterator[Finding]:
    rows = np.flatnonzero((~real[:, : inputs.past]).any(axis=1) & real[:, 0])
    rows = np.asarray([row for row in rows if not real[row, inputs.past - 1]])
    if len(rows):
        row = int(rows[0])
        start = int(real[row, : inputs.past].nonzero()[0].max()) + 1
        yield rules.RIGHT_PADDED_GENERATION.at(
            place(inputs, "attention_mask", row),
            f"row {row} is right-padded: new tokens follow {inputs.past - start} padding tokens ({start}..{inputs.past - 1})",
            cause=rules.RIGHT_PADDED_GENERATION.reason, row=row, span=[start, inputs.past],
        )  # fmt: skip


def _unmasked(arch: Architecture, inputs: ForwardInputs, config: Mapping[str, Any]) -> Iterator[Finding]:
    """Find padding that no mask hides and that real tokens see: at the start of a row, and in an encoder at its end too."""
    ids, pad_id = inputs.input_ids, pad_id_of(config)
    if ids is None or pad_id is None or inputs.position_ids is not None or inputs.cu_seqlens is not None or inputs.ended is not None:
        return
    sides = {"starts": ids == pad_id, "ends": ids[:, ::-1] == pad_id}
    for side, padding in sides.items():
        if side == "ends" and not arch.encoder:
            continue  # no real token of a decoder sees what is behind it
        counts = np.minimum.accumulate(padding, axis=1).sum(axis=1)
        counts[counts == ids.shape[1]] = 0
        if counts.max() < 2:
            continue  # one token may be a beginning of text
        row = int(counts.argmax())
        text = f"row {row} {side} with {int(counts[row])} tokens of pad_token_id {pad_id}, and no attention_mask is passed: the other tokens see them"
        yield rules.MASK_MISSING.at(
            place(inputs, "input_ids", row),
            text,
            cause=rules.MASK_MISSING.reason,
            row=row,
            count=int(counts[row]),
            rows=int((counts > 1).sum()),
        )
        return


def _all_apart(arch: Architecture, inputs: ForwardInputs, pad_id: int | None) -> Iterator[Finding]:
    """Find positions that never go up: a mask that is made from them has a document for each token."""
    positions = inputs.position_ids
    searched = any(layer.pattern is not None and layer.pattern.packs for layer in arch.layers) and inputs.cache.kind == "none"
    if not searched or (arch.mrope and not arch.traits.get("mrope_expands")) or inputs.attention_mask is not None:
        return
    if positions is None or positions.ndim != 2 or positions.shape[1] < 3 or inputs.cu_seqlens is not None:
        return
    flat = np.asarray((np.diff(positions, axis=1) <= 0).all(axis=1))
    if inputs.input_ids is not None and flat.size == inputs.batch:
        flat = flat & ((inputs.input_ids != pad_id).sum(axis=1) > 2)
    if flat.any():
        row = int(flat.argmax())
        yield rules.DOCUMENT_SPLIT.at(
            place(inputs, "position_ids", row), f"the positions of row {row} never go up: each of its {positions.shape[1]} tokens is a document of its "
            "own and sees no other", cause=rules.DOCUMENT_SPLIT.reason, row=row, rows=int(flat.sum()),
        )  # fmt: skip


def _unmarked(arch: Architecture, inputs: ForwardInputs, config: Mapping[str, Any]) -> Iterator[Finding]:
    """Find image tokens without the field that marks them, in a model that lets the tokens of an image see each other."""
    image = next((value for name in ("image_token_id", "image_token_index") if type(value := config.get(name)) is int), None)
    blocks = next((layer.pattern.blocks for layer in arch.layers if layer.pattern is not None and layer.pattern.blocks is not None), None)
    if inputs.input_ids is None or image is None or blocks is None or 1 not in blocks.values or inputs.phase != "prefill":
        return
    if (inputs.token_types if blocks.field == "token_type_ids" else inputs.media) is not None:
        return
    held = inputs.input_ids == image
    pairs = held[:, 1:] & held[:, :-1]
    if pairs.any():
        row, first = (int(at[0]) for at in np.nonzero(pairs))
        yield rules.IMAGE_BLOCK_LOST.at(
            place(inputs, "input_ids", row), f"row {row} has {int(held[row].sum())} image tokens from {first} on, and no {blocks.field}: they see each "
            "other only causally", cause=rules.IMAGE_BLOCK_LOST.reason, fix=f"pass the {blocks.field} of the processor", row=row, query=first,
        )  # fmt: skip


def of_placeholders(inputs: ForwardInputs, config: Mapping[str, Any], *, complete: bool = False) -> Iterator[Finding]:
    """Find placeholder tokens that are not as many as image_grid_thw and video_grid_thw make patches after merging.

    Inputs without any grid are left alone, unless they are `complete`: then placeholders without a grid are a fault.
    """
    vision = config.get("vision_config")
    merge = vision.get("spatial_merge_size", 2) if isinstance(vision, dict) else 2
    if inputs.input_ids is None or isinstance(merge, bool) or not isinstance(merge, int) or merge < 1:
        return
    for kind in ("image", "video"):
        token, grid = config.get(f"{kind}_token_id"), inputs.grids.get(f"{kind}_grid_thw")
        if not isinstance(token, int) or (not inputs.grids and not complete):
            continue
        held = int((inputs.input_ids == token).sum())
        wanted = 0 if grid is None else int((grid.prod(axis=1) // merge**2).sum())
        if held != wanted:
            yield rules.PLACEHOLDER_COUNT.at(
                place(inputs, "input_ids"), f"{held} {kind} placeholder tokens, but {kind}_grid_thw makes {wanted}",
                cause=rules.PLACEHOLDER_COUNT.reason, placeholders=held, patches=wanted,
            )  # fmt: skip

"""What is wrong with the masks that a plan shows: leaks between documents, queries without a key, lost images and windows, bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from llmdoctor.core.finding import Finding
from llmdoctor.mask import rules
from llmdoctor.mask.architectures import Architecture, ModelLayer
from llmdoctor.mask.bands import block_spans
from llmdoctor.mask.calls import block_ids
from llmdoctor.mask.differ import real_queries
from llmdoctor.mask.documents import documents_meant, documents_of, text_positions
from llmdoctor.mask.input_findings import place
from llmdoctor.mask.intervals import Bools, Ints
from llmdoctor.mask.screen import layers_text, size_text
from llmdoctor.mask.types import GPT_FAST, SHORT, BackendPlan, ForwardInputs, LayerMask


def of_refusal(arch: Architecture, plan: BackendPlan, *, alone: bool) -> Iterator[Finding]:
    """Find a backend that the library refuses; among several backends it is skipped instead, with the reason."""
    if plan.error is None or not alone:
        return
    supported = ["eager", *(name for name in ("sdpa", "flash_attention_2", "flex_attention") if arch.refusal(name) is None)]
    fix = f'attn_implementation="{supported[1] if len(supported) > 1 else "eager"}"'
    if plan.backend == GPT_FAST:
        fix = "use transformers, or rows of one length"
    elif arch.refusal(plan.backend) is None:
        fix = "use a dynamic cache, or no 2-D mask"
    yield rules.BACKEND_REFUSED.at(None, f"{plan.backend}: {plan.error}", cause=rules.BACKEND_REFUSED.reason, fix=fix, backend=plan.backend)


def of_plan(arch: Architecture, inputs: ForwardInputs, plan: BackendPlan) -> Iterator[Finding]:
    """Find what each group of layers sees and should not, or does not see and should."""
    if plan.error is None:
        yield from _of_documents(arch, inputs, plan)
    for group in plan.layers:
        if group.visible is None:
            continue
        yield from _empty_slots(group, inputs)
        yield from _dead(group, inputs)
        yield from _cross(group, inputs)
        yield from _image(arch, group, inputs)
        yield from _window(arch, group)


def _name(group: LayerMask) -> str:
    return f"{SHORT.get(group.backend, group.backend)}, {group.type} {layers_text(group.layers)}"


def _where(group: LayerMask) -> dict[str, Any]:
    return {"backend": group.backend, "layers": list(group.layers)}


# --- documents ----------------------------------------------------------------------------------------------------------------------


def _of_documents(arch: Architecture, inputs: ForwardInputs, plan: BackendPlan) -> Iterator[Finding]:
    """Find packed documents that see one another, and documents that are cut where positions jump."""
    documents = documents_meant(inputs)
    if documents is not None and not (arch.cross or arch.encoder):
        yield from _leaks(arch, inputs, plan, documents)
    elif documents is not None and not arch.two_stacks:
        yield from _encoder_leaks(inputs, plan, documents)
    if inputs.position_ids is not None and inputs.attention_mask is None:
        yield from _splits(inputs, plan, documents)


def _first_start(documents: Ints) -> tuple[int, int] | None:
    """Return row and token of the first document that has another one before it; None if there is none."""
    for row, line in enumerate(documents):
        starts = np.flatnonzero((np.diff(line) != 0) & (line[1:] > 0))
        if len(starts):
            return row, int(starts[0]) + 1
    return None


def _leaks(arch: Architecture, inputs: ForwardInputs, plan: BackendPlan, documents: Ints) -> Iterator[Finding]:
    found = _first_start(documents)
    if found is None:
        return
    row, first = found
    linear = [group for group in plan.layers if group.type == "linear"]
    if linear:
        layers = linear[0].layers
        yield rules.LINEAR_LEAK.at(
            place(inputs, "position_ids", row),
            f"{SHORT.get(plan.backend, plan.backend)}, linear {layers_text(layers)}: the state of tokens 0..{first - 1} runs on into token {first}",
            cause=rules.LINEAR_LEAK.reason, backend=plan.backend, layers=list(layers), row=row, span=[0, first],
        )  # fmt: skip
    line = documents[row]
    for group in plan.layers:
        if group.visible is None or group.type in ("cross", "encoder", "linear"):
            continue
        seen = _other_document(group, row, first, line)
        if seen is not None:
            yield rules.PACKING_LEAK.at(
                place(inputs, "position_ids", row),
                f"{_name(group)}: token {first}, the first of its document, sees {seen[0]}..{seen[1] - 1} of the one before",
                cause=_why_leak(arch, inputs, plan.backend), fix=_repair(arch, inputs, plan.backend), row=row, query=first, span=list(seen),
                **_where(group),
            )  # fmt: skip


def _other_document(group: LayerMask, row: int, query: int, line: Ints) -> tuple[int, int] | None:
    """Return the first and the end of the unmasked tokens of earlier documents that a query sees; None if it sees none."""
    if group.visible is None:
        return None
    for start, end in group.visible.runs(min(row, group.visible.rows - 1), query):
        other = np.flatnonzero((line[start : min(end, query)] >= 0) & (line[start : min(end, query)] != line[query]))
        if len(other):
            return start + int(other[0]), start + int(other[-1]) + 1
    return None


def _encoder_leaks(inputs: ForwardInputs, plan: BackendPlan, documents: Ints) -> Iterator[Finding]:
    """Find documents of an encoder that see one another: only flash-attention looks for documents there."""
    found = _first_start(documents)
    if found is None:
        return
    row, first = found
    for group in plan.layers:
        if group.visible is None or group.type != "encoder":
            continue
        seen = _other_document(group, row, first, documents[row])
        if seen is not None:
            yield rules.PACKING_LEAK.at(
                place(inputs, "position_ids", row),
                f"{_name(group)}: token {first}, the first of its document, sees {seen[0]}..{seen[1] - 1} of the one before",
                cause="an encoder's mask function does not look for documents in position_ids", fix="one document per row", row=row, query=first,
                span=list(seen), **_where(group),
            )  # fmt: skip


def _why_leak(arch: Architecture, inputs: ForwardInputs, backend: str) -> str:
    """Return why the library does not find the documents."""
    positions = inputs.position_ids
    if inputs.cu_seqlens is None and positions is None:
        return "no position_ids are passed: the library cannot know where a document ends"
    if positions is None:
        return f"cu_seq_lens_* reach only flash-attention, and only all four fields together: {backend} does not read them"
    if arch.mrope and (positions.ndim == 2 or positions.shape[0] == 3):
        return (
            f"{arch.model_type} looks for documents only in a fourth, first row of position_ids: with {positions.ndim}-D ids it finds none"
        )
    if backend.startswith("flash"):
        return "flash-attention reads documents from position_ids only in a batch of one without a 2-D mask"
    if inputs.attention_mask is not None:
        return "a 2-D mask is passed, even one of ones: position_ids are then not searched for documents"
    if inputs.cache.kind != "none":
        return "there is a cache (use_cache=True is the library's default): position_ids are then not searched for documents"
    return f"{arch.model_type} does not pass its position_ids to the mask function"


def _repair(arch: Architecture, inputs: ForwardInputs, backend: str) -> str:
    """Return the change that keeps the documents apart."""
    if arch.mrope:
        return (
            "position_ids = torch.cat([text_positions[None], mrope_positions])  # [4, B, S], the text row first; no mask, use_cache=False"
        )
    if inputs.position_ids is None:
        return "pass position_ids that start anew at each document, without attention_mask and with use_cache=False"
    if inputs.attention_mask is not None or inputs.cache.kind != "none":
        return rules.PACKING_LEAK.fix
    packs = any(layer.pattern is not None and layer.pattern.flash_packs for layer in arch.layers)
    leaks_there = backend == "flash_attention_2" and inputs.batch == 1
    if arch.refusal("flash_attention_2") is None and packs and not arch.cross and not leaks_there:
        return "flash_attention_2 in a batch of one, or one document per row"
    return "one document per row"


def _splits(inputs: ForwardInputs, plan: BackendPlan, documents: Ints | None) -> Iterator[Finding]:
    """Find documents that the mask cuts because their positions jump ahead."""
    positions = text_positions(inputs.position_ids)
    if positions is None or inputs.phase != "prefill":
        return
    found = documents_of(positions)
    if found is None:
        return
    meant = np.zeros((1, inputs.q_len), np.int64) if documents is None else documents
    for row in range(len(found)):
        line = meant[min(row, len(meant) - 1)]
        cut = np.flatnonzero((np.diff(found[row]) != 0) & (np.diff(line) == 0) & (line[1:] >= 0)) + 1
        if len(cut) == 0:
            continue
        first = int(cut[0])
        for group in plan.layers:
            if group.type in ("full_attention", "sliding_attention", "chunked_attention", "indexed_attention") and _is_cut(
                group, row, first
            ):
                before, after = int(positions[row, first - 1]), int(positions[row, first])
                yield rules.DOCUMENT_SPLIT.at(
                    place(inputs, "position_ids", row),
                    f"{_name(group)}: positions jump from {before} to {after} at token {first}, and the mask starts a new document there: the tokens "
                    "after the jump do not see those before it",
                    cause=rules.DOCUMENT_SPLIT.reason, row=row, query=first, jumps=len(cut), **_where(group),
                )  # fmt: skip
        return


def _is_cut(group: LayerMask, row: int, query: int) -> bool:
    visible = group.visible
    if visible is None:
        return False
    runs = visible.runs(min(row, visible.rows - 1), query)
    return not any(start < query for start, _ in runs)


# --- single queries -----------------------------------------------------------------------------------------------------------------


def _empty_slots(group: LayerMask, inputs: ForwardInputs) -> Iterator[Finding]:
    """Find queries that see slots of a static cache that nothing was written to."""
    visible = group.visible
    written = inputs.past + inputs.q_len
    if inputs.cache.kind != "static" or visible is None or visible.kv_len <= written or group.type in ("cross", "encoder"):
        return
    real = real_queries(inputs, group)
    for row in range(visible.rows):
        for query in (int(at) for at in np.flatnonzero(real[min(row, len(real) - 1)])[[0, -1]]):
            runs = [run for run in visible.runs(row, query) if run[1] > written]
            if runs:
                start, end = max(runs[-1][0], written), runs[-1][1]
                yield rules.EMPTY_SLOTS_SEEN.at(
                    None, f"{_name(group)}: query {query} sees {end - start} empty slots, {start}..{end - 1}", cause=rules.EMPTY_SLOTS_SEEN.reason,
                    row=row, query=query, span=[start, end], **_where(group),
                )  # fmt: skip
                return


_AWAKE = {True: "attention_mask with 1 at every real token, cached ones too", False: "position_ids that go up by one inside each document"}


def _dead(group: LayerMask, inputs: ForwardInputs) -> Iterator[Finding]:
    """Find real queries that see no key."""
    visible = group.visible
    if visible is None or inputs.mask_4d is not None or group.type == "cross":
        return
    real = real_queries(inputs, group)
    for row in range(visible.rows):
        queries: Bools = real[min(row, len(real) - 1)] if visible.repeat == 1 else np.ones(visible.q_len, np.bool_)
        dead = [int(query) for query in visible.dead(row) if query < len(queries) and queries[query]]
        if dead:
            yield rules.DEAD_ROW.at(
                place(inputs, "attention_mask", row), f"{_name(group)}: row {row} query {dead[0]} sees no key ({len(dead)} such queries)",
                cause=rules.DEAD_ROW.reason, fix=_AWAKE[inputs.attention_mask is not None], row=row, query=dead[0], count=len(dead), **_where(group),
            )  # fmt: skip
            return
    half = group.object.kind == "tensor" and group.object.dtype in ("bfloat16", "float16")
    padding = [row for row in range(visible.rows) if len(visible.dead(row))]
    if half and padding:
        row = padding[0]
        yield rules.EMPTY_PADDING_ROWS.at(
            None, f"{_name(group)}: {len(visible.dead(row))} padding queries of row {row} see no key in {group.object.dtype}",
            cause=rules.EMPTY_PADDING_ROWS.reason, row=row, count=len(visible.dead(row)), **_where(group),
        )  # fmt: skip


def _cross(group: LayerMask, inputs: ForwardInputs) -> Iterator[Finding]:
    """Find decoder queries that flash-attention drops with the encoder's padding."""
    if group.type != "cross" or not group.backend.startswith("flash") or inputs.q_len <= 1 or group.object.kind != "varlen":
        return
    mask = inputs.mask_2d
    if mask is not None and (mask == 0).any() and group.q_len == group.kv_len:
        row = int(np.flatnonzero((mask == 0).any(axis=1))[0])
        lost = int((mask[row] == 0).sum())
        yield rules.FLASH_CROSS.at(
            place(inputs, "attention_mask", row), f"{_name(group)}: row {row} loses {lost} decoder queries that the encoder's mask unpads away",
            cause=rules.FLASH_CROSS.reason, row=row, **_where(group),
        )  # fmt: skip


def _image(arch: Architecture, group: LayerMask, inputs: ForwardInputs) -> Iterator[Finding]:
    """Find a block of image tokens that is seen only causally, in layers that make blocks of them."""
    visible, layer = group.visible, layer_of(arch, group)
    pattern = None if layer is None else layer.pattern
    if visible is None or pattern is None or pattern.blocks is None:
        return
    ids = block_ids(inputs, pattern.blocks)
    if ids is None or group.q_len != ids.shape[1]:
        return
    ids = np.where(real_queries(inputs, group), ids, -1)
    if not (ids[0] >= 0).any():
        return
    start, end = block_spans(ids[:1])
    stop = int(end[0].max())
    first = int(start[0][end[0] == stop].max())
    if stop - first < 2:
        return
    if pattern.blocks.inside_window and pattern.local == "window":
        stop = min(stop, first + pattern.size)  # the block is cut by the window
    runs = visible.runs(0, first)
    if not any(run[0] <= first and run[1] >= stop for run in runs):
        what = "image" if pattern.blocks.each_run else "prefix"
        yield rules.IMAGE_BLOCK_LOST.at(
            None, f"{_name(group)}: the first token of the {what}, {first}, does not see its last, {stop - 1}", cause=rules.IMAGE_BLOCK_LOST.reason,
            row=0, query=first, span=[first, stop], **_where(group),
        )  # fmt: skip


def layer_of(arch: Architecture, group: LayerMask) -> ModelLayer | None:
    """Return the first layer of a group; None if the architecture has no such layer."""
    return next((layer for layer in (*arch.layers, *arch.encoder) if layer.index == group.layers[0] and layer.type == group.type), None)


def _window(arch: Architecture, group: LayerMask) -> Iterator[Finding]:
    """Find sliding layers that have a window under other backends and do not pass it to flash-attention."""
    layer = layer_of(arch, group)
    pattern = None if layer is None else layer.pattern
    if pattern is None or pattern.flash_window or pattern.local != "window" or not group.backend.startswith("flash"):
        return
    if group.kv_len is not None and group.kv_len > pattern.size:
        extra = group.kv_len - pattern.size
        yield rules.WINDOW_OFF.at(
            None, f"{_name(group)}: no window is passed to the kernel: the last query sees {extra} keys outside its window of {pattern.size}",
            cause=rules.WINDOW_OFF.reason, window=pattern.size, extra=extra, **_where(group),
        )  # fmt: skip


def of_budget(plan: BackendPlan, budget: int) -> Iterator[Finding]:
    """Find masks of one forward that take more bytes than `budget`."""
    spent = sum(group.object.storage_bytes for group in plan.layers if group.object.kind == "tensor" and group.type != "linear")
    if spent > budget:
        yield rules.MASK_BUDGET.at(
            None, f"{plan.backend}: the masks of one forward take {size_text(spent)}, more than {size_text(budget)}", cause=rules.MASK_BUDGET.reason,
            backend=plan.backend, bytes=spent, budget=budget,
        )  # fmt: skip

"""What is wrong with the masks that a plan shows: leaks between documents, queries without a key, lost images and windows, bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmdoctor.core.finding import Finding
from llmdoctor.mask import rules
from llmdoctor.mask.architectures import Architecture, ModelLayer
from llmdoctor.mask.bands import block_spans
from llmdoctor.mask.calls import block_ids
from llmdoctor.mask.differ import real_queries
from llmdoctor.mask.document_findings import group_name, of_documents, where
from llmdoctor.mask.input_findings import place
from llmdoctor.mask.intervals import Bools
from llmdoctor.mask.screen import size_text
from llmdoctor.mask.types import GPT_FAST, BackendPlan, ForwardInputs, LayerMask


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
        yield from of_documents(arch, inputs, plan)
    for group in plan.layers:
        if group.visible is None:
            continue
        yield from _empty_slots(group, inputs)
        yield from _dead(group, inputs)
        yield from _cross(group, inputs)
        yield from _image(arch, group, inputs)
        yield from _window(arch, group)


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
                    None, f"{group_name(group)}: query {query} sees {end - start} empty slots, {start}..{end - 1}", cause=rules.EMPTY_SLOTS_SEEN.reason,
                    row=row, query=query, span=[start, end], **where(group),
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
                place(inputs, "attention_mask", row), f"{group_name(group)}: row {row} query {dead[0]} sees no key ({len(dead)} such queries)",
                cause=rules.DEAD_ROW.reason, fix=_AWAKE[inputs.attention_mask is not None], row=row, query=dead[0], count=len(dead), **where(group),
            )  # fmt: skip
            return
    half = group.object.kind == "tensor" and group.object.dtype in ("bfloat16", "float16")
    padding = [row for row in range(visible.rows) if len(visible.dead(row))]
    if half and padding:
        row = padding[0]
        yield rules.EMPTY_PADDING_ROWS.at(
            None, f"{group_name(group)}: {len(visible.dead(row))} padding queries of row {row} see no key in {group.object.dtype}",
            cause=rules.EMPTY_PADDING_ROWS.reason, row=row, count=len(visible.dead(row)), **where(group),
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
            place(inputs, "attention_mask", row), f"{group_name(group)}: row {row} loses {lost} decoder queries that the encoder's mask unpads away",
            cause=rules.FLASH_CROSS.reason, row=row, **where(group),
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
            None, f"{group_name(group)}: the first token of the {what}, {first}, does not see its last, {stop - 1}",
            cause=rules.IMAGE_BLOCK_LOST.reason, row=0, query=first, span=[first, stop], **where(group),
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
            None, f"{group_name(group)}: no window is passed to the kernel: the last query sees {extra} keys outside its window of {pattern.size}",
            cause=rules.WINDOW_OFF.reason, window=pattern.size, extra=extra, **where(group),
        )  # fmt: skip


def of_budget(plan: BackendPlan, budget: int) -> Iterator[Finding]:
    """Find masks of one forward that take more bytes than `budget`."""
    spent = sum(group.object.storage_bytes for group in plan.layers if group.object.kind == "tensor" and group.type != "linear")
    if spent > budget:
        yield rules.MASK_BUDGET.at(
            None, f"{plan.backend}: the masks of one forward take {size_text(spent)}, more than {size_text(budget)}", cause=rules.MASK_BUDGET.reason,
            backend=plan.backend, bytes=spent, budget=budget,
        )  # fmt: skip

"""Packed documents that see one another in a plan, and documents that a mask cuts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from llmdoctor.core.finding import Finding
from llmdoctor.mask import rules
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.documents import documents_meant, documents_of, text_positions
from llmdoctor.mask.input_findings import place
from llmdoctor.mask.intervals import Ints
from llmdoctor.mask.screen import layers_text
from llmdoctor.mask.types import SHORT, BackendPlan, ForwardInputs, LayerMask


def group_name(group: LayerMask) -> str:
    """Return the backend and the layers of a group, as findings name them."""
    return f"{SHORT.get(group.backend, group.backend)}, {group.type} {layers_text(group.layers)}"


def where(group: LayerMask) -> dict[str, Any]:
    """Return the backend and the layers of a group, as evidence."""
    return {"backend": group.backend, "layers": list(group.layers)}


def of_documents(arch: Architecture, inputs: ForwardInputs, plan: BackendPlan) -> Iterator[Finding]:
    """Find packed documents that see one another, and documents that are cut where positions jump."""
    documents = documents_meant(inputs)
    if documents is not None:
        yield from _leaks(arch, inputs, plan, documents)
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
    """Find the first token of a document that sees one before, in every group of layers; with an encoder, in its layers."""
    found = _first_start(documents)
    if found is None:
        return
    row, first = found
    encodes = arch.cross or arch.encoder
    linear = [group for group in plan.layers if group.type == "linear" and not encodes]
    if linear:
        layers = linear[0].layers
        yield rules.LINEAR_LEAK.at(
            place(inputs, "position_ids", row),
            f"{SHORT.get(plan.backend, plan.backend)}, linear {layers_text(layers)}: the state of tokens 0..{first - 1} runs on into token {first}",
            cause=rules.LINEAR_LEAK.reason, backend=plan.backend, layers=list(layers), row=row, span=[0, first],
        )  # fmt: skip
    for group in plan.layers:
        if group.visible is None or (group.type != "encoder" if encodes else group.type in ("cross", "encoder", "linear")):
            continue
        seen = _other_document(group, row, first, documents[row])
        if seen is not None:
            yield rules.PACKING_LEAK.at(
                place(inputs, "position_ids", row),
                f"{group_name(group)}: token {first}, the first of its document, sees {seen[0]}..{seen[1] - 1} of the one before",
                cause=_encoder_cause(arch) if encodes else _why_leak(arch, inputs, plan.backend), fix="one document per row",
                row=row, query=first, span=list(seen), **where(group),
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


def _encoder_cause(arch: Architecture) -> str:
    if arch.two_stacks:
        return "the masks of an encoder-decoder, whose forward() takes no position_ids, know of no documents"
    return "an encoder's mask function does not look for documents in position_ids"


def _why_leak(arch: Architecture, inputs: ForwardInputs, backend: str) -> str:
    """Return why the library does not find the documents."""
    positions = inputs.position_ids
    if inputs.cu_seqlens is None and positions is None:
        return "no position_ids are passed: the library cannot know where a document ends"
    if positions is None:
        return "cu_seq_lens_* reach only flash-attention, and only all four fields together: the other backends do not read them"
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
                    f"{group_name(group)}: positions jump from {before} to {after} at token {first}, and the mask starts a new document there: the "
                    "tokens after the jump do not see those before it",
                    cause=rules.DOCUMENT_SPLIT.reason, row=row, query=first, jumps=len(cut), **where(group),
                )  # fmt: skip
        return


def _is_cut(group: LayerMask, row: int, query: int) -> bool:
    visible = group.visible
    if visible is None:
        return False
    runs = visible.runs(min(row, visible.rows - 1), query)
    return not any(start < query for start, _ in runs)

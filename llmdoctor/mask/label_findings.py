"""What is wrong with the labels of a batch, and with padding that counts as documents."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmdoctor.core.finding import Finding
from llmdoctor.mask import rules
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.documents import documents_meant
from llmdoctor.mask.input_findings import place
from llmdoctor.mask.intervals import Bools, Ints
from llmdoctor.mask.types import ForwardInputs


def of_labels(arch: Architecture, inputs: ForwardInputs, pad_id: int | None) -> Iterator[Finding]:
    """Return what is wrong with the labels, and with padding of packed rows; `pad_id` is the model's pad_token_id."""
    yield from _masked_labels(arch, inputs)
    if arch.layers and not arch.cross:  # the loss of an encoder or of an encoder-decoder does not shift its labels
        yield from _shifted_labels(inputs)
    yield from _of_documents(arch, inputs, pad_id)


def _masked_labels(arch: Architecture, inputs: ForwardInputs) -> Iterator[Finding]:
    """Find labels of masked tokens; the labels of an encoder-decoder are tokens of its decoder."""
    labels, mask = inputs.labels, inputs.mask_2d
    if labels is None or mask is None or mask.shape != labels.shape or arch.cross:
        return
    masked = (mask == 0) & (labels != -100)
    if masked.any():
        row, at = (int(where[0]) for where in np.nonzero(masked))
        yield rules.MASKED_LABELS.at(
            place(inputs, "labels", row), f"{int(masked.sum())} masked tokens have labels, the first in row {row} at {at}",
            cause=rules.MASKED_LABELS.reason, row=row, token=at, count=int(masked.sum()),
        )  # fmt: skip


def _shifted_labels(inputs: ForwardInputs) -> Iterator[Finding]:
    labels, ids = inputs.labels, inputs.input_ids
    if labels is None or ids is None or labels.shape != ids.shape or labels.shape[1] <= 2:
        return
    trained = labels[:, :-1] != -100
    if trained.sum() < 4:
        return
    same = float((labels == ids)[:, :-1][trained].mean())
    moved = float((labels[:, :-1] == ids[:, 1:])[trained].mean())
    if moved > 0.95 and same < 0.5:
        yield rules.LABELS_SHIFTED_TWICE.at(
            place(inputs, "labels"), f"{moved:.0%} of the labels are the next token of input_ids: the loss of the model shifts them once more",
            cause=rules.LABELS_SHIFTED_TWICE.reason, equal_next=round(moved, 4), equal_same=round(same, 4),
        )  # fmt: skip


def _of_documents(arch: Architecture, inputs: ForwardInputs, pad_id: int | None) -> Iterator[Finding]:
    """Find labels at the first token of a document, and documents of one token that are padding."""
    documents, labels, ids = documents_meant(inputs), inputs.labels, inputs.input_ids
    if documents is None:
        return
    documents = np.broadcast_to(documents, (inputs.batch, inputs.q_len))
    padding = _padding_documents(documents, ids, pad_id)
    fresh = np.pad(np.diff(documents, axis=1) > 0, ((0, 0), (1, 0))) & ~padding
    if labels is not None and labels.shape == documents.shape and arch.layers and not arch.cross:
        crossing = fresh & (labels != -100) & (np.pad(documents, ((0, 0), (1, 0)))[:, :-1] >= 0)
        if crossing.any():
            row, at = (int(where[0]) for where in np.nonzero(crossing))
            count = int(crossing.sum())
            yield rules.LABELS_CROSS_DOCUMENTS.at(
                place(inputs, "labels", row),
                f"{count} packed document{'s begin' if count > 1 else ' begins'} with a label, the first in row {row} at token {at}: the last token of "
                "the document before it is trained to predict it",
                cause=rules.LABELS_CROSS_DOCUMENTS.reason, fix=_label_fix(inputs), row=row, token=at, count=count,
            )  # fmt: skip
    if padding.any() and inputs.mask_2d is None:
        row, at = (int(where[0]) for where in np.nonzero(padding))
        trained = labels is not None and labels.shape == padding.shape and bool((labels[padding] != -100).any())
        yield rules.PADDING_DOCUMENTS.at(
            place(inputs, "position_ids", row),
            f"{int(padding.sum())} padding tokens are documents of one token each, the first in row {row} at token {at}"
            + (", and they have labels" if trained else ""),
            cause=rules.PADDING_DOCUMENTS.reason, severity=rules.WARNING if trained else None, row=row, token=at, count=int(padding.sum()),
        )  # fmt: skip


def _label_fix(inputs: ForwardInputs) -> str | None:
    """Return the fix for documents that positions do not show; None for the rule's own."""
    if inputs.position_ids is not None:
        return None
    return (
        "labels[:, cu_seq_lens_k[1:-1]] = -100"
        if inputs.cu_seqlens is not None
        else "set labels = -100 at the first token of each document"
    )


def _padding_documents(documents: Ints, ids: Ints | None, pad_id: int | None) -> Bools:
    """Return bool [B, S]: documents of one token at the end of a row whose token is the pad token, or the same token in each of two or more."""
    out = np.zeros(documents.shape, np.bool_)
    if ids is None:
        return out
    for row, line in enumerate(documents):
        start = len(line)
        while start > 1 and line[start - 1] > line[start - 2] >= 0 and (start == len(line) or line[start] > line[start - 1]):
            start -= 1
        tail = ids[row, start:]
        if len(tail) and bool((tail == tail[0]).all()) and (tail[0] == pad_id or (pad_id is None and len(tail) > 1)):
            out[row, start:] = True
    return out

"""Packed documents: those that the library sees in position_ids, and those that the caller means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmdoctor.mask.intervals import Ints
from llmdoctor.mask.types import ForwardInputs


def documents_of(position_ids: Ints) -> Ints | None:
    """Return find_packed_sequence_indices: int64 [B, S], a new number at each step other than one; None if all steps are one."""
    first = position_ids[:, :1] - 1
    found = (np.diff(position_ids, prepend=first, axis=-1) != 1).cumsum(axis=-1)
    return None if (found[:, -1] == 0).all() else found


def text_positions(position_ids: Ints | None) -> Ints | None:
    """Return the [B, S] position ids that masks are made from: those given, or the first of four rows; three rows hold no text positions."""
    if position_ids is None or position_ids.ndim == 2:
        return position_ids
    return position_ids[0] if position_ids.shape[0] == 4 else None


def documents_meant(inputs: ForwardInputs) -> Ints | None:
    """Return the documents that the caller means, int64 [R, S] with R 1 or the batch, -1 for masked tokens; None if each row is one document.

    They are those of cu_seq_lens_*, else those that --eos ends, else those whose position ids start anew: positions that jump ahead stay in the
    same document. With three or four rows of M-RoPE ids a document starts where no row goes up, because an image repeats its time and goes
    through its rows and columns.
    """
    if inputs.cu_seqlens is not None:
        return _of_offsets(inputs)
    if inputs.ended is not None and inputs.phase == "prefill":
        return inputs.ended if (inputs.ended > 0).any() else None
    if inputs.position_ids is None or inputs.phase != "prefill":
        return None
    positions = inputs.position_ids if inputs.position_ids.ndim == 3 else inputs.position_ids[None]
    if positions.shape[-1] != inputs.q_len:
        return None
    mask = inputs.mask_2d
    rows = positions.shape[1] if mask is None else inputs.batch
    found = np.full((rows, inputs.q_len), -1, np.int64)
    for row in range(rows):
        real = np.arange(inputs.q_len) if mask is None or mask.shape[1] != inputs.q_len else np.flatnonzero(mask[row])
        line = positions[:, min(row, positions.shape[1] - 1)][:, real]
        fresh = np.concatenate(([False], (np.diff(line, axis=-1) <= 0).all(axis=0))) if len(real) else np.zeros(0, np.bool_)
        found[row, real] = fresh.cumsum()
    return found if (found > 0).any() else None


def _of_offsets(inputs: ForwardInputs) -> Ints | None:
    """Return the documents of cu_seq_lens_*, which count through all rows of the batch."""
    offsets = np.asarray(inputs.cu_seqlens, np.int64)
    line = np.searchsorted(offsets, np.arange(inputs.batch * inputs.q_len), side="right") - 1
    rows = line.reshape(inputs.batch, inputs.q_len)
    rows = rows - rows[:, :1]
    return rows if (rows > 0).any() else None


def same_document(documents: Ints, row: int) -> NDArray[np.bool_]:
    """Return bool [S, S]: pairs of unmasked tokens of one document."""
    mine = documents[min(row, len(documents) - 1)]
    return np.asarray((mine[:, None] == mine[None, :]) & (mine >= 0)[:, None] & (mine >= 0)[None, :])


def ended_by(ids: Ints, eos: tuple[int, ...], mask: NDArray[np.generic] | None) -> Ints:
    """Return the documents that end with one of the token ids `eos`, int64 [B, S], -1 for masked tokens; a run of them ends one document."""
    ends = np.isin(ids, eos)
    before = np.pad(ends, ((0, 0), (1, 0)))[:, :-1]
    found = np.asarray((before & ~ends).cumsum(axis=1), np.int64)
    return found if mask is None or mask.shape != ids.shape else np.where(mask != 0, found, -1)

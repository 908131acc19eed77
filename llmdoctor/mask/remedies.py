"""Changes of the inputs that may repair a failed test. Each is applied and measured before it is printed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from llmdoctor.mask.documents import documents_meant
from llmdoctor.mask.intervals import Ints
from llmdoctor.mask.own_mask import meaning_of
from llmdoctor.mask.types import CachePlan, ForwardInputs


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Remedy:
    """A change: the text to paste, the inputs with it, and the backend to run them under (None: the same)."""

    text: str
    inputs: ForwardInputs
    backend: str | None = None


def remedies(inputs: ForwardInputs, backend: str, *, mrope: bool) -> Iterator[Remedy]:
    """Return the changes to try for a failed test, the smallest first."""
    documents = documents_meant(inputs)
    if documents is not None:
        yield from _for_documents(inputs, backend, mrope=mrope)
        return
    mask = inputs.mask_2d
    if inputs.mask_4d is not None:
        yield from _for_own_mask(inputs)
    elif mask is not None and mask.shape[1] == inputs.past + inputs.q_len:
        yield from _for_values(inputs)
        yield from _for_holes(inputs)
        yield from _for_positions(inputs)
        yield from _for_side(inputs)
    elif mask is not None:
        missing = inputs.past + inputs.q_len - mask.shape[1]
        if missing > 0:
            grown = np.concatenate((mask, np.ones((mask.shape[0], missing), mask.dtype)), axis=1)
            text = f"attention_mask = torch.cat([attention_mask, attention_mask.new_ones(batch, {missing})], dim=-1)"
            yield Remedy(text, replace(inputs, attention_mask=grown))
    if inputs.cache.kind == "static":
        yield Remedy('cache_implementation="dynamic"', replace(inputs, cache=CachePlan("dynamic")))
    for other in ("sdpa", "eager"):
        if other != backend:
            yield Remedy(f'attn_implementation="{other}"', inputs, other)


def _for_documents(inputs: ForwardInputs, backend: str, *, mrope: bool) -> Iterator[Remedy]:
    plain = replace(inputs, attention_mask=None, cache=CachePlan())
    positions = inputs.position_ids
    fresh = "" if positions is not None else ", and with position_ids that start anew at each document"
    if positions is None:
        restarted = replace(plain, position_ids=_restarted(inputs), cu_seqlens=None, varlen=False, ended=None)
        yield Remedy("pass position_ids that start anew at each document, no attention_mask, and use_cache=False", restarted)
        positions, plain = restarted.position_ids, restarted
    if inputs.mask_2d is not None or inputs.cache.kind != "none":
        yield Remedy("pass the packed position_ids with no attention_mask and use_cache=False", plain)
    if mrope and positions is not None and (positions.ndim == 2 or positions.shape[0] == 3):
        rows = np.tile(positions[None], (3, 1, 1)) if positions.ndim == 2 else positions
        text = (
            "position_ids = torch.cat([text_positions[None], mrope_positions])  # [4, B, S], the text row first; no mask, use_cache=False"
        )
        yield Remedy(text, replace(plain, position_ids=np.concatenate((_restarted(inputs)[None], rows))))
    if inputs.batch == 1 and backend != "flash_attention_2":
        text = f'attn_implementation="flash_attention_2", in a batch of one without attention_mask{fresh}'
        yield Remedy(text, plain, "flash_attention_2")
    if backend == "flash_attention_2":
        yield Remedy(f'attn_implementation="sdpa", without attention_mask and with use_cache=False{fresh}', plain, "sdpa")
    yield Remedy("one document per row, padded", _one_per_row(inputs))


def _restarted(inputs: ForwardInputs) -> Ints:
    """Return position ids [B, S] that start at 0 with each document."""
    documents = documents_meant(inputs)
    at = np.arange(inputs.q_len, dtype=np.int64)
    if documents is None:
        return np.tile(at, (inputs.batch, 1))
    fresh = np.pad(np.diff(documents, axis=1) != 0, ((0, 0), (1, 0)), constant_values=True)
    starts = np.maximum.accumulate(np.where(fresh, at[None, :], 0), axis=1)
    return np.array(np.broadcast_to(at[None, :] - starts, (inputs.batch, inputs.q_len)), np.int64)


def _one_per_row(inputs: ForwardInputs) -> ForwardInputs:
    """Return the documents as rows of a batch of their own, padded on the right."""
    documents = documents_meant(inputs)
    if documents is None:
        return inputs
    rows = np.broadcast_to(documents, (inputs.batch, inputs.q_len))
    pieces = [(row, np.flatnonzero(rows[row] == number)) for row in range(inputs.batch) for number in np.unique(rows[row][rows[row] >= 0])]
    longest = max(len(at) for _, at in pieces)
    mask = np.zeros((len(pieces), longest), np.int64)
    ids = None if inputs.input_ids is None else np.zeros((len(pieces), longest), np.int64)
    for number, (row, at) in enumerate(pieces):
        mask[number, : len(at)] = 1
        if ids is not None and inputs.input_ids is not None:
            ids[number, : len(at)] = inputs.input_ids[row, at]
    return ForwardInputs(len(pieces), longest, attention_mask=mask, input_ids=ids, words="one document per row")


def _for_own_mask(inputs: ForwardInputs) -> Iterator[Remedy]:
    mask = inputs.mask_4d
    if mask is None or (mask.dtype.kind == "f" and not bool(np.isin(mask, (0, 1)).all())):
        return
    shown = meaning_of(mask)[:, None]
    additive = np.where(shown, np.float32(0), np.finfo(np.float32).min).astype(np.float32)
    text = "mask = torch.where(mask.bool(), 0.0, torch.finfo(dtype).min).to(dtype)"
    yield Remedy(text, replace(inputs, attention_mask=np.broadcast_to(additive, mask.shape).copy()))


def _for_values(inputs: ForwardInputs) -> Iterator[Remedy]:
    """An additive mask of zeros and large negative numbers as one of ones and zeros."""
    mask = inputs.mask_2d
    if mask is not None and mask.dtype.kind in "if" and bool((mask < 0).any()) and bool((mask <= 0).all()):
        yield Remedy("attention_mask = (attention_mask == 0).long()", replace(inputs, attention_mask=(mask == 0).astype(np.int64)))


def _for_holes(inputs: ForwardInputs) -> Iterator[Remedy]:
    """Ones from the first to the last real token of each row."""
    mask = inputs.mask_2d
    if mask is None:
        return
    real = np.asarray(mask != 0)
    filled = (np.maximum.accumulate(real, axis=1) & np.maximum.accumulate(real[:, ::-1], axis=1)[:, ::-1]).astype(np.int64)
    if bool((filled != real).any()):
        text = 'attention_mask = tokenizer(texts, padding=True)["attention_mask"]  # ones at every token of the text, never rebuilt from the ids'
        yield Remedy(text, replace(inputs, attention_mask=filled))


def _for_positions(inputs: ForwardInputs) -> Iterator[Remedy]:
    mask = inputs.mask_2d
    if mask is None or inputs.phase != "prefill":
        return
    if inputs.position_ids is not None:
        yield Remedy("leave position_ids out: the model makes its own", replace(inputs, position_ids=None))
    if inputs.position_ids is None or inputs.position_ids.ndim == 2:
        counted = np.maximum(np.cumsum(mask != 0, axis=1) - 1, 0).astype(np.int64)
        yield Remedy("position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)", replace(inputs, position_ids=counted))


def _for_side(inputs: ForwardInputs) -> Iterator[Remedy]:
    """The same rows with the padding on the left before new tokens, which stay at the end, else on the right."""
    mask = inputs.mask_2d
    if mask is None or inputs.position_ids is not None:
        return
    side, length = ("left", inputs.past) if inputs.past else ("right", inputs.q_len)
    real = np.asarray(mask[:, :length] != 0)
    order = np.argsort(real if side == "left" else ~real, axis=1, kind="stable")
    moved = mask.copy()
    moved[:, :length] = np.take_along_axis(mask[:, :length], order, axis=1)
    ids = inputs.input_ids
    if bool((moved != mask).any()):
        ids = None if ids is None else np.take_along_axis(ids[:, :length], order, axis=1)
        yield Remedy(f'tokenizer.padding_side = "{side}"', replace(inputs, attention_mask=moved, input_ids=ids))

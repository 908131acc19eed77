"""What is wrong with the caller's own 4-D mask, which the library passes on unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from llmdoctor.core.finding import Finding
from llmdoctor.core.rule import Rule
from llmdoctor.mask import rules
from llmdoctor.mask.architectures import Architecture, ModelLayer
from llmdoctor.mask.intervals import Bools
from llmdoctor.mask.own_mask import DEAD, meaning_of, padding_of
from llmdoctor.mask.screen import layers_text
from llmdoctor.mask.types import SHORT, BackendPlan, ForwardInputs

SMALL = 2**24  # pairs of one mask that are compared with a window


def of_own_mask(arch: Architecture, inputs: ForwardInputs, plans: Sequence[BackendPlan], dtype: str) -> Iterator[Finding]:
    """Return what is wrong with the 4-D mask under each backend of a model of `dtype`, and with what it shows."""
    mask = inputs.mask_4d
    if mask is None:
        return
    misread = False
    for plan in plans:
        if plan.error is None:
            found = list(_misread(inputs, mask, plan.backend, dtype))
            misread = misread or bool(found)
            yield from found
    if not misread:
        yield from _itself(mask, inputs)
        yield from _windows(arch, mask, inputs, plans)


def _misread(inputs: ForwardInputs, mask: Any, backend: str, dtype: str) -> Iterator[Finding]:
    """Find a dtype or values that `backend` reads as something else, an inverted mask, and a query without any key."""
    name = inputs.mask_dtype or mask.dtype.name
    only_bits = mask.dtype != np.bool_ and bool(np.isin(mask, (0, 1)).all()) and bool((mask != mask.flat[0]).any())
    if backend == "flash_attention_2":
        yield _at(rules.FLASH_4D, backend, f"the 4-D mask {list(mask.shape)} is read as a 2-D one")
    elif _inverted(mask):
        text = "the 4-D mask lets every query see the future and hides itself: it is inverted"
        yield _at(rules.MASK_DTYPE, backend, text, fix=_turned(mask), dtype=name)
    elif mask.dtype == np.bool_ and backend in ("eager", "flex_attention"):
        yield _at(rules.MASK_DTYPE, backend, "a bool mask is added as 0 and 1: nothing is masked, the future leaks", dtype="bool")
    elif mask.dtype.kind in "iu" and backend == "sdpa":
        text = f"the kernel refuses a mask of {name}, it takes bool or floats"
        yield _at(rules.MASK_DTYPE, backend, text, dtype=name)
    elif only_bits:
        text = f"a mask of 0 and 1 in {name} is added to the scores: nothing is masked"
        yield _at(rules.MASK_DTYPE, backend, text, dtype=name)
    elif backend == "sdpa" and mask.dtype.kind == "f" and name not in ("float32", dtype):
        text = f"the kernel refuses a mask of {name} for queries of {dtype}: it takes bool, float32, or the dtype of the queries"
        yield _at(rules.MASK_DTYPE, backend, text, fix="mask = mask.clamp(min=torch.finfo(model.dtype).min).to(model.dtype)", dtype=name)
    elif (dead := _dead(mask, inputs, backend)) is not None:
        row, query, text = dead
        yield _at(rules.DEAD_ROW, backend, f"row {row} query {query} of the 4-D mask is {text}", row=row, query=query)


def _at(rule: Rule, backend: str, text: str, *, fix: str | None = None, **evidence: Any) -> Finding:
    """Return a finding of one backend, which findings of other backends with the same text are joined to."""
    return rule.at(None, f"{backend}: {text}", cause=rule.reason, fix=fix, backend=backend, **evidence)


def _inverted(mask: Any) -> bool:
    """Return whether hardly any query is meant to see itself while most see what comes after them."""
    shown = meaning_of(mask)
    q_len, kv_len = shown.shape[1], shown.shape[2]
    if q_len < 3 or q_len != kv_len:
        return False
    itself = shown.diagonal(axis1=1, axis2=2).mean()
    later = np.triu(np.ones((q_len, kv_len), np.bool_), 1)
    return bool(itself < 0.5 and shown[:, later].mean() > 0.5)


def _turned(mask: Any) -> str:
    """Return the change that makes an inverted mask an additive one that shows what it hid."""
    if mask.dtype == np.bool_ or bool(np.isin(mask, (0, 1)).all()):
        return "mask = torch.where(mask.bool(), torch.finfo(dtype).min, 0.0).to(dtype)  # True was what a query must not see"
    if bool((mask > 0).any()):
        return "mask = -mask  # what a query must not see is a large negative number"
    return "mask = torch.where(mask < 0, 0.0, torch.finfo(dtype).min).to(dtype)  # 0.0 was what a query must not see"


def _dead(mask: Any, inputs: ForwardInputs, backend: str) -> tuple[int, int, str] | None:
    """Return row and query of the first query without a key, and what that means; None if there is no such query.

    Padding may see nothing, except that a row of -inf makes eager's softmax NaN, which the next layer spreads to every token.
    """
    infinite = mask.dtype.kind == "f" and bool((np.isneginf(mask).all(axis=-1)).any())
    dead = ~mask.any(axis=-1) if mask.dtype == np.bool_ else (mask <= DEAD).all(axis=-1) if mask.dtype.kind == "f" else None
    if dead is None:
        return None
    lost = dead.any(axis=1)
    real = lost & ~padding_of(mask, inputs.past)
    nan = infinite and backend == "eager"
    chosen = np.isneginf(mask).all(axis=-1).any(axis=1) if nan else real
    if not chosen.any():
        return None
    row, query = (int(at[0]) for at in np.nonzero(chosen))
    return row, query, "all -inf: softmax gives NaN" if nan else "masked throughout: it sees nothing"


def _itself(mask: Any, inputs: ForwardInputs) -> Iterator[Finding]:
    """Find queries that see other keys and not their own."""
    shown = meaning_of(mask)
    queries, keys = shown.shape[1], shown.shape[2]
    if keys < inputs.past + queries:
        return
    own = np.stack([line[np.arange(queries), np.arange(queries) + inputs.past] for line in shown])
    blind = ~own & shown.any(axis=-1)
    if blind.any():
        row, query = (int(at[0]) for at in np.nonzero(blind))
        yield rules.SELF_HIDDEN.at(
            None, f"query {query} of row {row} of the 4-D mask does not see its own token ({int(blind.sum())} such queries)",
            cause=rules.SELF_HIDDEN.reason, row=row, query=query, count=int(blind.sum()),
        )  # fmt: skip


def _windows(arch: Architecture, mask: Any, inputs: ForwardInputs, plans: Sequence[BackendPlan]) -> Iterator[Finding]:
    """Find sliding and chunked layers that see keys outside their window because the 4-D mask lacks it."""
    local = [layer for layer in arch.layers if layer.pattern is not None and layer.pattern.local is not None]
    backends = [plan.backend for plan in plans if plan.error is None and plan.backend != "flash_attention_2"]
    if not local or not backends or mask.size > SMALL:
        return
    shown = meaning_of(mask)
    for same in _alike(local):
        pattern = same[0].pattern
        outside = None if pattern is None else _outside(shown, pattern.size, pattern.local == "chunk", inputs.past)
        if pattern is None or outside is None or not outside.any():
            continue
        row, query, key = (int(at[0]) for at in np.nonzero(outside))
        layers = tuple(layer.index for layer in same)
        only = len(same) == sum(layer.pattern is not None for layer in arch.layers)
        yield rules.WINDOW_LOST.at(
            None, f"{', '.join(SHORT.get(name, name) for name in backends)}, {same[0].type} {layers_text(layers)}: the 4-D mask has no {pattern.local} "
            f"of {pattern.size}: {int(outside.sum())} pairs outside it are seen, the first by query {query}, which sees key {key}",
            cause=rules.WINDOW_LOST.reason, fix=_WINDOW_IN_MASK if only else None, backends=backends, layers=list(layers), row=row, query=query,
            count=int(outside.sum()),
        )  # fmt: skip


_WINDOW_IN_MASK = "put the window into the 4-D mask (every layer has it), or leave the 4-D mask out"


def _alike(layers: Sequence[ModelLayer]) -> list[list[ModelLayer]]:
    """Return the layers of one kind and window together."""
    found: dict[tuple[Any, ...], list[ModelLayer]] = {}
    for layer in layers:
        if layer.pattern is not None:
            found.setdefault((layer.type, layer.pattern.local, layer.pattern.size), []).append(layer)
    return list(found.values())


def _outside(shown: Bools, size: int, chunked: bool, past: int) -> Bools:
    """Return bool [B, Q, KV]: pairs that the mask shows and a causal window or chunk of `size` tokens hides."""
    query = np.arange(shown.shape[1])[:, None] + past
    key = np.arange(shown.shape[2])[None, :]
    far = key < query // size * size if chunked else query - key >= size
    return np.asarray(shown & far)

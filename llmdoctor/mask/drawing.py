"""Masks as pictures of a page: every pair where they are few, else a map whose blocks say what share of them is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmdoctor.core.document import Block, Fold, Grid, Mark, Note
from llmdoctor.core.finding import Finding
from llmdoctor.mask.differ import real_queries
from llmdoctor.mask.documents import documents_meant, same_document
from llmdoctor.mask.intervals import Bools, Visible, density, trimmed
from llmdoctor.mask.picture import legend, name_of, picture
from llmdoctor.mask.screen import layers_text
from llmdoctor.mask.types import SHORT, BackendPlan, ForwardInputs, LayerMask

IN_WORDS, MOST = 2, 8  # pictures of a terminal, of a page
EXACT, CELLS = 128, 64  # a side of a picture of single pairs, and of a map
_SEEN, _LEAK, _PAD, _MASKED = "#", "x", "p", "."
_MARKS = (
    Mark(_SEEN, "seen", "plain"),
    Mark(_LEAK, "seen, and must not be", "bad"),
    Mark(_PAD, "padding, hidden", "warn"),
    Mark(_MASKED, "hidden", "dim"),
)
_SHARES = (
    Mark("4", "seen whole", "plain"),
    Mark("3", "seen in part: two thirds and more", "plain", 0.7),
    Mark("2", "seen in part: from a third", "plain", 0.5),
    Mark("1", "seen in part: less than a third", "plain", 0.3),
    Mark("0", "hidden", "dim"),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: the mask that is drawn, and whose it is, with the layers and the backends that share it."""

    visible: Visible
    group: LayerMask
    owners: tuple[str, ...]


def pictures(plans: Sequence[BackendPlan], inputs: ForwardInputs, findings: Sequence[Finding] = ()) -> list[Block]:
    """A picture for each different mask among all groups of layers and backends; where a finding names a batch row, of that row."""
    row = next((at for one in findings if isinstance(at := one.evidence.get("row"), int)), 0)
    two_stacks = any(group.type == "cross" for plan in plans for group in plan.layers)
    if two_stacks or any(group.type == "encoder" for plan in plans for group in plan.layers):
        inputs = replace(inputs, attention_mask=None)  # it is the encoder's: of the decoder's tokens nothing is said
    found = [
        _grid(pattern, _with_names(inputs, pattern.group, two_stacks=two_stacks), min(row, pattern.visible.rows - 1), row)
        for pattern in patterns(plans, row)
    ]
    more = len(found) - IN_WORDS
    if more <= 0:
        return [*found]
    also = Note("Also", f"{more} other patterns (--format html draws them)", "dim")
    left = len(found) - MOST
    end = (Note("", f"{left} more patterns are not drawn"),) if left > 0 else ()
    return [*found[:IN_WORDS], Fold(f"{more} other patterns", (*found[IN_WORDS:MOST], *end), (also,))]


def _with_names(inputs: ForwardInputs, group: LayerMask, *, two_stacks: bool) -> ForwardInputs:
    """Return the inputs without the texts of tokens that are not those of the picture's axes: a decoder beside an encoder has its own."""
    return replace(inputs, tokens=()) if two_stacks and group.type != "encoder" else inputs


def leaking(plans: Sequence[BackendPlan], inputs: ForwardInputs, findings: Sequence[Finding]) -> list[Grid]:
    """The pictures in which a pair is seen that must not be, with the inputs they are of; maps of long inputs are left out."""
    if not findings or max(inputs.q_len, inputs.past + inputs.q_len) > EXACT:
        return []
    found = (block for block in pictures(plans, inputs, findings) if isinstance(block, Grid))
    return [replace(grid, label=f"{inputs.description}: {grid.label}") for grid in found if any(_LEAK in line for line in grid.cells)]


def patterns(plans: Sequence[BackendPlan], row: int = 0) -> list[Picture]:
    """The different masks of one batch row, each with everybody who gets it, in the order of the plans."""
    found: dict[tuple[object, ...], tuple[Visible, LayerMask, dict[str, list[str]]]] = {}
    for plan in plans:
        for group in plan.layers:
            if group.visible is None:
                continue
            kept = found.setdefault(_content(group.visible, row), (group.visible, group, {}))
            some = "layer" if len(group.layers) == 1 else "layers"
            who = f"{group.type.replace('_', ' ')}, {some} {layers_text(group.layers)}" if group.layers else group.type
            kept[2].setdefault(who, []).append(SHORT.get(plan.backend, plan.backend))
    return [Picture(visible, group, _owners(owners)) for visible, group, owners in found.values()]


def _owners(layers: Mapping[str, list[str]]) -> tuple[str, ...]:
    """The layers that share a picture under the same backends in one: `full attention, layers 0-27: eager, sdpa`."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for who, backends in layers.items():
        alike.setdefault(tuple(backends), []).append(who)
    return tuple(f"{' and '.join(who)}: {', '.join(backends)}" for backends, who in alike.items())


def _content(visible: Visible, row: int) -> tuple[object, ...]:
    """What two masks have in common that let every query of a row see the same keys; a dense one is told from intervals by its form."""
    at = min(row, visible.rows - 1)
    if visible.dense is not None:
        return (visible.kv_len, visible.dense[at].tobytes())
    none = visible.seen(at) == 0
    low, high = (np.where(none, 0, end) for end in trimmed(visible, at))
    steps = np.zeros(visible.kv_len + 1, np.int64)
    np.add.at(steps, low, 1)
    np.add.at(steps, high, -1)
    reached = np.cumsum(steps)[:-1] > 0
    holes = b"" if visible.keys is None else (reached & ~visible.keys[at]).tobytes()
    return (visible.kv_len, low.tobytes(), high.tobytes(), holes if any(holes) else b"")


def _grid(pattern: Picture, inputs: ForwardInputs, row: int, batch_row: int) -> Grid:
    visible, first = pattern.visible, pattern.group.q_offset
    tokens = inputs.tokens[batch_row] if batch_row < len(inputs.tokens) else ()
    where = f"; row {batch_row} of {inputs.batch}" if inputs.batch > 1 else ""
    label = "; ".join(pattern.owners) + where
    words: list[Note] = [Note(f"{label}: queries down, keys across", "", "dim")]
    key = legend(visible)
    if key is not None:
        words += [Note("", picture(visible, row, tokens, first)), key]
    if max(visible.q_len, visible.kv_len) > EXACT:
        return _map(visible, row, label, tuple(words), first)
    wrong = visible.square(row) & forbidden(visible, inputs, batch_row, pattern.group)
    if key is None:
        drawn = picture(visible, row, tokens, first, wrong)
        words.append(Note("", drawn + ("\n× seen, and must not be" if wrong.any() else "")))
    rows = tuple(name_of(tokens, first + query) for query in range(visible.q_len))
    columns = tuple(name_of(tokens, key) for key in range(visible.kv_len))
    cells = _cells(visible, row, wrong)
    marks = tuple(mark for mark in _MARKS if any(mark.character in line for line in cells))
    return Grid(label=label, rows=rows, cells=cells, marks=marks, columns=columns, down="query", across="key", instead=tuple(words))


def _cells(visible: Visible, row: int, wrong: Bools) -> tuple[str, ...]:
    square = visible.square(row)
    out = np.where(square, _SEEN, _MASKED)
    out[wrong] = _LEAK
    if visible.keys is not None:
        out[:, ~visible.keys[row]] = np.where(square[:, ~visible.keys[row]], out[:, ~visible.keys[row]], _PAD)
    return tuple("".join(line) for line in out)


def forbidden(visible: Visible, inputs: ForwardInputs, row: int, group: LayerMask) -> Bools:
    """bool [Q, kv_len]: pairs that no mask may let through: a real query and padding, an empty slot, or another document's token.

    `row` is a row of the batch. Which future keys are allowed is the model's business, and is not judged here.
    """
    q_len, kv_len = visible.q_len, visible.kv_len
    out = np.zeros((q_len, kv_len), np.bool_)
    if group.type in ("cross", "encoder") or kv_len < inputs.past + q_len or q_len != inputs.q_len:
        return out
    mask = inputs.mask_2d
    if mask is not None and mask.shape[1] <= kv_len:
        out[:, : mask.shape[1]] = mask[row] == 0
    out[:, inputs.past + q_len :] = True
    documents = documents_meant(inputs)
    if documents is not None and documents.shape[1] <= q_len:
        size = documents.shape[1]
        out[:size, :size] |= ~same_document(documents, row)
    return np.asarray(out & real_queries(inputs, group)[row][:, None])


def _map(visible: Visible, row: int, label: str, instead: tuple[Note, ...], first: int) -> Grid:
    """At most CELLS x CELLS blocks of pairs; each says its share."""
    bands, columns = min(CELLS, visible.q_len), min(CELLS, visible.kv_len)
    seen, size = density(visible, row, bands, columns)
    level = np.where(seen == 0, 0, np.where(seen == size, 4, 1 + np.minimum(seen * 3 // np.maximum(size, 1), 2)))
    cells = tuple("".join(map(str, line)) for line in level)
    notes = tuple(
        tuple(
            "" if have in (0, all_) else f"{100 * have / all_:.3g}% of {all_:,} pairs" for have, all_ in zip(have_all, of_all, strict=True)
        )
        for have_all, of_all in zip(seen.tolist(), size.tolist(), strict=True)
    )
    marks = tuple(mark for mark in _SHARES if any(mark.character in line for line in cells))
    shrunk = f"{label}; shrunk from {visible.q_len:,} x {visible.kv_len:,} pairs to {bands} x {columns} blocks"
    return Grid(
        label=shrunk,
        rows=_ranges(visible.q_len, bands, first),
        cells=cells,
        marks=marks,
        columns=_ranges(visible.kv_len, columns, 0),
        down="queries",
        across="keys",
        notes=notes,
        instead=instead,
    )


def _ranges(length: int, parts: int, first: int) -> tuple[str, ...]:
    """The blocks of an axis: `0..511`, `512..1023`; a block of one is its number."""
    edges = np.linspace(0, length, parts + 1).astype(np.int64) + first
    return tuple(
        f"{start:,}" if end == start + 1 else f"{start:,}..{end - 1:,}"
        for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    )

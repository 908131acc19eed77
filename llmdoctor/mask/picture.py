"""A mask as characters: every pair where it fits, else how densely each part of it is seen."""

from __future__ import annotations

import numpy as np

from llmdoctor.core.document import Note, Table
from llmdoctor.mask.intervals import BlockCounts, Bools, Visible, count_blocks, density
from llmdoctor.mask.types import BLOCK

ONE_A_LINE, HALF_BLOCKS, MAP = 16, 48, 24
WIDE = 56  # so wide is a drawing at most, to fit 60 columns
SHADES = (" ", "░", "▒", "▓", "█")


def picture(visible: Visible, row: int, tokens: tuple[str, ...], first: int, wrong: Bools | None = None) -> str:
    """Lines of text: a square a pair up to 16 of them, two queries a line up to 48, else a density map of at most 24 x 12 cells.

    `tokens` name the keys where they are known; `first` is the number of the first query. `wrong`, bool [Q, kv_len], are pairs that are seen
    and must not be: crosses among the squares, where there is a character for each.
    """
    q_len, kv_len = visible.q_len, visible.kv_len
    if kv_len > HALF_BLOCKS or q_len > HALF_BLOCKS:
        return _map(visible, row, first)
    square = visible.square(row)
    gap = " " if q_len <= ONE_A_LINE and kv_len <= ONE_A_LINE else ""
    names = _names(tokens, first, q_len, kv_len * (1 + len(gap)))
    if q_len <= ONE_A_LINE:
        marks = np.where(square, "■", "·") if wrong is None else np.where(square & wrong, "×", np.where(square, "■", "·"))
        return "\n".join(f"{name} {gap.join(line)}" for name, line in zip(names, marks, strict=True))
    return "\n".join(f"{names[query]} {_half(square, query)}" for query in range(0, q_len, 2))


def _names(tokens: tuple[str, ...], first: int, q_len: int, beside: int) -> list[str]:
    """The queries' names, flush right; their numbers alone where `beside` characters leave no room for more."""
    names = [name_of(tokens, first + query) for query in range(q_len)]
    if max(map(len, names)) + beside > WIDE:
        names = [name.split(" ")[0] for name in names]
    wide = max(map(len, names))
    return [f"{name:>{wide}}" for name in names]


def name_of(tokens: tuple[str, ...], position: int) -> str:
    """A token's number, and its text where that is known."""
    name = tokens[position] if position < len(tokens) else ""
    return f"{position} {name[:16]}".rstrip()


def _half(square: Bools, query: int) -> str:
    upper = square[query]
    lower = square[query + 1] if query + 1 < len(square) else [False] * len(upper)
    marks = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): "·"}
    return "".join(marks[bool(a), bool(b)] for a, b in zip(upper, lower, strict=True))


def _map(visible: Visible, row: int, first: int) -> str:
    bands, columns = min(MAP // 2, visible.q_len), min(MAP, visible.kv_len)
    seen, size = density(visible, row, bands, columns)
    lines = []
    for band in range(bands):
        share = [
            0 if not have else 4 if have == all_ else 1 + min(have * 3 // all_, 2)
            for have, all_ in zip(seen[band], size[band], strict=True)
        ]
        start = first + band * visible.q_len // bands
        lines.append(f"{start:>9,} " + "".join(SHADES[one] * 2 for one in share).rstrip())
    return "\n".join(lines)


def blocks_of(visible: Visible) -> BlockCounts:
    """The blocks of 128 x 128, as flex_attention's kernel has them."""
    return count_blocks(visible, BLOCK)


def query_table(rows: list[tuple[str, str, list[tuple[int, int]], int]]) -> Table:
    """The runs of keys that one query sees: (which layers, which batch row, runs, keys)."""
    return Table(("layers", "row", "keys", "sees"), tuple((layers, row, f"{keys:,}", runs_text(runs)) for layers, row, runs, keys in rows))


def runs_text(runs: list[tuple[int, int]]) -> str:
    """`0..4, 7..9`; the first and the last of very many."""
    shown = [f"{start}" if end == start + 1 else f"{start}..{end - 1}" for start, end in runs]
    if len(shown) > 8:
        shown = [*shown[:5], f"... {len(shown) - 7} more ...", *shown[-2:]]
    return ", ".join(shown) or "nothing"


def legend(visible: Visible) -> Note | None:
    """What the shades of a density map mean, with exact counts."""
    if visible.kv_len <= HALF_BLOCKS and visible.q_len <= HALF_BLOCKS:
        return None
    blocks = blocks_of(visible)
    text = f"{blocks.empty:,} empty, {blocks.partial:,} partial, {blocks.full:,} full of {blocks.size} x {blocks.size} pairs"
    return Note("Blocks", text, "dim")

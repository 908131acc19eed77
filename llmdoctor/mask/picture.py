"""A mask as characters: every pair where it fits, else how densely each part of it is seen."""

from __future__ import annotations

from llmdoctor.core.document import Note, Table
from llmdoctor.mask.intervals import Blocks, Bools, Visible, count_blocks, density
from llmdoctor.mask.model import BLOCK

ONE_A_LINE, HALF_BLOCKS, MAP = 16, 64, 32
SHADES = (" ", "░", "▒", "▓", "█")


def picture(visible: Visible, row: int, tokens: tuple[str, ...], first: int) -> str:
    """Lines of text: a square a pair up to 16 queries, two queries a line up to 64, else a density map of at most 32 x 32 cells.

    `tokens` name the keys where they are known; `first` is the number of the first query.
    """
    q_len, kv_len = visible.q_len, visible.kv_len
    if kv_len > HALF_BLOCKS or q_len > HALF_BLOCKS:
        return _map(visible, row)
    square = visible.square(row)
    if q_len <= ONE_A_LINE:
        names = [_name(tokens, first + query) for query in range(q_len)]
        wide = max(len(name) for name in names)
        return "\n".join(f"{name:>{wide}} {_line(square[query])}" for query, name in enumerate(names))
    names = [_name(tokens, first + query) for query in range(q_len)]
    wide = max(len(name) for name in names) if q_len + 18 <= HALF_BLOCKS else max(len(name.split(" ")[0]) for name in names)
    return "\n".join(f"{names[query][:wide]:>{wide}} {_half(square, query)}" for query in range(0, q_len, 2))


def _name(tokens: tuple[str, ...], query: int) -> str:
    name = tokens[query] if query < len(tokens) else ""
    return f"{query} {name[:16]}".rstrip()


def _line(seen: Bools) -> str:
    return " ".join("■" if one else "·" for one in seen)


def _half(square: Bools, query: int) -> str:
    upper = square[query]
    lower = square[query + 1] if query + 1 < len(square) else [False] * len(upper)
    marks = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): "·"}
    return "".join(marks[bool(a), bool(b)] for a, b in zip(upper, lower, strict=True))


def _map(visible: Visible, row: int) -> str:
    bands, columns = min(MAP // 2, visible.q_len), min(MAP, visible.kv_len)
    seen, size = density(visible, row, bands, columns)
    lines = []
    for band in range(bands):
        share = [
            0 if not have else 4 if have == all_ else 1 + min(have * 3 // all_, 2)
            for have, all_ in zip(seen[band], size[band], strict=True)
        ]
        start = band * visible.q_len // bands
        lines.append(f"{start:>9,} " + "".join(SHADES[one] * 2 for one in share).rstrip())
    return "\n".join(lines)


def blocks_of(visible: Visible) -> Blocks:
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
    return Note("BLOCKS", text, "dim")

"""The Python of a notebook's code cells, with the way back from a line of it to the cell."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC = re.compile(r"^(\s*)[%!?].*$", re.MULTILINE)
_KEPT_CELL_MAGICS = ("time", "timeit", "capture", "python", "python3", "prun")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CodeCell:
    """A code cell: `number` among all cells from 0, `first` its first line among all code lines from 1, `lines` as they are written."""

    number: int
    first: int
    lines: tuple[str, ...]
    listed: bool  # the source is an array of lines, so that each line has a JSON pointer of its own


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Notebook:
    """All code cells of a notebook as one module; `broken` names the cells that could not be parsed."""

    tree: ast.Module
    cells: tuple[CodeCell, ...]
    broken: tuple[int, ...]

    def place(self, line: int) -> tuple[str, int]:
        """The JSON pointer of a code line, and the line's number in its cell, from 1."""
        cell = next(cell for cell in reversed(self.cells) if cell.first <= line)
        inside = line - cell.first
        return f"/cells/{cell.number}/source" + (f"/{inside}" if cell.listed else ""), inside + 1


def read_notebook(data: bytes) -> Notebook | None:
    """Return the notebook in `data`; None if its language is not Python.

    Raises ValueError if it is not a notebook of format version 4.
    """
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(value, dict) or not isinstance(value.get("cells"), list):
        raise ValueError("has no list of cells")
    if _language(value) not in ("", "python"):
        return None
    cells = tuple(_code_cells(value["cells"]))
    tree, broken = ast.Module([], []), []
    for cell in cells:
        try:
            part = ast.parse(_without_magics("".join(cell.lines)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            broken.append(cell.number)
            continue
        ast.increment_lineno(part, cell.first - 1)
        tree.body.extend(part.body)
    return Notebook(tree, cells, tuple(broken))


def _language(value: dict[str, object]) -> str:
    metadata = value.get("metadata")
    spec = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    language = spec.get("language", "") if isinstance(spec, dict) else ""
    return language.lower() if isinstance(language, str) else ""


def _code_cells(cells: list[object]) -> Iterator[CodeCell]:
    first = 1
    for number, cell in enumerate(cells):
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        source = cell.get("source")
        if isinstance(source, list):
            lines = tuple(line for line in source if isinstance(line, str))
        else:
            lines = tuple(source.splitlines(keepends=True)) if isinstance(source, str) else ()
        # A "line" of the array may hold several: then it has no pointer of its own.
        listed = isinstance(source, list) and not any("\n" in line[:-1] for line in lines) and len(lines) == len(source)
        yield CodeCell(number, first, lines, listed)
        first += "".join(lines).count("\n") + 1


def _without_magics(text: str) -> str:
    """`text` with every line that is for IPython made a `pass`; a cell of another language is left empty."""
    if text.lstrip().startswith("%%") and text.lstrip()[2:].split(maxsplit=1)[:1] not in [[name] for name in _KEPT_CELL_MAGICS]:
        return ""
    return _MAGIC.sub(r"\1pass", text)

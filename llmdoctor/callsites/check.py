"""The PYC rules over one file: its bytes decide whether it is parsed; it is parsed once and walked once."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import replace

from llmdoctor.callsites.prefilter import may_hold_a_finding
from llmdoctor.callsites.rules import UNPARSED
from llmdoctor.callsites.types import Pitfall
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding, Location
from llmdoctor.files.opening import read_bytes, shown_path

LIMIT = 8 * 2**20
_IGNORE = re.compile(rb"#\s*llmdoctor:\s*ignore\[([A-Za-z0-9,\s]+)\]")


def check_file(path: str) -> tuple[Finding, ...]:
    """The findings in a .py file or an .ipynb notebook.

    Raises QuestionError if the file cannot be read, or has more than LIMIT bytes.
    """
    return check_data(read_code(path), path)


def check_data(data: bytes, path: str) -> tuple[Finding, ...]:
    """The findings in a file's bytes, of a notebook if the path has its ending; they name the file relative to the working directory if below it."""
    shown = shown_path(path)
    return check_notebook(data, shown) if path.endswith(".ipynb") else check_source(data, shown)


def read_code(path: str) -> bytes:
    """Return the bytes of a source.

    Raises QuestionError if the file cannot be read, is not a regular file, or has more than LIMIT bytes.
    """
    data = read_bytes(path, LIMIT)
    if isinstance(data, bytes):
        return data
    raise QuestionError(f"{shown_path(path)} {data.reason if data is not None else 'does not exist'}")


def check_source(text: str | bytes, path: str) -> tuple[Finding, ...]:
    """The findings in Python source, by line. Bytes are decoded as Python decodes them.

    A source that mentions nothing the rules ask about is not parsed. One that does and cannot be parsed is one finding, PYC012 (info).
    """
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if not may_hold_a_finding(data):
        return ()
    try:
        tree = _parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return (_unparsed(path, error),)
    lines = data.splitlines()
    return tuple(_finding(each, Location(path, line=_line(each.node)), evidence) for each, evidence in _found(tree, lines, path))


def check_notebook(data: bytes, path: str) -> tuple[Finding, ...]:
    """Return the findings in a notebook's code cells: the pointer leads to the line in the cell's source, `line` is the line in the file.

    A notebook of another language has no findings. A damaged notebook, or relevant cells that cannot be parsed, give one finding, PYC012 (info).
    """
    if not may_hold_a_finding(data):
        return ()
    from llmdoctor.callsites.notebook import read_notebook

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            notebook = read_notebook(data)
    except ValueError as error:
        return (_unparsed(path, error),)
    if notebook is None:
        return ()
    code = [line for cell in notebook.cells for line in ("".join(cell.lines) + "\n").encode("utf-8", "surrogatepass").splitlines()]
    found = _found(notebook.tree, code, path)
    lines = _json_lines(data) if found else {}
    findings = []
    for each, evidence in found:
        pointer, inside = notebook.place(_line(each.node))
        cell = pointer.split("/")[2]
        diagnostic = _finding(each, Location(path, pointer, lines.get(pointer)), evidence)
        findings.append(replace(diagnostic, message=f"cell {cell}, line {inside}: {diagnostic.message}", cause=None))
    if notebook.broken and not findings:
        cells = ", ".join(map(str, notebook.broken[:5]))
        findings.append(_unparsed(path, ValueError(f"cells {cells} are no valid Python")))
    return tuple(findings)


def _parse(text: str | bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def _found(tree: ast.Module, lines: list[bytes], path: str) -> list[tuple[Pitfall, dict[str, str]]]:
    """What is not ignored, in order, each with what it is known by from run to run: the function that it is in and its line as it is written."""
    from llmdoctor.callsites import labels, padding, sampling, stopping, trainers, vllm
    from llmdoctor.callsites.module import read_module

    module = read_module(tree)
    every = [each for rules in (padding, labels, stopping, sampling, vllm) for each in rules.find(module)]
    every += trainers.find(module, path)
    found = [each for each in every if not _is_ignored(each, lines)]
    return [(each, {"scope": module.scope_at(_line(each.node)), "source": _source(lines, each)}) for each in _in_order(found)]


def _source(lines: list[bytes], found: Pitfall) -> str:
    """The first line of what was found, without its indentation and with single blanks; cut if it is long."""
    return " ".join(b"".join(lines[_line(found.node) - 1 : _line(found.node)]).decode("utf-8", "replace").split())[:200]


def _in_order(found: list[Pitfall]) -> list[Pitfall]:
    """By line, code and message, each once."""
    unique = {(_line(each.node), each.rule.code, each.message): each for each in reversed(found)}
    return [unique[key] for key in sorted(unique)]


def _is_ignored(found: Pitfall, lines: list[bytes]) -> bool:
    """Whether `# llmdoctor: ignore[CODE]` is on a line of what was found; a prefix (PYC) means all codes that begin with it."""
    first = _line(found.node)
    for line in lines[first - 1 : getattr(found.node, "end_lineno", first)]:
        for match in _IGNORE.finditer(line):
            codes = [code.strip().upper() for code in match.group(1).decode().split(",")]
            if any(code and found.rule.code.startswith(code) for code in codes):
                return True
    return False


def _finding(pitfall: Pitfall, location: Location, evidence: dict[str, str]) -> Finding:
    scope, source = evidence["scope"], evidence["source"]
    return pitfall.rule.at(location, pitfall.message, cause=pitfall.cause, severity=pitfall.severity, scope=scope, source=source)


def _unparsed(path: str, error: Exception) -> Finding:
    line = error.lineno if isinstance(error, SyntaxError) else None
    reason = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
    return UNPARSED.at(Location(path, line=line), f"not parsed: {reason}")


def _json_lines(data: bytes) -> dict[str, int]:
    """The line of every value in a JSON file by its pointer; none if it is too large for it."""
    from llmdoctor.files.positions import Unreadable, scan

    try:
        return dict(scan(data.decode("utf-8-sig", "replace"), 100).lines)
    except Unreadable:
        return {}


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 1))

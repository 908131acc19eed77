"""Ollama's Modelfile: instructions, one a line or in triple quotes (ollama docs/modelfile.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

INSTRUCTIONS = ("FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES", "RENDERER", "PARSER")
_INSTRUCTION = re.compile(rf"\s*({'|'.join(INSTRUCTIONS)})\s+(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A PARAMETER line: its name, the text of its value, and its line, from 1."""

    name: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Modelfile:
    """A Modelfile: the model that it is made from, its parameters in order, and its template, None without one.

    `unknown` holds lines that are no instruction, by their number.
    """

    base: str | None
    parameters: tuple[Parameter, ...] = ()
    template: str | None = None
    unknown: Mapping[int, str] = field(default_factory=dict)


def looks_like_modelfile(name: str, text: str) -> bool:
    """Return whether a file is a Modelfile: by its name, with a FROM line in it."""
    return "modelfile" in name.lower() and re.search(r"^\s*FROM\s+\S", text, re.IGNORECASE | re.MULTILINE) is not None


def parse_modelfile(text: str) -> Modelfile:
    """Return the instructions of a Modelfile; a line that is no instruction is kept in `unknown`."""
    base, template = None, None
    parameters: list[Parameter] = []
    unknown: dict[int, str] = {}
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        number, line = at + 1, lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _INSTRUCTION.fullmatch(line)
        if match is None:
            unknown[number] = line.strip()
            continue
        word, rest = match[1].upper(), match[2].strip()
        if rest.startswith('"""') and '"""' not in rest[3:]:
            while at < len(lines) and '"""' not in lines[at]:
                rest += "\n" + lines[at]
                at += 1
            rest += "\n" + lines[at] if at < len(lines) else ""
            at += 1
        if word == "FROM":
            base = _unquoted(rest)
        elif word == "TEMPLATE":
            template = _unquoted(rest)
        elif word == "PARAMETER":
            name, _, value = rest.partition(" ")
            parameters.append(Parameter(name.lower(), _unquoted(value.strip()), number))
    return Modelfile(base, tuple(parameters), template, unknown)


def _unquoted(text: str) -> str:
    for quote in ('"""', '"'):
        if text.startswith(quote) and text.rstrip().endswith(quote) and len(text.rstrip()) >= 2 * len(quote):
            return text.rstrip()[len(quote) : -len(quote)]
    return text

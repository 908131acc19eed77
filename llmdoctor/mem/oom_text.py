"""The text of a log without what a launcher, a terminal or a traceback printer added to it, line by line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
# "[rank3]: " of torch, "[default0]:" of torchrun --redirects, "(RayWorker pid=12, ip=...) " of Ray, "(EngineCore_0 pid=12) " of vLLM, "3: " of srun.
# vLLM's logger adds "ERROR 09-01 10:00:00 [core.py:700] " to each line of a traceback, after the name of the process.
_SOURCE = re.compile(
    r"(\[(?:rank|default)\d{1,6}\]: ?|\([\w.:-]{1,80} (?:\S{1,40} )?pid=\d{1,9}[^)\n]{0,80}\) ?|\d{1,4}: (?=\s|Traceback|torch\.|\w*Error))"
)
_LOGGED = re.compile(r"(?:ERROR|WARNING|INFO) \d\d-\d\d \d\d:\d\d:\d\d \[[\w./]{1,80}:\d{1,6}\] ?")
_FRAME = re.compile(r'^\s*File "([^"\n]{1,400})", line (\d{1,9}), in (\S{1,200})')
_BOXED = re.compile(r"^[│|]\s*(\S[^\n]{0,380}\.py):(\d{1,9}) in (\S{1,200})")
_BOX = tuple("│╭╰|+─")
MOST_FRAMES = 40
MOST_LINES = 400  # of one traceback


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a log: `source` names the process that wrote it, as far as the line says so, `text` is the rest."""

    source: str
    text: str


def lines_of(text: str) -> list[LogLine]:
    """Return the lines of a log without colours and without the prefix that names a process. Their numbers are those of the file."""
    out = []
    for line in _ANSI.sub("", text.replace("\r\n", "\n")).split("\n"):
        source = _SOURCE.match(line)
        rest = line[source.end() :] if source else line
        logged = _LOGGED.match(rest)
        out.append(LogLine(source[1].strip(" :") if source else "", rest[logged.end() :] if logged else rest))
    return out


def frames_before(lines: Sequence[LogLine], number: int) -> tuple[str, ...]:
    """Return the frames "file:line function" of the traceback that ends at line `number` (from 0), innermost last.

    Lines of other processes in between are passed over. A line that belongs to no traceback ends the search: there is none then.
    """
    found: list[str] = []
    for line in reversed(lines[max(0, number - MOST_LINES) : number]):
        if line.source != lines[number].source:
            continue
        frame = _FRAME.match(line.text) or _BOXED.match(line.text)
        if frame is not None:
            found.append(f"{frame[1]}:{frame[2]} {frame[3]}")
        elif "Traceback (most recent call last)" in line.text:
            return tuple(reversed(found[:MOST_FRAMES]))
        elif line.text.strip() and not line.text.startswith((" ", "\t", *_BOX)):
            break
    return ()

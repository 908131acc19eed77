"""Chat templates: where they are, and rendering them in a worker that can be killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import ChainMap
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from llmdoctor.core.finding import Finding, Location
from llmdoctor.files.opening import shown_path
from llmdoctor.modeldir.rules import TEMPLATE_LIMITS, TEMPLATE_SYNTAX

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

    from llmdoctor.files.jsonfile import JsonFile

SECONDS = 1.0  # of the worker's own processor time for one request
MORE_SECONDS = 0.05  # for each further conversation of a request
HURRIED = 0.25  # for one request, where LOST_SECONDS went into templates without an end: one that ends takes milliseconds
LOST_SECONDS = 8.0
_PATIENCE = 8  # so many times longer it may take on a busy machine
_START = 5.0  # seconds more for the start of a worker there
TEMPLATE_LIMIT = 2**20


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A template's text, its name ("default", "tool_use"), the file that it is in, and the special tokens it may use."""

    name: str
    source: str
    file: str
    pointer: str | None = None
    variables: dict[str, str] = field(default_factory=dict)


class Rendering(NamedTuple):
    """What came of a rendering: `text`, or an `error` of the kind "syntax", "raised" or "limit" with its message and line."""

    text: str | None
    error: str | None = None
    message: str | None = None
    line: int | None = None
    spans: tuple[tuple[int, int], ...] = ()  # the characters [start, stop) of each {% generation %} block, if they were asked for


def find_templates(
    folder: str, config: JsonFile | None, chat_json: JsonFile | None, variables: dict[str, str], read: Callable[[str], str | None]
) -> dict[str, ChatTemplate]:
    """Every named template of a directory, from the first of three sources that has one: transformers does not mix them.

    chat_template.jinja with additional_chat_templates/*.jinja, tokenizer_config.json's chat_template (a text, a list of {name, template},
    or an object), the processor's chat_template.json (5.23.0, tokenization_utils_base.py:1812-1829). `variables` are the special tokens
    by name, as apply_chat_template hands them over; `read` maps a path to text or None.
    """
    found: dict[str, ChatTemplate] = {}
    for name, path in _jinja_files(folder):
        text = read(path)
        if text is not None:
            found[name] = ChatTemplate(name, text, shown_path(path), None, variables)
    for file in (config, chat_json):
        if not found and file is not None and isinstance(file.value, dict):
            for name, source in _named(file.value.get("chat_template")):
                found[name] = ChatTemplate(name, source, file.shown_name, "/chat_template", variables)
    return found


def _jinja_files(folder: str) -> list[tuple[str, str]]:
    files = [("default", f"{folder}/chat_template.jinja")]
    try:
        names = sorted(os.listdir(f"{folder}/additional_chat_templates"))
    except OSError:
        names = []
    return files + [(name[:-6], f"{folder}/additional_chat_templates/{name}") for name in names if name.endswith(".jinja")]


def _named(value: Any) -> list[tuple[str, str]]:
    if isinstance(value, str):
        return [("default", value)]
    if isinstance(value, dict):
        return [(name, text) for name, text in value.items() if isinstance(text, str)]
    entries = value if isinstance(value, list) else []
    pairs = [(entry.get("name"), entry.get("template")) for entry in entries if isinstance(entry, dict)]
    return [(name, text) for name, text in pairs if isinstance(name, str) and isinstance(text, str)]


TEMPLATE_RULES = {"syntax": TEMPLATE_SYNTAX, "limit": TEMPLATE_LIMITS}


def template_problem(template: ChatTemplate, rendering: Rendering) -> Finding:
    """The finding for a template that is not Jinja, or that passed a limit. In a .jinja file the line is the file's own."""
    line = rendering.line if template.pointer is None else None
    inside = f" (line {rendering.line} of the template)" if rendering.line is not None and line is None else ""
    message = f"{template.file}: the chat template {template.name!r}: {rendering.message}{inside}"
    return TEMPLATE_RULES[rendering.error or ""].at(Location(template.file, template.pointer, line), message)


_spares: list[subprocess.Popen[str]] = []
_endless: dict[str, Rendering] = {}  # by source: templates that used up SECONDS, for all workers of this process


def prepare_worker() -> None:
    """Start a worker for the first TemplateWorker to take over: its start (60 ms, jinja2) then runs beside the caller's own imports."""
    _spares.append(_spawn())


def _spawn() -> subprocess.Popen[str]:
    import subprocess

    here = os.path.dirname(os.path.abspath(__file__))
    return subprocess.Popen(
        [sys.executable, "-I", "-S", os.path.join(here, "template_worker.py"), str(os.getpid()), *_site()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env={"PATH": os.environ.get("PATH", ""), "TZ": os.environ.get("TZ", "")},
    )


class TemplateWorker:
    """Renders templates in one process after another: one that passes a limit is killed and replaced.

    A context manager; `start()` begins the first process without waiting for it, so that its imports run beside the caller's work.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._lost = 0.0  # seconds that went into requests without an answer
        self._read = b""  # of the worker's answers, what is behind the last line that was asked for
        self._process: subprocess.Popen[str] | None = None
        self._failed = ChainMap[str, Rendering]({}, _endless)

    def __enter__(self) -> TemplateWorker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin a worker, if none runs."""
        if self._process is None:
            self._process = _spares.pop() if _spares else _spawn()

    def render(self, template: ChatTemplate, messages: list[dict[str, Any]], spans: bool = False, **variables: Any) -> Rendering:
        """`template` over `messages`; never raises on what a template does. One that passed a limit once is not tried again."""
        if template.source in self._failed:
            return self._failed[template.source]
        if len(template.source) > TEMPLATE_LIMIT:
            return Rendering(None, "limit", f"the template has more than {TEMPLATE_LIMIT} characters")
        given = {**_given(template, variables), "messages": messages}
        return self._rendered(template, self._ask({"template": template.source, "variables": given, "spans": spans}))

    def render_many(self, template: ChatTemplate, rows: list[dict[str, Any]], spans: bool = False, **variables: Any) -> list[Rendering]:
        """Return one rendering for each of `rows`, each a mapping of variables that holds `messages`.

        One request for all of them, answered in parts. A row that passes a limit ends it, and the template is not tried again: the
        rows behind it have no text either, nor those whose answers were not sent yet.
        """
        if template.source in self._failed or len(template.source) > TEMPLATE_LIMIT:
            return [self.render(template, [])] * len(rows)
        if not rows:
            return []
        answer = self._ask({"template": template.source, "variables": _given(template, variables), "batch": rows, "spans": spans})
        renderings: list[Rendering] = []
        while answer is not None:
            renderings.extend(map(_rendering, answer["batch"]))
            answer = self._answer() if len(renderings) < len(rows) else None
        left = len(rows) - len(renderings)
        return renderings + [self._rendered(template, None)] * left if left else renderings

    def probe(self, template: ChatTemplate, messages: Sequence[tuple[str, bool]], **variables: Any) -> dict[str, Any] | None:
        """Return what a template writes around the contents of a conversation: "literals", "contents" and "spans" (template_probes.pieces).

        `messages` are (role, whether the content is more than blanks). None if the template looks into a content, fails, or passes a limit.
        """
        if template.source in self._failed or len(template.source) > TEMPLATE_LIMIT:
            return None
        answer = self._ask({"template": template.source, "variables": _given(template, variables), "probe": list(messages)})
        if answer is None:
            self._rendered(template, answer)
        return answer if answer and "literals" in answer else None

    def _rendered(self, template: ChatTemplate, answer: dict[str, Any] | None) -> Rendering:
        """Return the rendering of an answer, and remember a template that passed a limit or is none; no answer ends the worker."""
        rendering = self._exhausted(template) if answer is None else _rendering(answer)
        if rendering.error in ("limit", "syntax"):
            self._failed[template.source] = rendering
        return rendering

    def _exhausted(self, template: ChatTemplate) -> Rendering:
        process, seconds = self._process, self._allowed()
        self.close()
        self._lost += seconds
        found = Rendering(None, "limit", f"the template takes more than {seconds:g} s, or all the memory it is given")
        if seconds == SECONDS and process is not None and process.returncode == -getattr(signal, "SIGPROF", 0):
            _endless[template.source] = found
        return found

    def _allowed(self) -> float:
        return min(self._seconds, HURRIED) if self._lost >= LOST_SECONDS else self._seconds

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Return the first answer to one request; None if the worker died or did not answer in time."""
        self.start()
        process = self._process
        if process is None or process.stdin is None:
            return None
        try:
            process.stdin.write(json.dumps({**request, "seconds": self._allowed(), "more": MORE_SECONDS}) + "\n")
            process.stdin.flush()
        except OSError:
            return None
        return self._answer()

    def _answer(self) -> dict[str, Any] | None:
        if self._process is None or self._process.stdout is None:
            return None
        seconds = self._allowed() * (_PATIENCE if hasattr(signal, "setitimer") else 1) + _START
        line, self._read = _line_within(self._process.stdout, self._read, seconds)
        try:
            answer = json.loads(line) if line else None
        except ValueError:
            answer = None
        return answer if isinstance(answer, dict) else None

    def close(self) -> None:
        """End the worker, whatever it is doing, and leave no zombie."""
        process, self._process, self._read = self._process, None, b""
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    _close_quietly(pipe)
            process.wait()


def _given(template: ChatTemplate, variables: dict[str, Any]) -> dict[str, Any]:
    return {"tools": None, "documents": None, "add_generation_prompt": False, **template.variables, **variables}


def _rendering(answer: dict[str, Any]) -> Rendering:
    spans = tuple((start, stop) for start, stop in answer.get("spans") or ())
    return Rendering(answer.get("text"), answer.get("error"), answer.get("message"), answer.get("line"), spans)


def _close_quietly(pipe: IO[str]) -> None:
    with suppress(OSError):  # the worker is gone, and with it the other end
        pipe.close()


def _line_within(stream: IO[str], data: bytes, seconds: float) -> tuple[bytes, bytes]:
    """Return the next line of `data` and then `stream`, and what was read behind it; no line if the time is up or the stream ends."""
    import select
    import time

    deadline = time.monotonic() + seconds
    descriptor = stream.fileno()
    parts = [data]
    while b"\n" not in parts[-1]:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return b"", b""
        parts.append(os.read(descriptor, 1 << 16))
        if not parts[-1]:
            return b"", b""
    line, _, rest = b"".join(parts).partition(b"\n")
    return line, rest


def _site() -> list[str]:
    """The folders that hold jinja2 and markupsafe, found on sys.path without importing them."""
    return [entry for entry in sys.path if entry and any(os.path.isdir(os.path.join(entry, name)) for name in ("jinja2", "markupsafe"))]

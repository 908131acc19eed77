"""The worker process that renders chat templates: JSON lines in, JSON lines out, killed from outside when it takes too long.

Runs as `python -I -S template_worker.py PARENT SITE...` (the parent's process id, the folders that hold jinja2), so that it starts in a few
milliseconds and sees nothing else. The environment is that of transformers' chat templates (5.23.0, utils/chat_template_utils.py):
immutable sandbox, trim_blocks, lstrip_blocks, loop controls, raise_exception, strftime_now, tojson without HTML escapes, and the `generation` block.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

MEMORY_BYTES = 384 * 2**20
OUTPUT_CHARACTERS = 2**20
LAST_SECONDS = 20
PARTS = 32  # so often the answers to a batch are sent: what a template without end leaves unsent is the same in every run
_siblings: dict[str, Any] = {}


def main() -> None:
    """Answer requests until stdin ends."""
    sys.path[:0] = sys.argv[2:]
    _limit()
    _end_with_parent(int(sys.argv[1]))
    environment = _environment()
    compiled: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        _last_resort(LAST_SECONDS)
        _limit_work(request.get("seconds", 0))
        for answer in _answers(environment, compiled, request):
            print(json.dumps(answer), flush=True)  # noqa: T201 the protocol
            _last_resort(LAST_SECONDS)
        _limit_work(0)
        _last_resort(0)


def _end_with_parent(parent: int) -> None:
    """End with the process that started this one: a render that hangs does not see the end of stdin."""
    module = _sibling("../core/processes.py")
    module.end_with_parent(parent)


def _sibling(name: str) -> Any:
    """Return the module in a file beside this one: the package is not on this process's path."""
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    if name not in _siblings:
        spec = spec_from_file_location(Path(name).stem, Path(__file__).parent / name)
        if spec is None or spec.loader is None:
            raise ImportError(name)
        _siblings[name] = module_from_spec(spec)
        spec.loader.exec_module(_siblings[name])
    return _siblings[name]


def _last_resort(seconds: int) -> None:
    """Die by SIGALRM in `seconds`, 0 calls it off: no endless loop outlives a parent that was killed."""
    import signal

    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _limit_work(seconds: float) -> None:
    """Die by SIGPROF behind so many seconds of this process's own time, 0 calls it off: a busy machine is not the template's fault."""
    import signal

    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _allow(more: float) -> None:
    """Let a process with a limit on its own time take so many seconds more."""
    import signal

    if hasattr(signal, "setitimer") and (left := signal.getitimer(signal.ITIMER_PROF)[0]):
        signal.setitimer(signal.ITIMER_PROF, left + more)


def _limit() -> None:
    """Bound the memory, and ignore Ctrl-C: the parent decides."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # no such limits on this system: the time limit remains


def _environment() -> Any:
    from jinja2 import nodes, pass_eval_context
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationTag(Extension):
        """{% generation %} marks the assistant's part in training templates.

        `parts` is the output so far and `spans` collects the characters [start, stop) of each block, as transformers' AssistantTracker does
        (5.23.0, utils/chat_template_utils.py). With `parts` None, rendering passes the block through.
        """

        tags = {"generation"}  # noqa: RUF012 jinja2's own interface

        def __init__(self, environment: Any) -> None:
            super().__init__(environment)
            environment.extend(generation=self)
            self.parts: list[str] | None = None
            self.spans: list[tuple[int, int]] = []

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_block"), [], [], body).set_lineno(line)

        @pass_eval_context
        def _block(self, _context: Any, caller: Any) -> str:
            text: str = caller()
            if self.parts is not None:
                start = sum(map(str.__len__, self.parts))
                self.spans.append((start, start + str.__len__(text)))
            return text

    def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def strftime_now(format: str) -> str:
        import time

        return time.strftime(format)

    class Environment(ImmutableSandboxedEnvironment):
        """The sandbox, with a shorter way to a message's keys: `m.role` of a dict without such an attribute is its item, as in jinja2's getattr."""

        def getattr(self, obj: Any, attribute: str) -> Any:
            if type(obj) is dict and attribute in obj and not hasattr(dict, attribute):
                return obj[attribute]
            return super().getattr(obj, attribute)

    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


def _answers(environment: Any, compiled: dict[str, Any], request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the answer to one request: of `variables`, or under "batch" one answer for each of them, in parts."""
    failure = _compile(environment, compiled, request["template"])
    template = compiled.get(request["template"])
    if "probe" in request:
        yield failure or _probe(environment, request["template"], request)
    elif "batch" not in request:
        yield failure or _render_one(environment, template, request["variables"], request)
    else:
        rows = request["batch"]
        size = -(-len(rows) // PARTS)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            _allow(request.get("more", 0) * len(part))
            yield {"batch": [failure or _render_one(environment, template, {**request["variables"], **one}, request) for one in part]}


def _compile(environment: Any, compiled: dict[str, Any], source: str) -> dict[str, Any] | None:
    """Put a template into `compiled`; return the answer if it is none."""
    from jinja2.exceptions import TemplateSyntaxError

    try:
        if source not in compiled:
            compiled.clear()
            compiled[source] = environment.from_string(source)
    except TemplateSyntaxError as error:
        return {"error": "syntax", "message": str(error), "line": error.lineno}
    except RecursionError:
        return {"error": "limit", "message": "the template recurses without end"}
    except Exception as error:  # noqa: BLE001 a template may raise anything
        return {"error": "raised", "message": f"{type(error).__name__}: {error}"[:500]}
    return None


def _probe(environment: Any, source: str, request: dict[str, Any]) -> dict[str, Any]:
    """The pieces of a conversation whose contents are probes: "messages" of (role, whether there is a content); empty if it has none."""
    probes = _sibling("template_probes.py")
    if not hasattr(environment, "probing"):
        environment.probing, environment.probed = probes.probing(environment), {}
    try:
        if source not in environment.probed:
            environment.probed[source] = probes.compiled(environment.probing, source)
        messages = [
            {"role": role, "content": probes.marked(number) if there else ""} for number, (role, there) in enumerate(request["probe"])
        ]
        tag = environment.probing.generation
        tag.parts, tag.spans = [], []
        size = 0
        for part in environment.probed[source].generate(**{**request["variables"], "messages": messages}):
            size += str.__len__(part)
            if size > OUTPUT_CHARACTERS:
                return {}
            tag.parts.append(part)
        found: dict[str, Any] = probes.pieces("".join(tag.parts), tag.spans)
        return found
    except Exception:  # noqa: BLE001 then every row is rendered, which says what is wrong
        return {}


def _render_one(environment: Any, template: Any, variables: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    from jinja2.exceptions import TemplateSyntaxError

    parts: list[str] = []
    environment.generation.parts = parts if request.get("spans") else None
    spans: list[tuple[int, int]] = []
    environment.generation.spans = spans
    size = 0
    try:
        for part in template.generate(**variables):
            size += len(part)
            if size > OUTPUT_CHARACTERS:
                return {"error": "limit", "message": f"the output passes {OUTPUT_CHARACTERS} characters"}
            parts.append(part)
        return {"text": "".join(parts), "spans": spans}
    except TemplateSyntaxError as error:
        return {"error": "syntax", "message": str(error), "line": error.lineno}
    except MemoryError:
        return {"error": "limit", "message": f"the template takes more than {MEMORY_BYTES // 2**20} MiB"}
    except RecursionError:
        return {"error": "limit", "message": "the template recurses without end"}
    except Exception as error:  # noqa: BLE001 a template may raise anything
        return {"error": "raised", "message": f"{type(error).__name__}: {error}"[:500]}


if __name__ == "__main__":
    main()

"""A chat template rendered once with probes in place of the contents: what it writes around them, if it does nothing else with them.

Loaded by template_worker.py inside the worker. A probe is a text that a template may write, join to other texts, test for being there, and strip.
Anything else it does with one (compare, split, measure, look into, hand to a filter) raises Tainted, and the caller renders every row.
"""

from __future__ import annotations

import re
from functools import wraps
from typing import Any

OPEN, CLOSE = "\ue000", "\ue001"  # private use: no template writes them
_MARK = re.compile(f"{OPEN}(\\d+)([slr]?){CLOSE}")
_KEEPING = {"selectattr", "rejectattr", "list", "first", "last", "length", "count", "default", "d", "reverse"}  # look at no text
_KINDS = {"defined", "undefined", "none", "string", "mapping", "boolean", "number", "integer", "float", "true", "false", "callable"}


class Tainted(Exception):
    """The template looks into a content."""


def _refuse(*_arguments: Any, **_more: Any) -> Any:
    raise Tainted


class ContentProbe(str):
    """A text that holds the mark of a content; `number` is that content if it is nothing else."""

    number: int | None = None

    def __str__(self) -> ContentProbe:
        return self

    def __bool__(self) -> bool:
        return True

    def _stripped(self, kind: str, chars: Any) -> ContentProbe:
        if self.number is None or chars is not None:
            raise Tainted
        return marked(self.number, kind)

    def strip(self, chars: Any = None) -> ContentProbe:
        """Stand for the content without blanks around it."""
        return self._stripped("s", chars)

    def lstrip(self, chars: Any = None) -> ContentProbe:
        """Stand for the content without blanks in front."""
        return self._stripped("l", chars)

    def rstrip(self, chars: Any = None) -> ContentProbe:
        """Stand for the content without blanks behind."""
        return self._stripped("r", chars)

    __len__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __contains__ = __iter__ = __getitem__ = _refuse
    __mul__ = __rmul__ = __mod__ = __rmod__ = __format__ = _refuse

    def __add__(self, other: Any) -> Any:
        return joined((self, other))

    def __radd__(self, other: Any) -> Any:
        return joined((other, self))


def marked(number: int, kind: str = "") -> ContentProbe:
    """Return the probe of a content; `kind` s, l or r stands for strip, lstrip, rstrip."""
    probe = ContentProbe(f"{OPEN}{number}{kind}{CLOSE}")
    probe.number = None if kind else number
    return probe


def joined(parts: Any) -> str:
    """Join texts as jinja2 does; a probe if one of them is."""
    texts = list(parts)
    text = "".join(texts)
    return ContentProbe(text) if any(type(one) is ContentProbe for one in texts) else text


def _holds(value: Any) -> bool:
    if type(value) is ContentProbe:
        return True
    if isinstance(value, dict):
        return any(map(_holds, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds, value))


def _filter(name: str, function: Any) -> Any:
    @wraps(function)
    def guarded(*arguments: Any, **more: Any) -> Any:
        probe = next((one for one in arguments if type(one) is ContentProbe), None)
        if probe is not None and name == "trim" and len(arguments) == 1 and not more:
            return probe.strip()
        if probe is not None and name in ("string", "default", "d"):
            return probe
        if probe is not None or (name not in _KEEPING and any(map(_holds, (*arguments, *more.values())))):
            raise Tainted
        return function(*arguments, **more)

    return guarded


def _test(name: str, function: Any) -> Any:
    @wraps(function)
    def guarded(*arguments: Any) -> Any:
        if name in ("sequence", "iterable") and arguments and type(arguments[-1]) is ContentProbe:
            return True  # as any text is
        if name not in _KINDS and any(map(_holds, arguments)):
            raise Tainted
        return function(*arguments)

    return guarded


def probing(environment: Any) -> Any:
    """Return an environment like `environment` in which every operation on a probe is known or refused."""
    from jinja2 import runtime

    class Probing(type(environment)):  # type: ignore[misc]
        concat = staticmethod(joined)
        intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if type(left) is ContentProbe or type(right) is ContentProbe:
                if operator == "+" and isinstance(left, str) and isinstance(right, str):
                    return joined((left, right))
                raise Tainted
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, function: Any, *arguments: Any, **more: Any) -> Any:
            known = isinstance(function, runtime.Macro) or function is vars(runtime)["Namespace"]
            if not known and any(map(_holds, (*arguments, *more.values()))):
                raise Tainted
            return super().call(context, function, *arguments, **more)

        def getattr(self, value: Any, attribute: str) -> Any:
            if type(value) is ContentProbe and attribute not in ("strip", "lstrip", "rstrip"):
                raise Tainted
            return super().getattr(value, attribute)

        def getitem(self, value: Any, argument: Any) -> Any:
            if type(value) is ContentProbe:
                raise Tainted
            return super().getitem(value, argument)

    new = Probing(trim_blocks=True, lstrip_blocks=True, extensions=[type(one) for one in environment.extensions.values()])
    new.filters = {name: _filter(name, function) for name, function in environment.filters.items()}
    new.tests = {name: _test(name, function) for name, function in environment.tests.items()}
    new.globals = environment.globals
    return new


def compiled(environment: Any, source: str) -> Any:
    """Compile a template whose joins keep probes, and whose `in` is the test of that name: `probe in "a text"` would ask the text."""
    from jinja2 import nodes, runtime
    from jinja2.visitor import NodeTransformer

    class Testing(NodeTransformer):
        def visit_Compare(self, node: Any) -> Any:
            node = self.generic_visit(node)
            if len(node.ops) == 1 and node.ops[0].op in ("in", "notin"):
                test = nodes.Test(node.expr, "in", [node.ops[0].expr], [], dyn_args=None, dyn_kwargs=None, lineno=node.lineno)
                return test if node.ops[0].op == "in" else nodes.Not(test, lineno=node.lineno)
            return node

    tree = Testing().visit(environment.parse(source))
    names = vars(runtime)
    before = names["str_join"]
    names["str_join"] = lambda parts: joined(map(str, parts))
    try:
        return environment.from_string(tree)
    finally:
        names["str_join"] = before


def pieces(text: str, spans: list[tuple[int, int]]) -> dict[str, Any]:
    """Return the literals between the contents, (number, kind) of each content, and each span's ends as (literal, characters into it).

    Raises Tainted for a span that begins or ends inside a mark.
    """
    literals, contents, edges, place = [], [], [], 0
    for found in _MARK.finditer(text):
        literals.append(text[place : found.start()])
        edges.append(place)
        contents.append([int(found[1]), found[2]])
        place = found.end()
    literals.append(text[place:])
    edges.append(place)

    def at(character: int) -> list[int]:
        for number in range(len(edges) - 1, -1, -1):
            if edges[number] <= character <= edges[number] + len(literals[number]):
                return [number, character - edges[number]]
        raise Tainted

    return {"literals": literals, "contents": contents, "spans": [[at(start), at(stop)] for start, stop in spans]}

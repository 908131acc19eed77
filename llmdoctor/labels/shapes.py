"""Conversations rendered by filling in: what a template writes around the contents depends on the roles alone, if it does not look into them.

A template is rendered once for each shape (the roles, and which contents are empty) with probes for the contents (modeldir/template_probes.py). The
first conversation of each shape is rendered as a whole as well, and the shape is used only if both agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.modeldir.template import ChatTemplate, Rendering, TemplateWorker

MOST = 5000  # shapes that are kept
_LONGEST = 2**20  # characters of a text, as in the worker
_WAYS: dict[str, Callable[[str], str]] = {"": str, "s": str.strip, "l": str.lstrip, "r": str.rstrip}


@dataclass(frozen=True, slots=True)
class TalkShape:
    """What stands around the contents: `parts` with an empty place for each, the message and the way of each content, and the spans."""

    parts: tuple[str, ...]
    numbers: tuple[int, ...]
    ways: tuple[str, ...]
    spans: tuple[tuple[tuple[int, int], tuple[int, int]], ...]

    def filled(self, contents: Sequence[str], spans: bool) -> Rendering:
        """Return the text with `contents` in their places, and the {% generation %} blocks if `spans`."""
        parts = list(self.parts)
        parts[1::2] = [
            _WAYS[way](contents[number]) if way else contents[number] for number, way in zip(self.numbers, self.ways, strict=True)
        ]
        if not spans:
            return Rendering("".join(parts))
        edges, place = [], 0
        for number, part in enumerate(parts):
            if number % 2 == 0:
                edges.append(place)
            place += len(part)
        blocks = tuple((edges[first] + start, edges[last] + stop) for (first, start), (last, stop) in self.spans)
        return Rendering("".join(parts), spans=blocks)

    def places(self, contents: Sequence[str]) -> list[tuple[int, int, int]]:
        """Return (message, start, stop) of each content in the text, in characters."""
        out, place = [], 0
        for at, part in enumerate(self.parts):
            length = len(part)
            if at % 2:
                number, way = self.numbers[at // 2], self.ways[at // 2]
                length = len(_WAYS[way](contents[number]))
                out.append((number, place, place + length))
            place += length
        return out


@dataclass(slots=True)
class TalkShapes:
    """The shapes of one template. None stands for a conversation that has to be rendered as a whole."""

    known: dict[tuple[Any, ...], TalkShape | None] = field(default_factory=dict)

    def render(
        self,
        worker: TemplateWorker,
        template: ChatTemplate,
        messages: Sequence[Any],
        variables: Mapping[str, Any],
        *,
        spans: bool,
        state: tuple[Any, ...] | None = None,
    ) -> Rendering | None:
        """Return a conversation's text from its shape; None if it has none, or one that is not known yet and cannot be made.

        `state` is that of `state_of`, for a caller with many conversations.
        """
        key = key_of(messages)
        if key is None:
            return None
        place = (state or state_of(template, variables), key)
        contents = [message["content"] for message in messages]
        if place in self.known:
            shape = self.known[place]
            rendering = None if shape is None else shape.filled(contents, spans)
            return rendering if rendering is not None and len(rendering.text or "") <= _LONGEST else None
        if len(self.known) >= MOST:
            return None
        self.known[place] = None
        found = worker.probe(template, key, **variables)
        if found is None:
            return None
        shape = _shape(found)
        real = worker.render(template, list(messages), True, **variables)
        if shape.filled(contents, True) == real:
            self.known[place] = shape
        return None


def places_of(
    shapes: TalkShapes, template: ChatTemplate, messages: Sequence[Any], variables: Mapping[str, Any]
) -> list[tuple[int, int, int]] | None:
    """Return (message, start, stop) of each content in the rendered text; None if the conversation has no shape that is known."""
    key = key_of(messages)
    shape = None if key is None else shapes.known.get((state_of(template, variables), key))
    return None if shape is None else shape.places([message["content"] for message in messages])


def state_of(template: ChatTemplate, variables: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a shape depends on beside the messages: the template's text and its variables."""
    return template.source, tuple((name, value) for name, value in variables.items() if value is None or isinstance(value, str | bool))


def key_of(messages: Any) -> tuple[tuple[str, bool], ...] | None:
    """Return (role, whether there is a content) of each message; None if a message holds more than two texts, or a content of blanks.

    None also for what is no list of messages: rows come from a file, where anything can stand for them.
    """
    if not isinstance(messages, list | tuple):
        return None
    out = []
    for message in messages:
        if type(message) is not dict or len(message) != 2 or "role" not in message:
            return None
        role, content = message["role"], message.get("content")
        if type(content) is not str or type(role) is not str or content.isspace():
            return None
        out.append((role, content != ""))
    return tuple(out)


def _shape(found: Mapping[str, Any]) -> TalkShape:
    parts = [""] * (2 * len(found["literals"]) - 1)
    parts[::2] = found["literals"]
    spans = tuple((tuple(start), tuple(stop)) for start, stop in found["spans"])
    return TalkShape(tuple(parts), tuple(number for number, _ in found["contents"]), tuple(way for _, way in found["contents"]), spans)

"""One forward and backward of a model as a list of events, and the repeated layers' part of it repeated.

An event is a tuple: ("+", id, bytes, kind) a storage comes to life, ("-", id) it dies, ("g", parameter, id) a parameter's gradient is
complete and lies in a storage, ("p", phase) the forward or the backward begins, ("u", unit, what) a unit of FSDP begins its forward, ends it,
begins its backward or ends it ("forward", "forwarded", "backward", "done"). Kinds are those of KINDS. A trace is cut into segments:
what happens while one layer of a stack of alike layers runs, forward or backward, is a segment of that layer, the rest is not repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.mem.weights import Weight

KINDS = ("attention", "mlp", "norm", "embedding", "other", "autocast", "logits", "temporaries", "inputs")
TRACED = 5  # layers of a stack that are traced: the first, three in the middle, the last

Event = tuple[Any, ...]
RepeatKey = tuple[str, str, int] | None  # (stack, "forward", "reference" or "backward", layer); None for what is not repeated


@dataclass(frozen=True, slots=True)
class Segment:
    """The events while one layer runs; a "-" refers to (segment, position among its "+")."""

    key: RepeatKey
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Stack:
    """A list of alike layers: its name in the model ("model.layers"), how many there are, how many were traced."""

    name: str
    layers: int
    traced: int

    def stand_in(self, layer: int) -> int:
        """The traced layer that shows what `layer` of the whole model does."""
        if self.layers == self.traced:
            return layer
        if layer < 2:
            return layer
        return min(2, self.traced - 1) if layer < self.layers - 2 else layer - self.layers + self.traced


@dataclass(frozen=True, slots=True)
class Traced:
    """One micro step of a model: its weights, the bytes of each buffer, and the events (none if the model's code was not run).

    `layers` describes the layers that were traced, None if none was. `reference` are the weights of a second model that is not trained. `units`
    are those of FSDP: for each one the names of its modules, in the order of their forwards.
    `unreached` names trained parameters that are known to get no gradient although nothing was traced.
    """

    weights: tuple[Weight, ...]
    buffers: tuple[int, ...] = ()
    events: tuple[Event, ...] = ()
    layers: str | None = None
    reference: tuple[Weight, ...] = ()
    units: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unreached: frozenset[str] = frozenset()


class NotAlike(Exception):
    """Layers of a stack behave differently, so that one cannot represent another: the whole model has to be traced."""


def expand(segments: Sequence[Segment], stacks: Sequence[Stack]) -> list[Event]:
    """The whole model's events, out of a trace in which each stack has `traced` layers.

    Raises NotAlike where the three layers in the middle do not show the same events.
    """
    named = {stack.name: stack for stack in stacks if stack.layers != stack.traced}
    _check(segments, named)
    return list(_Expansion(segments, named).events())


def _check(segments: Sequence[Segment], stacks: dict[str, Stack]) -> None:
    seen: dict[tuple[str, str], dict[int, tuple[Event, ...]]] = {}
    for segment in segments:
        if segment.key is not None and segment.key[0] in stacks:
            shape = tuple(event[2:] if event[0] == "+" else event[:1] for event in segment.events)
            seen.setdefault(segment.key[:2], {})[segment.key[2]] = shape
    for (name, phase), layers in seen.items():
        if any(layers.get(layer) != layers.get(2) for layer in (1, 2, 3)):
            raise NotAlike(f"{name}: layers 1, 2 and 3 differ in the {phase}")


def _moved(name: str, stack: str, shift: int) -> str:
    """Return the name of a module, as far away from a layer of a stack as `name` is from the traced layer."""
    if not name.startswith(f"{stack}."):
        return name
    index, dot, rest = name[len(stack) + 1 :].partition(".")
    return f"{stack}.{int(index) + shift}{dot}{rest}"


class _Expansion:
    """Repeats the middle layers' segments; ids are (segment of the whole model, position)."""

    def __init__(self, segments: Sequence[Segment], stacks: dict[str, Stack]) -> None:
        self.segments, self.stacks = segments, stacks
        self.place = {segment.key: at for at, segment in enumerate(segments) if segment.key is not None}

    def events(self) -> Iterator[Event]:
        """All events in order."""
        for at, segment in enumerate(self.segments):
            key = segment.key
            if key is None or key[0] not in self.stacks:
                yield from self._plain(at, segment)
                continue
            stack = self.stacks[key[0]]
            for layer in self._repeats(stack, key[1], key[2]):
                yield from self._layer(stack, key[1], layer, segment)

    def _repeats(self, stack: Stack, phase: str, traced: int) -> Sequence[int]:
        """The whole model's layers that follow in the place of one traced layer's segment."""
        standing = [layer for layer in range(stack.layers) if stack.stand_in(layer) == traced]
        return standing[::-1] if phase == "backward" else standing

    def _plain(self, at: int, segment: Segment) -> Iterator[Event]:
        position = 0
        for event in segment.events:
            if event[0] == "+":
                yield ("+", (at, 0, position), *event[2:])
                position += 1
            elif event[0] == "-":
                yield from (("-", target) for target in self._targets(event[1]))
            elif event[0] == "g":
                yield ("g", event[1], next(self._targets(event[2])))
            else:
                yield event

    def _targets(self, reference: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
        """Every storage that a free outside the layers means: one of each layer where it frees a middle layer's."""
        at, position = reference
        key = self.segments[at].key
        if key is None or key[0] not in self.stacks:
            yield (at, 0, position)
            return
        stack = self.stacks[key[0]]
        for layer in range(stack.layers):
            if stack.stand_in(layer) == key[2]:
                yield (self.place[key], layer, position)

    def _layer(self, stack: Stack, phase: str, layer: int, segment: Segment) -> Iterator[Event]:
        traced = stack.stand_in(layer)
        at, position = self.place[(stack.name, phase, traced)], 0
        for event in segment.events:
            if event[0] == "+":
                yield ("+", (at, layer, position), *event[2:])
                position += 1
            elif event[0] == "-":
                yield from (("-", target) for target in self._shifted(event[1], stack, layer - traced))
            elif event[0] == "g":
                prefix = f"{stack.name}.{traced}."
                name = event[1].replace(prefix, f"{stack.name}.{layer}.", 1) if event[1].startswith(prefix) else event[1]
                yield ("g", name, next(self._shifted(event[2], stack, layer - traced)))
            elif event[0] == "u":
                yield ("u", _moved(event[1], stack.name, layer - traced), event[2])
            else:
                yield event

    def _shifted(self, reference: tuple[int, int], stack: Stack, shift: int) -> Iterator[tuple[int, int, int]]:
        """The storage that a free in a layer means: the same layer's or its neighbour's, as far away as in the trace."""
        at, position = reference
        key = self.segments[at].key
        if key is None or key[0] != stack.name:
            yield from self._targets(reference)
            return
        layer = key[2] + shift
        yield (self.place[(key[0], key[1], stack.stand_in(layer))], layer, position)

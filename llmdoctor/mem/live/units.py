"""The units of FSDP in a model, and marks in the trace of when each computes (accelerate 1.15.0, utils/fsdp_utils.py, fsdp2_prepare_model)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmdoctor.core.errors import QuestionError

if TYPE_CHECKING:
    from llmdoctor.mem.live.recorder import StorageRecorder
    from llmdoctor.mem.timeline import Stack

EMBEDDING, TAIL = "(embedding)", "(tail)"


def units_of(model: Any, classes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the modules of each unit: every layer of `classes`, the embedding, and the tail of the last norm and the output layer.

    With tied weights the embedding belongs to the tail. Every other parameter belongs to the root, which is not listed. Raises QuestionError if a
    class is not in the model.
    """
    wanted = classes or tuple(getattr(model, "_no_split_modules", None) or ())
    names = {name: type(module).__name__ for name, module in model.named_modules()}
    missing = next((one for one in classes if one not in names.values()), None)
    if missing is not None:
        raise QuestionError(f"fsdp_config.transformer_layer_cls_to_wrap: {type(model).__name__} has no layer of the class {missing}")
    units: dict[str, tuple[str, ...]] = {name: (name,) for name, kind in names.items() if kind in wanted and name}
    places = {id(module): name for name, module in model.named_modules()}
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    tied = output is not None and embedding is not None and embedding.weight is output.weight
    tail = [module for module in (_last_norm(model), output) if module is not None]
    if embedding is not None and not tied:
        units[EMBEDDING] = (places[id(embedding)],)
    parts = tuple(places[id(module)] for module in ([embedding, *tail] if tied else tail) if places[id(module)] not in units)
    if parts:
        units[TAIL] = parts
    return units


def _last_norm(model: Any) -> Any:
    base = getattr(model, getattr(model, "base_model_prefix", ""), None) or model
    return next((child for _, child in reversed(list(base.named_children())) if "Norm" in type(child).__name__), None)


@dataclass(slots=True)
class TracedPlace:
    """Where a module is in a trace: the layer of a stack (`key`), whether it is the `final` one, the unit of FSDP, whether it is the unit's first
    module (`begins`) or its last (`ends`)."""

    key: tuple[str, int] | None = None
    final: bool = False
    unit: str | None = None
    begins: bool = False
    ends: bool = False


def places_of(models: Sequence[Any], stacks: Sequence[Stack], units: Mapping[str, tuple[str, ...]]) -> list[tuple[Any, TracedPlace]]:
    """Return the modules of `models` whose calls are marked. Only the first model, the one that is trained, has units."""
    found: dict[int, tuple[Any, TracedPlace]] = {}
    for stack in stacks:
        for model in models:
            layers = model.get_submodule(stack.name)
            for index, layer in enumerate(layers):
                found[id(layer)] = (layer, TracedPlace((stack.name, index), index == len(layers) - 1))
    present = dict(models[0].named_modules())
    for unit, names in units.items():
        for name in names:
            if name in present:
                _, place = found.setdefault(id(present[name]), (present[name], TracedPlace()))
                place.unit, place.begins, place.ends = unit, name == names[0], name == names[-1]
    return list(found.values())


def mark_calls(module: Any, place: TracedPlace, recorder: StorageRecorder) -> None:
    """Make a call of `module` a segment of the trace, or a mark: a subclass of its class, so that every attribute stays what it is."""
    import torch

    kind = type(module)

    def begins(_gradient: Any) -> None:
        if place.key is not None:
            recorder.segment((place.key[0], "backward", place.key[1]))
        if place.ends:
            recorder.mark("u", place.unit, "backward")

    def ends(_gradient: Any) -> None:
        recorder.mark("u", place.unit, "done")

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if recorder.backward:
            return kind.__call__(self, *args, **kwargs)
        if place.key is not None:
            recorder.segment((place.key[0], recorder.part, place.key[1]))
        if place.unit is not None:
            recorder.mark("u", place.unit, "forward")
            given = next((one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor) and one.requires_grad), None)
            if given is not None and place.begins:
                given.register_hook(ends)
        out = kind.__call__(self, *args, **kwargs)
        states = out[0] if isinstance(out, tuple) else out
        if isinstance(states, torch.Tensor) and states.requires_grad and (place.key is not None or place.ends):
            states.register_hook(begins)
        if place.ends:
            recorder.mark("u", place.unit, "forwarded")
        if place.final:
            recorder.segment(None)
        return out

    module.__class__ = type(kind.__name__, (kind,), {"__call__": call})

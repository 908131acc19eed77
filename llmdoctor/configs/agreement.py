"""What a DeepSpeed configuration must say to agree with the arguments of the Trainer that names it, so that the run does not end with an error.

Read in transformers 5.23.0, integrations/deepspeed.py:131 to :166 (fill_match), and accelerate 1.15.0, utils/dataclasses.py; tried with deepspeed 0.19.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmdoctor.configs.types import Format, Variant

# DeepSpeed's place -> the argument it must equal.
SAME: dict[tuple[str, ...], str] = {
    ("train_micro_batch_size_per_gpu",): "per_device_train_batch_size",
    ("gradient_accumulation_steps",): "gradient_accumulation_steps",
    ("gradient_clipping",): "max_grad_norm",
    ("optimizer", "params", "lr"): "learning_rate",
    ("optimizer", "params", "eps"): "adam_epsilon",
    ("optimizer", "params", "weight_decay"): "weight_decay",
    ("scheduler", "params", "warmup_max_lr"): "learning_rate",
}
BATCHES = ("train_batch_size", "train_micro_batch_size_per_gpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """A value of the DeepSpeed configuration that differs from an argument, for which the Trainer raises ValueError.

    `place` is where DeepSpeed's value `said` is, `argument` the name of the argument in its own format, `given` its value; `by_default` if the
    arguments do not set it.
    """

    place: tuple[str, ...]
    argument: str
    said: Any
    given: Any
    by_default: bool

    @property
    def sentence(self) -> str:
        """Return what differs, as `{argument} is {given} here and {place} {said}`."""
        key = ".".join(self.place)
        theirs = f"and {self.said}" if key == self.argument else f"and {key} {self.said}"
        return f"{self.argument} is {self.given}{', the default' if self.by_default else ''} here {theirs}"


def contradictions(arguments: Mapping[str, Any], engine: Mapping[str, Any], format_: Format, variant: Variant) -> list[Contradiction]:
    """Return the values of the DeepSpeed configuration `engine` that differ from `arguments`, which `variant` of `format_` reads."""
    out = []
    for place, argument in SAME.items():
        name = format_.renames.get(argument, argument)
        said, given = _at(engine, place), arguments.get(name)
        default = variant.keys[name].default if name in variant.keys else None
        if said not in (None, "auto") and given != "auto" and _differs(said, default if given is None else given):
            out.append(
                Contradiction(place=place, argument=name, said=said, given=default if given is None else given, by_default=given is None)
            )
    return out


def misses_batch(engine: Mapping[str, Any]) -> bool:
    """Return whether no batch size is set, for which DeepSpeed raises AssertionError: the Trainer fills in "auto" only."""
    return all(engine.get(name) is None for name in BATCHES)


def _at(value: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    found: Any = value
    for part in place:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _differs(said: Any, given: Any) -> bool:
    """Return whether two numbers differ; YAML reads 1e-5 as a text, from which the argument parser makes a number."""
    try:
        return float(said) != float(given)
    except (TypeError, ValueError):
        return False

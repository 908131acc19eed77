"""What becomes of each key of a configuration file: used, ignored with the reason, or refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.configs.fields import FIELDS
from llmdoctor.configs.types import Configuration, Ignored, Refused, Uses
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.inputs import Inputs

# Settings that have no influence on a run that another setting has switched off.
IDLE = {"optimizer_targets": "the optimizer projects no layers", "lora_layers_pattern": "lora_layers is not set"}


class UnmodelledSetting(QuestionError):
    """A configuration sets something that could change the answer and is not modelled; `inputs` is what was read of it."""

    def __init__(self, message: str, inputs: Inputs) -> None:
        super().__init__(message)
        self.inputs = inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyContext:
    """What a strategy depends on besides its file: facts of the model, and options of the command line.

    `model_dtype` is the dtype that `dtype_place`, config.json or the checkpoint, gives; None if neither does.
    `world_size` is None if --world-size was not given; `hidden_size` is what "auto" under the Trainer is computed from. `releases` maps
    libraries to the releases that the answer is for, the newest known one without an entry.
    """

    model_dtype: str | None = None
    dtype_place: str = "config.json"
    model_type: str | None = None
    hidden_size: int | None = None
    world_size: int | None = None
    lora: int | None = None
    checkpointing: bool = False
    without: tuple[str, ...] = ()
    releases: Mapping[str, str] = field(default_factory=dict)

    @property
    def processes(self) -> int:
        """Return the number of processes, 1 if it was not given."""
        return 1 if self.world_size is None else self.world_size


def check_keys(configuration: Configuration) -> None:
    """Raise UnmodelledSetting, naming every one, for keys and values that the framework rejects and for keys that are not modelled."""
    name = configuration.variant.name
    refused = {
        unknown.key: unknown.sentence(configuration.format, name).removeprefix(f"{unknown.key}: ")
        for unknown in configuration.unknown
        if unknown.effect == "raises"
    }
    refused |= {key: reason.removeprefix(f"{key}: ") for key, reason in configuration.rejected.items()}
    refused |= {key: reason for key, reason in configuration.of("memory", Refused).items() if key not in refused}
    if refused:
        _refuse(configuration, refused)


def check_modelled(configuration: Configuration, modelled: frozenset[str]) -> None:
    """Raise UnmodelledSetting if the file, or its framework, sets something that is not among the settings `modelled`."""
    normal = configuration.normal
    left = [name for name in normal.values if name not in modelled and name not in IDLE and not normal.is_neutral(name)]
    shown = {name: f" ({normal.values[name]})" if FIELDS[name].kind == "text" else "" for name in left}
    refused = {key: f"{FIELDS[name].about}{shown[name]} is not modelled" for name in left if (key := normal.key(name)) is not None}
    implied = [name for name in left if normal.key(name) is None]
    if implied:  # no key of the file: what its framework's class does, so that --without cannot leave it out
        what = ", ".join(f"{FIELDS[name].about} ({normal.values[name]})" for name in implied)
        where = f" of {configuration.variant.name}" if configuration.variant.name else ""
        refused[""] = f"{what}{where} is not modelled"
    if refused:
        _refuse(configuration, refused)


def _refuse(configuration: Configuration, refused: dict[str, str]) -> None:
    inputs = inputs_of(configuration)
    keys = "; ".join(f"{key}: {reason}" if key else reason for key, reason in refused.items())
    options = "" if "" in refused else " ".join(f"--without {key}" for key in refused)
    advice = f". {options} answers as if the file did not set {'it' if len(refused) == 1 else 'them'}" if options else ""
    raise UnmodelledSetting(f"{configuration.path}: {keys}{advice}", inputs)


def inputs_of(configuration: Configuration) -> Inputs:
    """Return what is done with each key of a file: used, ignored with the reason, or not known to its framework."""
    ignored = configuration.of("memory", Ignored)
    ignored |= {
        unknown.key: f"{unknown.sentence(configuration.format, '').removeprefix(f'{unknown.key}: ')}, and ignores it"
        for unknown in configuration.unknown
        if unknown.effect == "ignores"
    }
    ignored |= dict.fromkeys(configuration.without, "--without: answered as if the file did not set it")
    return Inputs(used=configuration.of("memory", Uses), ignored=ignored, assumed=configuration.assumed())


def joined(several: Iterable[Inputs]) -> Inputs:
    """Return the inputs of several files as one."""
    used: dict[str, Any] = {}
    ignored: dict[str, str] = {}
    assumed: dict[str, Any] = {}
    for inputs in several:
        used |= inputs.used
        ignored |= inputs.ignored
        assumed |= inputs.assumed
    return Inputs(used=used, ignored=ignored, assumed=assumed)

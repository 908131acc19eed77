"""The one table of what a file can be: what its bytes hold, what its content looks like, and which job's rules fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from llmdoctor.configs.linked import Neighbours
from llmdoctor.core.finding import Finding
from llmdoctor.files.jsonfile import JsonFile


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file. `marks`: without one of them among its bytes the file is not parsed. `looks` and `judge` name functions, so that a job is
    imported where one of its marks is seen: looks(value) says whether it is one, judge(file, neighbours) returns the findings. `names_others`:
    it is judged after the files that it may name are read.
    """

    name: str
    endings: tuple[str, ...]
    marks: tuple[bytes, ...]
    looks: str
    judge: str
    names_others: bool = False

    @property
    def strict(self) -> bool:
        """Whether its marks are such that a file with one of them, which cannot be read, is a broken one of this kind."""
        return self.name != "request"

    def is_it(self, value: Any) -> bool:
        """Whether a file's content is of this kind."""
        return bool(_function(self.looks)(value))

    def findings(self, file: JsonFile, neighbours: Neighbours) -> tuple[Finding, ...]:
        """What the job finds in it."""
        found: tuple[Finding, ...] = _function(self.judge)(file, neighbours)
        return found


DEEPSPEED = "DeepSpeed config"
_YAML, _JSON = (".yaml", ".yml"), (".json",)
KINDS = (  # the first that fits: DeepSpeed's settings may stand among the Trainer's, never the other way round
    Kind(
        "accelerate config", (*_YAML, *_JSON), (b"distributed_type",),
        "configs.recognise:is_accelerate", "mem.config_rules.trainer:check_accelerate",
    ),
    Kind(
        "training arguments", (*_YAML, *_JSON), (b"per_device_train_batch_size", b"output_dir", b"base_model"),
        "configs.recognise:is_training", "mem.config_rules.trainer:check_training", names_others=True,
    ),
    Kind(
        DEEPSPEED, _JSON, (b"zero_optimization", b"train_micro_batch_size_per_gpu", b"train_batch_size"),
        "configs.recognise:is_deepspeed", "mem.config_rules.deepspeed:check_deepspeed",
    ),
    Kind(
        "request", _JSON, (b'"messages"', b'"prompt"', b'"input"', b'"body"'),
        "requests.requests:is_request", "check.requests:check_file",
    ),
)  # fmt: skip


def candidates(ending: str, data: bytes) -> list[Kind]:
    """The kinds that a file of this ending with these bytes can be: none is the usual answer, and then it is not parsed."""
    return [kind for kind in KINDS if ending in kind.endings and any(mark in data for mark in kind.marks)]


def kind_of(value: Any) -> str | None:
    """The name of the kind that a file's content is of; None where it is none that is checked."""
    return next((kind.name for kind in KINDS if kind.is_it(value)), None)


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"llmdoctor.{module}"), function)
    return found

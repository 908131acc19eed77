"""The kinds of files that `check` judges: what their bytes contain, how their content is recognised, and which rules apply.

The functions of a kind import its job when they are called, so that a tree without such files does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmdoctor.configs.linked import LinkedFiles
from llmdoctor.configs.recognise import is_accelerate, is_deepspeed, is_training
from llmdoctor.core.finding import Finding
from llmdoctor.files.jsonfile import JsonFile

Findings = tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file.

    `marks`: a file without one of them among its bytes is not parsed. `recognise` returns whether the value of a file is of this kind,
    `judge` its findings. A kind that `names_others` is judged after the files that it may name have been read; one that
    `teaches` names a dataset and a tokenizer, whose training targets are checked too. If a file with a mark of a
    `strict` kind cannot be parsed, it is a broken file of that kind; for other kinds it is skipped.
    """

    name: str
    endings: tuple[str, ...]
    marks: tuple[bytes, ...]
    recognise: Callable[[Any], bool]
    judge: Callable[[JsonFile, LinkedFiles], Findings]
    names_others: bool = False
    teaches: bool = False
    strict: bool = True


def _is_request(value: Any) -> bool:
    from llmdoctor.requests.request_files import is_request

    return is_request(value)


def _accelerate(file: JsonFile, linked: LinkedFiles) -> Findings:
    from llmdoctor.mem.config_rules.trainer import check_accelerate

    return check_accelerate(file, linked)


def _training(file: JsonFile, linked: LinkedFiles) -> Findings:
    from llmdoctor.mem.config_rules.trainer import check_training

    return check_training(file, linked)


def _deepspeed(file: JsonFile, linked: LinkedFiles) -> Findings:
    from llmdoctor.mem.config_rules.deepspeed import check_deepspeed

    return check_deepspeed(file, linked)


def _request(file: JsonFile, linked: LinkedFiles) -> Findings:
    from llmdoctor.check.requests import check_file

    return check_file(file, linked)


DEEPSPEED = "DeepSpeed config"
_BOTH, _JSON = (".yaml", ".yml", ".json"), (".json",)
# A file of every training format has one of these; tests/configs/test_reading.py holds an example of each format against them.
_ARGUMENTS = tuple(
    b"per_device_train_batch_size output_dir base_model model_name_or_path finetuning_type cutoff_len lora_rank target_modules tuner_type "
    b"train_type sft_type rlhf_type attn_impl _component_".split()
)
_SHARDING = (b"zero_optimization", b"train_micro_batch_size_per_gpu", b"train_batch_size")
_PROMPTS = (b'"messages"', b'"prompt"', b'"input"', b'"body"')
KINDS = (  # the first that fits: a Trainer's file may contain DeepSpeed's settings, never the other way round
    FileKind("accelerate config", _BOTH, (b"distributed_type",), is_accelerate, _accelerate),
    FileKind("training arguments", _BOTH, _ARGUMENTS, is_training, _training, names_others=True, teaches=True),
    FileKind(DEEPSPEED, _JSON, _SHARDING, is_deepspeed, _deepspeed),
    FileKind("request", _JSON, _PROMPTS, _is_request, _request, strict=False),
)


def candidates(ending: str, data: bytes) -> list[FileKind]:
    """Return the kinds that a file with this ending and these bytes can be: usually none, and then it is not parsed."""
    return [kind for kind in KINDS if ending in kind.endings and any(mark in data for mark in kind.marks)]


def kind_of(value: Any) -> str | None:
    """Return the name of the kind of a file by its content; None if that kind is not checked."""
    return next((kind.name for kind in KINDS if kind.recognise(value)), None)

"""What a training configuration teaches, if the repository also holds its dataset and its tokenizer: the LAB rules over the first rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from llmdoctor.configs.recognise import recognise
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding
from llmdoctor.core.report import Skipped
from llmdoctor.files.jsonfile import JsonFile

ROWS = 1000  # dataset rows that a check reads; `labels audit` reads all
_ENDINGS = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True, slots=True)
class Taught:
    """A configuration whose data and tokenizer are local: the trainer that reads it, and the two paths."""

    trainer: str
    model: str
    data: str


def taught_findings(file: JsonFile) -> tuple[tuple[Finding, ...], Skipped | None]:
    """Return the LAB findings of a configuration, and what could not be looked at; neither if its data or tokenizer are not in the repository."""
    found = _linked(file)
    if found is None:
        return (), None
    what = f"what {file.shown_name} teaches with {found.data}"
    if find_spec("tokenizers") is None:
        return (), Skipped(what, "the tokenizers package is not installed")
    from llmdoctor.labels.audit import audit_report
    from llmdoctor.labels.options import LabelsOptions

    try:
        options = LabelsOptions(model=found.model, data=found.data, trainer=found.trainer, config=file.path, rows=ROWS)
        return audit_report(options).findings, None
    except QuestionError as error:
        return (), Skipped(what, str(error))


def _linked(file: JsonFile) -> Taught | None:
    value = file.value
    if not isinstance(value, Mapping):
        return None
    form = recognise(value)
    reader = None if form is None else _READERS.get(form.name)
    if reader is None:
        return None
    trainer, model, data = reader(value)
    places = (_local(file, model), _local(file, data))
    if places[0] is None or places[1] is None or not os.path.isfile(f"{places[0]}/tokenizer.json") or not places[1].endswith(_ENDINGS):
        return None
    return Taught(trainer, places[0], places[1])


def _local(file: JsonFile, name: Any) -> str | None:
    """Return a path that the file names, seen from its folder or from the working directory; None if nothing is there."""
    if not isinstance(name, str) or not name:
        return None
    places = (os.path.join(os.path.dirname(file.path), name), name)
    return next((os.path.relpath(place) for place in places if os.path.exists(place)), None)


def _axolotl(value: Mapping[str, Any]) -> tuple[str, Any, Any]:
    datasets = value.get("datasets")
    one = datasets[0] if isinstance(datasets, list) and len(datasets) == 1 and isinstance(datasets[0], Mapping) else {}
    return "axolotl", value.get("tokenizer_config") or value.get("base_model"), one.get("path")


def _trl(value: Mapping[str, Any]) -> tuple[str, Any, Any]:
    trainer = "trl-dpo" if {"beta", "loss_type", "precompute_ref_log_probs"} & value.keys() else "trl-sft"
    return trainer, value.get("model_name_or_path"), value.get("dataset_name")


_READERS = {"axolotl": _axolotl, "trl": _trl}

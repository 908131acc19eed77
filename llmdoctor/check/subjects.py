"""Each thing that was found goes to the job whose rules fit: opened once, parsed once, or skipped with a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from llmdoctor.check.inventory import Inventory
from llmdoctor.check.kinds import DEEPSPEED, KINDS, FileKind, candidates
from llmdoctor.configs.linked import Neighbours
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding
from llmdoctor.core.report import Skipped
from llmdoctor.files.jsonfile import JsonFile, parse
from llmdoctor.files.opening import Refusal, read_bytes, shown_path
from llmdoctor.files.project import ProjectSettings
from llmdoctor.files.yamlfile import YAML_LIMIT, parse_yaml
from llmdoctor.modeldir.directory import ModelDir, read_model_dir
from llmdoctor.requests.request_files import read_batch

SCRIPT_LIMIT = 2**18
_LATER = 2000  # JSON files that wait for the files they name; one more reads them itself
JSON_LIMIT = 2**20  # bytes; the largest DeepSpeed config, request or argument file seen has a tenth


@dataclass(slots=True)
class Subject:
    """One thing that was checked; `more` is what else its job says of it in a report."""

    path: str
    kind: str
    findings: tuple[Finding, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)


class Checker:
    """Goes through what was found. `skipped` fills while the subjects are taken."""

    def __init__(self, found: Inventory, settings: ProjectSettings) -> None:
        self.found, self.neighbours = found, Neighbours(settings)
        self.skipped: list[Skipped] = []
        self._autos: list[
            tuple[Subject, JsonFile]
        ] = []  # DeepSpeed configs with "auto" in them: whether somebody fills it in is told later
        self._no_models: list[Subject] = []  # config.json files of something else that is checked
        self._later: list[tuple[FileKind, JsonFile]] = []

    def subjects(self) -> list[Subject]:
        """Everything but code, in the order of the walk within each kind."""
        models = [*self._models()]
        subjects = [*models, *self._no_models, *self._texts(), *self._pickles()]
        return [*subjects, *(Subject(file.path, kind.name, kind.judge(file, self.neighbours)) for kind, file in self._later)]

    # --- model directories

    def _models(self) -> Iterator[Subject]:
        directories = self._directories()
        first = next(directories, None)
        if first is None:
            return
        from llmdoctor.gencfg.check import check_directory
        from llmdoctor.modeldir.template import TemplateWorker
        from llmdoctor.sample.file_findings import hidden_defaults

        with TemplateWorker() as worker:
            worker.start()
            for directory in chain((first,), directories):  # one after the other: what one has read is let go of
                checked = check_directory(directory, worker, self.neighbours.settings.transformers)
                config = directory.json("generation_config.json")
                if config is not None:
                    self.neighbours.keep(config)
                yield Subject(directory.shown_name, checked.kind, (*checked.findings, *hidden_defaults(directory)), checked.more)

    def _directories(self) -> Iterator[ModelDir]:
        yield from filter(None, map(self._directory, self.found.models))
        for path in self.found.maybe:
            directory = self._directory(path)
            if directory is not None and self._is_model(directory):
                yield directory

    def _directory(self, path: str) -> ModelDir | None:
        try:
            return read_model_dir(path)
        except QuestionError as error:
            self.skipped.append(Skipped(path, str(error).removeprefix(f"{path}: ")))
            return None

    def _is_model(self, directory: ModelDir) -> bool:
        """Whether a folder with a config.json and nothing else of a model is a model's: many programs have a config.json."""
        config = directory.json("config.json")
        if config is None:
            return False
        if isinstance(config.value, dict) and ("model_type" in config.value or "architectures" in config.value):
            return True
        self._no_models += self._judged(config, [kind for kind in KINDS if ".json" in kind.endings])
        return False

    # --- JSON, JSON Lines, YAML

    def _texts(self) -> Iterator[Subject]:
        for path in sorted(self.found.texts, key=lambda path: not path.endswith(".json")):  # what others name comes first
            ending = os.path.splitext(path)[1]
            if ending == ".jsonl":
                yield from self._batch(path)
                continue
            data = read_bytes(path, JSON_LIMIT if ending == ".json" else YAML_LIMIT)
            if isinstance(data, Refusal):
                self.skipped.append(Skipped(path, data.reason))
            kinds = candidates(ending, data) if isinstance(data, bytes) else []
            if kinds and isinstance(data, bytes):
                read = parse if ending == ".json" else parse_yaml
                yield from self._judged(read(data, path, shown_path(path)), kinds)

    def _judged(self, file: JsonFile, kinds: list[FileKind]) -> list[Subject]:
        """The subject that a file is, if it is one of `kinds` and is not held against others, which comes later."""
        if file.value is None and kinds[0].strict and file.path.endswith(".json"):
            return [Subject(file.path, kinds[0].name, file.problems)]  # its library reads it with json.load too
        if file.value is None:
            reason = next((problem.message for problem in file.problems), "holds nothing")
            self.skipped.append(Skipped(file.path, reason.removeprefix(f"{file.shown_name}: ").removeprefix(f"{file.shown_name} ")))
            return []
        kind = next((kind for kind in kinds if kind.recognise(file.value)), None)
        if kind is None:
            return []
        if kind.names_others and file.path.endswith(".json") and len(self._later) < _LATER:
            self._later.append((kind, file))
            return []
        self.neighbours.keep(file)
        subject = Subject(file.path, kind.name, kind.judge(file, self.neighbours))
        if kind.name == DEEPSPEED and '"auto"' in file.text:
            self._autos.append((subject, file))
        return [subject]

    def add_launched(self, configs: Mapping[str, str]) -> None:
        """Add what is wrong with an "auto" in the configs that are handed to DeepSpeed itself: `configs` by code, and those that scripts name."""
        if not self._autos:
            return
        from llmdoctor.mem.config_rules.launches import read_by_deepspeed, unfilled

        named = dict(configs)
        for path in self.found.scripts:
            data = read_bytes(path, SCRIPT_LIMIT)
            if isinstance(data, bytes) and b"deepspeed" in data:
                named.update(dict.fromkeys(read_by_deepspeed(data), path))
        for subject, file in self._autos:
            by = named.get(os.path.basename(file.path))
            if by is not None:
                subject.findings = (*subject.findings, *unfilled(file, by))

    def _batch(self, path: str) -> Iterator[Subject]:
        requests = read_batch(path)
        if isinstance(requests, str):
            self.skipped.append(Skipped(path, requests))
        elif requests is not None:
            from llmdoctor.check.requests import check_requests

            yield Subject(path, "batch of requests", check_requests(requests, self.neighbours))

    # --- pickles

    def _pickles(self) -> Iterator[Subject]:
        for path in self.found.pickles:
            from llmdoctor.files.pickles import PICKLE_LIMIT, parse_pickle
            from llmdoctor.mem.config_rules.trainer import check_pickled

            data = read_bytes(path, PICKLE_LIMIT)
            if data is None or isinstance(data, Refusal):
                self.skipped.append(Skipped(path, "not there any more" if data is None else data.reason))
                continue
            try:
                checked = check_pickled(parse_pickle(data), path, shown_path(path), self.neighbours)
            except ValueError as error:
                self.skipped.append(Skipped(path, f"a pickle that is not read: {error}"))
                continue
            if checked is None:
                self.skipped.append(Skipped(path, "a pickle of something else than TrainingArguments"))
            else:
                yield Subject(path, "training arguments", checked)

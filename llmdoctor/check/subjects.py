"""Gives each thing that was found to the job whose rules apply: opened once, parsed once, or skipped with a reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from llmdoctor.check.inventory import Inventory
from llmdoctor.check.isolation import isolated
from llmdoctor.check.kinds import DEEPSPEED, KINDS, FileKind, candidates
from llmdoctor.configs.deepspeed_releases import deepspeed_for
from llmdoctor.configs.linked import LinkedFiles
from llmdoctor.configs.versions import LibraryVersion
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding
from llmdoctor.core.report import Skipped
from llmdoctor.files.jsonfile import JsonFile, parse
from llmdoctor.files.opening import Refusal, read_bytes, shown_path
from llmdoctor.files.project import ProjectSettings
from llmdoctor.files.yamlfile import YAML_LIMIT, parse_yaml
from llmdoctor.modeldir.directory import ModelDir, read_model_dir
from llmdoctor.modeldir.generating import names_a_model
from llmdoctor.requests.request_files import read_batch

if TYPE_CHECKING:
    from llmdoctor.modeldir.template import TemplateWorker

SCRIPT_LIMIT = 2**18  # bytes of a shell script
JSON_LIMIT = 2**20  # bytes; the largest DeepSpeed config, request or argument file seen has a tenth
_LATER = 2000  # JSON files that wait until the files that they name are read; further ones read these themselves


@dataclass(slots=True)
class Subject:
    """One thing that was checked; `more` are further keys of it in the report, `versions` the releases that its findings are for."""

    path: str
    kind: str
    findings: tuple[Finding, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)
    versions: tuple[LibraryVersion, ...] = ()


class Checker:
    """Checks what was found. `skipped` fills while the subjects are checked."""

    def __init__(self, found: Inventory, settings: ProjectSettings) -> None:
        self.found, self.linked = found, LinkedFiles(settings)
        self.skipped: list[Skipped] = []
        self._autos: list[tuple[Subject, JsonFile]] = []  # DeepSpeed configs with "auto", which a Trainer fills in and DeepSpeed does not
        self._not_models: list[Subject] = []  # config.json files that turned out to be another kind of file
        self._later: list[tuple[FileKind, JsonFile]] = []

    def subjects(self) -> list[Subject]:
        """Return everything but code, in the order of the walk within each kind."""
        subjects = [*self._models()]
        subjects += [*self._not_models, *self._texts(), *self._pickles()]
        for kind, file in self._later:
            subjects += self._isolated(file.path, partial(self._judge, kind, file))
        return subjects

    def _isolated(self, path: str, judge: Callable[[], Subject]) -> Iterator[Subject]:
        """Yield the subject that `judge` returns; if it fails, note why `path` was skipped."""
        checked = isolated(path, judge)
        if isinstance(checked, Skipped):
            self.skipped.append(checked)
        else:
            yield checked

    # --- model directories

    def _models(self) -> Iterator[Subject]:
        directories = self._directories()
        first = next(directories, None)
        if first is None:
            return
        from llmdoctor.modeldir.template import TemplateWorker

        with TemplateWorker() as worker:
            worker.start()
            for directory in chain((first,), directories):  # one after the other, so that the content of each is released
                yield from self._isolated(directory.shown_name, partial(self._model, directory, worker))

    def _model(self, directory: ModelDir, worker: TemplateWorker) -> Subject:
        from llmdoctor.gencfg.check import check_directory
        from llmdoctor.sample.file_findings import file_defaults

        checked = check_directory(directory, worker, self.linked.settings.transformers)
        config = directory.json("generation_config.json")
        if config is not None:
            self.linked.keep(config)
        findings = (*checked.findings, *file_defaults(directory))
        return Subject(directory.shown_name, checked.kind, findings, checked.more, tuple(checked.versions.values()))

    def _directories(self) -> Iterator[ModelDir]:
        yield from filter(None, map(self._directory, self.found.models))
        for path in self.found.maybe:
            directory = self._directory(path)
            if directory is not None and self._is_model(directory):
                yield directory

    def _directory(self, path: str) -> ModelDir | None:
        directory = isolated(path, partial(read_model_dir, path))
        if isinstance(directory, Skipped):
            self.skipped.append(directory)
            return None
        return directory

    def _is_model(self, directory: ModelDir) -> bool:
        """Return whether a folder with a config.json and no other file of a model is a model directory."""
        config = directory.json("config.json")
        if config is None:
            return False
        if names_a_model(config.value):
            return True
        self._not_models += self._sorted(config, [kind for kind in KINDS if ".json" in kind.endings])
        return False

    # --- JSON, JSON Lines, YAML

    def _texts(self) -> Iterator[Subject]:
        for path in sorted(self.found.texts, key=lambda path: not path.endswith(".json")):  # first the files that others name
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
                file = isolated(path, partial(read, data, path, shown_path(path)))
                if isinstance(file, Skipped):
                    self.skipped.append(file)
                else:
                    yield from self._sorted(file, kinds)

    def _sorted(self, file: JsonFile, kinds: list[FileKind]) -> Iterator[Subject]:
        """Yield the subject that a file is, if it is one of `kinds`; a file that names others is kept for later."""
        if file.value is None and kinds[0].strict and file.path.endswith(".json"):
            yield Subject(file.path, kinds[0].name, file.problems)  # its library uses json.load too
            return
        if file.value is None:
            reason = next((problem.message for problem in file.problems), "is empty")
            self.skipped.append(Skipped(file.path, reason.removeprefix(f"{file.shown_name}: ").removeprefix(f"{file.shown_name} ")))
            return
        kind = next((kind for kind in kinds if kind.recognise(file.value)), None)
        if kind is None:
            return
        if kind.names_others and file.path.endswith(".json") and len(self._later) < _LATER:
            self._later.append((kind, file))
            return
        self.linked.keep(file)
        yield from self._isolated(file.path, partial(self._judge, kind, file))

    def _judge(self, kind: FileKind, file: JsonFile) -> Subject:
        versions = (deepspeed_for(file.path),) if kind.name == DEEPSPEED else ()
        subject = Subject(file.path, kind.name, (*kind.judge(file, self.linked), *self._taught(kind, file)), versions=versions)
        if kind.name == DEEPSPEED and '"auto"' in file.text:
            self._autos.append((subject, file))
        return subject

    def _taught(self, kind: FileKind, file: JsonFile) -> tuple[Finding, ...]:
        """Return what a training configuration teaches with a dataset and a tokenizer of the same repository."""
        if not kind.teaches:
            return ()
        from llmdoctor.check.taught import taught_findings

        findings, skipped = taught_findings(file)
        self.skipped += [] if skipped is None else [skipped]
        return findings

    def add_launched(self, configs: Mapping[str, str]) -> None:
        """Add the findings about "auto" in configs that are passed to DeepSpeed itself: `configs` by code, and those that scripts name."""
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
        requests = isolated(path, partial(read_batch, path))
        if isinstance(requests, Skipped | str):
            self.skipped.append(requests if isinstance(requests, Skipped) else Skipped(path, requests))
        elif requests is not None:
            from llmdoctor.check.requests import check_requests

            yield from self._isolated(path, lambda: Subject(path, "batch of requests", check_requests(requests, self.linked)))

    # --- pickles

    def _pickles(self) -> Iterator[Subject]:
        for path in self.found.pickles:
            yield from self._isolated(path, partial(self._pickle, path))

    def _pickle(self, path: str) -> Subject:
        """Return the findings in a pickle of TrainingArguments. Raises QuestionError with the reason for any other file."""
        from llmdoctor.files.pickles import PICKLE_LIMIT, parse_pickle
        from llmdoctor.mem.config_rules.trainer import check_pickled

        data = read_bytes(path, PICKLE_LIMIT)
        if data is None or isinstance(data, Refusal):
            raise QuestionError("the file does not exist any more" if data is None else data.reason)
        try:
            checked = check_pickled(parse_pickle(data), path, shown_path(path), self.linked)
        except ValueError as error:
            raise QuestionError(f"a pickle that is not read: {error}") from None
        if checked is None:
            raise QuestionError("a pickle of another class than TrainingArguments")
        return Subject(path, "training arguments", checked)

"""A model directory with everything that the GEN rules look at: its plain call under each engine, and what ends an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmdoctor.configs.versions import LibraryVersion
from llmdoctor.files.jsonfile import JsonFile
from llmdoctor.gencfg.calls import default_version, facts_of, model_call, refuse_modelless, without_keys
from llmdoctor.gencfg.engines.table import REFERENCE, engines, version_for
from llmdoctor.gencfg.engines.types import GenerationEngine
from llmdoctor.gencfg.modelconfig import vocabulary_in
from llmdoctor.gencfg.options import GencfgOptions
from llmdoctor.gencfg.stop_ids import StopIds
from llmdoctor.gencfg.terminator import Terminator
from llmdoctor.gencfg.turns import terminator_of
from llmdoctor.gencfg.types import Effective, Resolution
from llmdoctor.modeldir.directory import ModelDir, read_model_dir
from llmdoctor.modeldir.template import TemplateWorker


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Examined:
    """A directory, its plain generate() (`answer`), the same call under every other engine by name, and the token that ends a turn."""

    directory: ModelDir
    answer: Resolution
    elsewhere: Mapping[str, Effective]
    terminator: Terminator | None
    versions: Mapping[str, LibraryVersion]  # of the other engines

    @property
    def eos(self) -> tuple[int, ...]:
        """The ids at which transformers stops."""
        return self.answer.effective.stop.eos_token_id

    @property
    def runs(self) -> bool:
        """Whether the plain call runs without an exception."""
        return self.answer.effective.error is None

    @property
    def vocab_size(self) -> int | None:
        """vocab_size of config.json, of the language model nested in it, or of an adapter's own embedding; None if no file gives it."""
        return vocabulary_in({name: setting.value for name, setting in (self.answer.call.config or {}).items()})

    @property
    def stop_ids(self) -> StopIds:
        """The ids that end a sequence, as the files give them."""
        return StopIds(self.directory.tokenizer, self.terminator, self.vocab_size)

    @property
    def file(self) -> JsonFile | None:
        """The file whose eos_token_id counts: generation_config.json, else config.json."""
        return self.directory.generation_config or self.directory.config

    @property
    def by_engine(self) -> dict[str, Effective]:
        """The plain call under each engine, transformers first."""
        return {REFERENCE: self.answer.effective, **self.elsewhere}

    @property
    def named_ends(self) -> tuple[int, ...]:
        """The ids at which the engines stop because the model's files name them, those of transformers first, each once."""
        table = engines()
        named = (effective for name, effective in self.by_engine.items() if not table[name].has_own_ends)
        return tuple(dict.fromkeys(token for effective in named for token in effective.stop.eos_token_id))

    def stopping_at(self, token: int) -> list[GenerationEngine]:
        """Return the other engines that stop at `token` with the files as they are."""
        table = engines()
        return [table[name] for name, effective in self.elsewhere.items() if token in effective.stop.eos_token_id]


def examine(name: str, version: str | None = None) -> Examined:
    """Return what a plain generate() of one model decodes with, and what ends an answer, as `gencfg check` judges it.

    Raises QuestionError if there is no model to call.
    """
    directory = read_model_dir(name)
    refuse_modelless(directory)
    with TemplateWorker() as worker:
        worker.start()
        terminator, _ = terminator_of(directory, worker)
    return examine_directory(directory, terminator, version or default_version(name), lines=True)


def examine_directory(
    directory: ModelDir, terminator: Terminator | None, version: str, *, lines: bool, without: tuple[str, ...] = ()
) -> Examined:
    """Return the plain call of `directory` under `version` of transformers and under the other engines; with `lines`, values know their lines."""
    call = without_keys(model_call(directory, lines=lines), without)
    facts, table = facts_of(directory), engines()
    options = GencfgOptions(model=directory.shown_name, transformers=version)
    effective = table[REFERENCE].resolve(call, facts, version)
    others = [engine for engine in table.values() if engine.reads_directories and not engine.keeps_assignments]
    versions = {engine.name: version_for(engine, None, directory.path).chosen for engine in others}
    elsewhere = {engine.name: engine.resolve(call, facts, versions[engine.name].version) for engine in others}
    answer = Resolution(options, directory.tokenizer, call, effective, terminator=terminator)
    return Examined(directory, answer, elsewhere, terminator, versions)

"""The engines that --engine takes, and the version of an engine that an answer is for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module

from llmdoctor.configs.versions import LibraryVersion, version_of
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.release import release
from llmdoctor.gencfg.engines import MODULES
from llmdoctor.gencfg.engines.types import GenerationEngine

REFERENCE = "transformers"  # the engine of a call for which no other is named


@dataclass(frozen=True, slots=True)
class EngineVersion:
    """The version of an engine that an answer is for, and how it was `chosen`.

    `limit` is a clause on why the answer may not hold for the engine here; None if the version is installed and known.
    """

    engine: GenerationEngine
    chosen: LibraryVersion
    limit: str | None

    @property
    def version(self) -> str:
        """The version that the answer is for."""
        return self.chosen.version


@cache
def engines() -> dict[str, GenerationEngine]:
    """Return every engine by its name."""
    return {name: import_module(f"llmdoctor.gencfg.engines.{module}").ENGINE for name, module in MODULES.items()}


def engine_named(text: str | None) -> tuple[GenerationEngine, str | None]:
    """Return the engine that "vllm" or "vllm@0.33.0" names, and the version after "@"; without a name transformers.

    Raises QuestionError for an unknown engine and for "@" without a version.
    """
    name, at, version = (text or REFERENCE).partition("@")
    found = engines().get(name)
    if found is None:
        raise QuestionError(f"--engine {name}: unknown engine, expected one of {', '.join(engines())}")
    if at and not version:
        raise QuestionError(f"--engine {name}@: a version is missing after @, such as {name}@{found.known[-1]}")
    return found, version or None


def version_for(engine: GenerationEngine, requested: str | None, near: str | None = None) -> EngineVersion:
    """Return the version that an answer about the file or folder `near` is for: `requested` by the user, else pinned, installed or the newest."""
    chosen = version_of(engine.name, named=requested, near=near, known=engine.known, distribution=engine.distribution, title=engine.title)
    if chosen.basis == "pinned" and engine.keeps_assignments and release(chosen.version) < release(engine.known[0]):
        raise QuestionError(
            f"{engine.title} {chosen.version}, which {chosen.place} pins: rules are known from {engine.known[0]} to {engine.known[-1]} only; "
            f"--{engine.name} {engine.known[0]} answers for the oldest of them"
        )
    clauses = (chosen.pinned, *chosen.doubts, None if chosen.doubts and not chosen.conflict else _limit(engine, chosen))
    return EngineVersion(engine, chosen, "; ".join(clause for clause in clauses if clause is not None) or None)


def _limit(engine: GenerationEngine, chosen: LibraryVersion) -> str | None:
    title, version, rules = engine.title, chosen.version, rules_version(engine, chosen.version)
    if not engine.keeps_assignments and release(version) != release(rules):
        return f"by the rules of {title} {rules}, the nearest version known here to {version}"
    if engine.evidence == "read":
        return f"by what was read in the sources of {title} {rules}, which was not run"
    if chosen.basis == "pinned" or chosen.installed == version:
        return None
    if engine.distribution is None:
        return None if chosen.basis == "named" else f"by the rules of {title} {rules}, the newest version known here"
    if chosen.basis == "newest":
        return f"for {title} {version}, the newest version known here, because none is installed"
    return f"for {title} {version}, which is not installed here"


def rules_version(engine: GenerationEngine, version: str) -> str:
    """Return the known version whose rules apply to `version`: the newest one that is not newer, else the oldest."""
    return next((known for known in reversed(engine.known) if release(known) <= release(version)), engine.known[0])

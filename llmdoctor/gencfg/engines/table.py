"""The engines that --engine takes, and the version of an engine that an answer is for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.installed import installed_version
from llmdoctor.core.release import release
from llmdoctor.gencfg.engines import MODULES
from llmdoctor.gencfg.engines.types import GenerationEngine

REFERENCE = "transformers"  # the engine of a call for which no other is named


@dataclass(frozen=True, slots=True)
class EngineVersion:
    """The version that an answer is for: `requested` by the user, else the installed one, else the newest known.

    `limit` is a clause on why the answer may not hold for the engine here; None if the version is installed and known.
    """

    engine: GenerationEngine
    version: str
    installed: str | None
    limit: str | None


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


def version_for(engine: GenerationEngine, requested: str | None) -> EngineVersion:
    """Return the version that an answer is for, and what limits it."""
    installed = None if engine.distribution is None else installed_version(engine.distribution)
    version = requested or installed or engine.known[-1]
    return EngineVersion(engine, version, installed, _limit(engine, version, requested, installed))


def _limit(engine: GenerationEngine, version: str, requested: str | None, installed: str | None) -> str | None:
    title, rules = engine.title, rules_version(engine, version)
    if release(version) > release(engine.known[-1]):
        return f"{title} {version} is newer than every version known here: the rules of {rules} were applied"
    if release(version) < release(engine.known[0]):
        return f"{title} {version} is older than every version known here: the rules of {rules} were applied"
    if not engine.keeps_assignments and release(version) != release(rules):
        return f"by the rules of {title} {rules}, the nearest version known here to {version}"
    if engine.evidence == "read":
        return f"by what was read in the sources of {title} {rules}, which was not run"
    if engine.distribution is None:
        return None if requested else f"by the rules of {title} {rules}, the newest version known here"
    if installed == version:
        return None
    if installed is None and requested is None:
        return f"for {title} {version}, the newest version known here, because none is installed"
    return f"for {title} {version}, which is not installed here"


def rules_version(engine: GenerationEngine, version: str) -> str:
    """Return the known version whose rules apply to `version`: the newest one that is not newer, else the oldest."""
    return next((known for known in reversed(engine.known) if release(known) <= release(version)), engine.known[0])

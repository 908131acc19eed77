"""One directory or file that `gencfg check` looked at, with what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llmdoctor.configs.versions import LibraryVersion
from llmdoctor.core.finding import Finding
from llmdoctor.gencfg.inputs import inputs_of
from llmdoctor.gencfg.terminator import Terminator
from llmdoctor.gencfg.types import Effective, Resolution

if TYPE_CHECKING:
    from llmdoctor.gencfg.results import EngineVerdictResult, TerminatorResult


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CheckedModel:
    """One directory or file with its findings.

    `answer` is its plain call; None if there is none, and `no_call` is then the reason. `verdicts` are the calls under each engine by name,
    and `terminator` is what ends a turn by the chat template. `versions` are the releases that the answers are for, by engine.
    """

    name: str
    kind: str
    findings: tuple[Finding, ...]
    answer: Resolution | None = None
    no_call: str = "no config.json and no generation_config.json"
    verdicts: Mapping[str, Effective] = field(default_factory=dict)
    terminator: Terminator | None = None
    versions: Mapping[str, LibraryVersion] = field(default_factory=dict)
    summary: dict[str, Any] | None = None

    @property
    def called(self) -> bool:
        """Whether there is a model to call."""
        return self.answer is not None or self.summary is not None

    @property
    def is_file(self) -> bool:
        """Whether it is one file of an engine's own, not a directory."""
        return self.kind in ("gguf", "modelfile", "server")

    def light(self) -> CheckedModel:
        """Return what a report of many models needs of this one: without its answer, which holds a provenance for each field and engine."""
        return self if self.answer is None or self.is_file else replace(self, answer=None, verdicts={}, summary=self.more)

    @property
    def more(self) -> dict[str, Any]:
        """What its entry in a report holds beside path, kind and findings: what each engine does and the terminator, or why there is no call."""
        if self.summary is not None:
            return self.summary
        if self.answer is None:
            return {"no_call": self.no_call}
        end = self.terminator
        return {
            "verdicts": {name: _verdict(effective) for name, effective in self.verdicts.items()},
            "terminator": None if end is None else _terminator(end),
            "inputs": inputs_of(self.answer).result(),
            "versions": [version.result() for version in self.versions.values()],
        }


def _terminator(end: Terminator) -> TerminatorResult:
    return {
        "token": end.token,
        "id": end.id,
        "reason": end.reason,
        "tool": None if end.tool is None else end.tool.id,
        "inside": sorted(end.inside),
    }


def _verdict(effective: Effective) -> EngineVerdictResult:
    return {
        "version": effective.transformers,
        "eos_token_id": list(effective.stop.eos_token_id),
        "never_stops": effective.stop.never_stops,
        "error": None if effective.error is None else effective.error.type,
    }

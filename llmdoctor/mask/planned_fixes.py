"""Fixes of static findings, applied to the plan before they are printed: what a run measures for `mask test`, the plan shows here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding
from llmdoctor.mask import plan_findings
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.plan import plan
from llmdoctor.mask.remedies import Remedy, remedies
from llmdoctor.mask.types import BACKENDS, ForwardInputs

_HARM = ("MSK003", "MSK007", "MSK009", "MSK013")
_APPLIED = ("MSK007", "MSK009")  # the plan alone shows whether a change repairs these


def with_planned_fixes(arch: Architecture, inputs: ForwardInputs, found: Sequence[Finding], dtype: str) -> list[Finding]:
    """Return the findings; a leak of documents or empty slots carries the first change after which the plan shows none.

    `evidence.fix_planned` is True then, and False if no change that is known here helps in the plan; the fix says so.
    """
    return [_repaired(arch, inputs, one, dtype) if one.code in _APPLIED else one for one in found]


def _repaired(arch: Architecture, inputs: ForwardInputs, one: Finding, dtype: str) -> Finding:
    backends = tuple(name for name in one.evidence.get("backends", ()) if name in BACKENDS)
    if not backends:
        return one
    tried = []
    for remedy in remedies(inputs, backends[-1], mrope=arch.mrope):
        if _helps(arch, remedy, (remedy.backend,) if remedy.backend else backends, dtype):
            return replace(one, fix=remedy.text, evidence={**one.evidence, "fix_planned": True})
        tried.append(remedy.text)
    fix = f"none found. Tried on the plan without success: {'; '.join(tried)}"
    return replace(one, fix=fix, evidence={**one.evidence, "fix_planned": False})


def _helps(arch: Architecture, remedy: Remedy, backends: tuple[str, ...], dtype: str) -> bool:
    """Return whether the plan of the changed inputs has no leak, no empty slots and no dead rows under the backends."""
    try:
        plans = [plan(arch, remedy.inputs, backend, dtype, counted=False) for backend in backends]
    except QuestionError:
        return False
    found = (one for each in plans for one in plan_findings.of_plan(arch, remedy.inputs, each))
    return all(each.error is None for each in plans) and not any(one.code in _HARM for one in found)

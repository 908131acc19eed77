"""Static findings joined with what was measured for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmdoctor.core.finding import Finding
from llmdoctor.mask import releases, rules
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.types import SHORT

if TYPE_CHECKING:
    from llmdoctor.mask.live.differential import FailedTest, Measurement

BUILD = "the model is built"  # the test that fails if the library refuses the model
# A measured failure of the rule on the left is explained by a static finding of a rule on the right.
_EXPLAINS = {
    "MSK018": ("MSK008", "MSK012", "MSK018", "MSK005", "MSK002", "MSK003", "MSK025"),
    "MSK007": ("MSK007", "MSK013"),
    "MSK019": ("MSK004", "MSK006", "MSK019", "MSK014", "MSK012"),
    "MSK003": ("MSK003", "MSK004", "MSK025"),
    "MSK002": ("MSK002", "MSK025"),
    "MSK001": ("MSK001", "MSK005", "MSK009"),
    "MSK005": ("MSK005",),
    "MSK023": ("MSK023",),
}


def joined(static: Sequence[Finding], measurements: Sequence[Measurement], arch: Architecture | None) -> list[Finding]:
    """Return the static findings with what was measured for them; a measured failure that no static finding explains is a finding of its own.

    A packing leak that the plan expects and that gradients do not show, in every backend that it names, is left out.
    """
    failed = [one for one in measurements if not one.passed]
    leaking = {one.backend for one in failed if one.code == "MSK007"}
    apart = {one.backend for one in measurements if one.code == "MSK007" and one.passed} - leaking
    out: list[Finding] = []
    used: set[int] = set()
    for one in static:
        backends = one.evidence.get("backends")
        if one.code == "MSK007" and backends and set(backends) <= apart:
            continue
        matching = [each for each in failed if _explains(one.code, each.code) and (backends is None or each.backend in backends)]
        used |= {id(each) for each in matching}
        out.append(_with_measurement(one, matching[0]) if matching else one)
    alike: dict[tuple[str, str, int], list[Measurement]] = {}
    for each in failed:
        if id(each) not in used:
            alike.setdefault((each.code, each.name, each.row), []).append(each)
    return [*out, *(_of_measurements(same, arch) for same in alike.values())]


def _explains(static: str, measured: str) -> bool:
    return static in _EXPLAINS.get(measured, (measured,))


def _with_measurement(one: Finding, match: Measurement) -> Finding:
    """Add the measured value, and the fix that was applied and measured."""
    evidence = {**one.evidence, "measured": match.value, "threshold": match.threshold}
    message = f"{one.message}; measured {match.value:.3g}, allowed {match.threshold:g}"
    if match.tried:
        evidence["fix_measured"] = match.fix_measured
        return replace(one, message=message, evidence=evidence, fix=match.fix)
    return replace(one, message=message, evidence=evidence)


def _of_measurements(same: Sequence[Measurement], arch: Architecture | None) -> Finding:
    """Return the finding of one failure of a row under one or more backends, with the worst of what was measured."""
    one = max(same, key=lambda each: np.inf if np.isnan(each.value) else each.value / max(each.threshold, 1e-12))
    code, backends = one.code, list(dict.fromkeys(each.backend for each in same))
    if code == "MSK007" and arch is not None and any(layer.pattern is None for layer in arch.layers):
        code = "MSK013"
    rule = rules.BY_CODE[code]
    other = releases.other_release()
    cause = rule.reason
    if code == "MSK007" and other is not None:  # the reason is that of the release that the plan follows, whose plan has no such leak
        cause = f"transformers {other}, installed here, makes this mask without the documents; {releases.followed()} keeps them apart here"
    fix = one.fix if one.tried else None
    more: dict[str, Any] = {"fix_measured": one.fix_measured} if one.tried else {}
    return rule.at(
        None, f"{names(backends)}: {one.text}; measured {one.value:.3g}, allowed {one.threshold:g}", cause=cause, fix=fix, backend=one.backend,
        backends=backends, row=one.row, span=list(one.span), measured=one.value, threshold=one.threshold, test=one.name, **more,
    )  # fmt: skip


def of_exceptions(failed: Sequence[FailedTest], found: Sequence[Finding]) -> list[Finding]:
    """Return a finding for a forward() that raises over the user's own inputs, unless a static finding has the reason."""
    if any(one.code in ("MSK004", "MSK005", "MSK006", "MSK020") for one in found):
        return []
    alike: dict[str, list[str]] = {}
    for one in failed:
        if one.plainly:
            text = one.error if one.test == BUILD else f"forward() raises over these inputs: {one.error}"
            alike.setdefault(text, []).append(one.backend)
    rule = rules.BACKEND_REFUSED
    return [
        rule.at(None, f"{names(backends)}: {error}", cause=rule.reason,
                fix="inputs that forward() takes: see the error", backend=backends[0], backends=list(dict.fromkeys(backends)))
        for error, backends in alike.items()
    ]  # fmt: skip


def names(backends: Sequence[str]) -> str:
    """Return the backends by their short names."""
    return ", ".join(dict.fromkeys(SHORT.get(backend, backend) for backend in backends))


def of_refusals(missed: Sequence[tuple[str, str]], found: Sequence[Finding]) -> list[Finding]:
    """Return a finding for each backend that was asked for by name and could not be built, unless a static finding has it."""
    known = {backend for one in found if one.code == "MSK020" for backend in one.evidence.get("backends", [one.evidence.get("backend")])}
    rule = rules.BACKEND_REFUSED
    return [rule.at(None, f"{backend}: {reason}", cause=rule.reason, backend=backend) for backend, reason in missed if backend not in known]

"""What is wrong with a mask, from the inputs and the plans alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmdoctor.core.finding import Finding
from llmdoctor.mask import input_findings, label_findings, own_mask_findings, plan_findings
from llmdoctor.mask.accounting import pad_id_of
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.plan import unequal
from llmdoctor.mask.planned_fixes import with_planned_fixes
from llmdoctor.mask.types import BackendPlan, ForwardInputs

BUDGET = 8 * 2**30  # bytes of the masks of one forward, unless --budget gives another number


def examine(
    arch: Architecture,
    inputs: ForwardInputs,
    plans: Sequence[BackendPlan],
    *,
    config: Mapping[str, Any],
    budget: int = BUDGET,
    dtype: str | None = None,
) -> list[Finding]:
    """Return the findings of every static rule over one set of inputs; `dtype` is that of the activations, if it is not that of config.json."""
    found = list(input_findings.of_inputs(arch, inputs, config))
    if all(one.code != "MSK025" for one in found):  # labels of an inverted mask look wrong and are right
        found += label_findings.of_labels(arch, inputs, pad_id_of(config))
    found += own_mask_findings.of_own_mask(arch, inputs, plans, dtype or arch.dtype)
    for plan in plans:
        if not unequal(inputs):
            found += plan_findings.of_refusal(arch, plan, alone=len(plans) == 1)
        found += [*plan_findings.of_plan(arch, inputs, plan), *plan_findings.of_budget(plan, budget)]
    return with_planned_fixes(arch, inputs, _merged(found), dtype or arch.dtype)


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """Join the findings that several layers or backends have alike: "eager, full 0-1; sdpa, full 0-1: ..."."""
    alike: dict[tuple[Any, ...], list[Finding]] = {}
    for one in findings:
        where, separator, rest = one.message.partition(": ")
        joined = bool(separator) and "backend" in one.evidence
        key = (one.code, rest, one.cause, one.fix) if joined else (one.code, one.message)
        alike.setdefault(key, []).append(replace(one, message=where) if joined else one)
    out = []
    for key, same in alike.items():
        if len(key) == 2:
            out += same
            continue
        evidence = dict(same[0].evidence)
        evidence["backends"] = list(dict.fromkeys(one.evidence["backend"] for one in same))
        layers = {layer for one in same for layer in one.evidence.get("layers", ())}
        if layers:
            evidence["layers"] = sorted(layers)
        where = "; ".join(dict.fromkeys(one.message for one in same))
        out.append(replace(same[0], message=f"{where}: {key[1]}", evidence=evidence))
    return out

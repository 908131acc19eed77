"""`mask inspect module:function`: a function that builds a model, or a mask_mod of flex_attention. Both are run here."""

from __future__ import annotations

import re
from typing import Any

from llmdoctor.core.document import Block, Note
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding
from llmdoctor.core.report import Report, Verdict
from llmdoctor.mask import architectures, releases, rules, screen, verdicts
from llmdoctor.mask.accounting import account
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.drawing import pictures
from llmdoctor.mask.findings import examine
from llmdoctor.mask.forward_inputs import forward_inputs
from llmdoctor.mask.layer_results import result_of
from llmdoctor.mask.options import MaskInspectOptions
from llmdoctor.mask.types import BackendPlan, ForwardInputs, LayerMask
from llmdoctor.modeldir.directory import is_model_dir


def names_function(model: str) -> bool:
    """Return whether MODEL is `module:function`, not a directory."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", model) is not None and not is_model_dir(model)


def function_report(options: MaskInspectOptions) -> Report:
    """Return what the model of a function receives, or what a mask_mod shows, for the inputs that `options` describe.

    Raises QuestionError if there is no such function, if it cannot be called, or for an option that the function decides itself.
    """
    for name in ("backend", "weights", "dtype", "messages"):
        if getattr(options, name):
            raise QuestionError(f"--{name} with {options.model}: the function decides it, leave the option out")
    from llmdoctor.mask.live.functions import made_by

    inputs = forward_inputs(options)
    if options.query is not None and not 0 <= options.query < inputs.q_len:
        raise QuestionError(f"--query {options.query}: the queries are 0 to {inputs.q_len - 1}")
    plan, config = made_by(options.model, inputs)
    if config is None:
        _refuse_what_a_mask_mod_has_not(options)
        return _report(options, [plan], inputs, None, _of_mask_mod(plan.layers[0]))
    try:
        arch: Architecture | None = architectures.read(config)
    except QuestionError:
        arch = None
    found = [] if arch is None else examine(arch, inputs, [plan], config=config)
    return _report(options, [plan], inputs, arch, found)


def _refuse_what_a_mask_mod_has_not(options: MaskInspectOptions) -> None:
    for name in ("lengths", "packed", "image", "phase", "cache", "mask", "input_ids", "eos"):
        if getattr(options, name):
            raise QuestionError(
                f"--{name.replace('_', '-')} with {options.model}: a mask_mod is a function of indices alone, say --shape B,S"
            )


def _of_mask_mod(group: LayerMask) -> list[Finding]:
    """Return the finding of queries that see no key."""
    visible = group.visible
    if visible is None:
        return []
    for row in range(visible.rows):
        dead = visible.dead(row)
        if len(dead):
            text = f"flex, mask_mod: row {row} query {int(dead[0])} sees no key ({len(dead)} such queries)"
            return [
                rules.DEAD_ROW.at(
                    None, text, cause=rules.DEAD_ROW.reason, row=row, query=int(dead[0]), count=len(dead), backend=group.backend
                )
            ]
    return []


def _is_mask_mod(plans: list[BackendPlan]) -> bool:
    return any(group.type == "mask_mod" for group in plans[0].layers)


def _verdict(plans: list[BackendPlan], findings: list[Finding], inputs: ForwardInputs) -> Verdict:
    group = plans[0].layers[0] if _is_mask_mod(plans) else None
    if group is None or findings or group.visible is None:
        return verdicts.of_inspect(plans, findings, inputs)
    later = sum(
        any(end > query + 1 for _, end in group.visible.runs(row, query))
        for row in range(group.visible.rows)
        for query in range(group.q_len)
    )
    ahead = f"{later} of {group.visible.rows * group.q_len} queries see a later token" if later else "no query sees a later token"
    assumed = " (1 x 16 tokens assumed: --shape)" if inputs.assumed else ""
    if not group.exact:
        return Verdict(
            f"Undecided (exact: false): {group.doubt}, which shows {group.count:,} of {group.total or 0:,} pairs{assumed}", "undecided"
        )
    return Verdict(f"The mask_mod shows {group.count:,} of {group.total or 0:,} pairs; {ahead}{assumed}")


def _report(
    options: MaskInspectOptions, plans: list[BackendPlan], inputs: ForwardInputs, arch: Architecture | None, findings: list[Finding]
) -> Report:
    read = account(inputs, arch, options)
    library = releases.of_run("torch" if _is_mask_mod(plans) else "transformers")
    result: dict[str, Any] = {**result_of(plans, inputs), "inputs": read.result()}
    blocks: list[Block] = [screen.stage_table(plans, inputs), *findings] if plans[0].layers else [*findings]
    blocks += screen.queries(plans, options.query) if options.query is not None else pictures(plans, inputs, findings)
    blocks += screen.facts({"Input": inputs.description, "Library": library, "Ignored": verdicts.ignored_text(read)})
    if plans[0].error is not None:
        blocks.append(Note("Error", plans[0].error, "bad"))
    return Report(
        command="mask inspect",
        subject={"path": options.model, "mode": "run", "inputs": inputs.description, "library": library},
        result=result,
        findings=tuple(findings),
        document=tuple(blocks),
        verdict=_verdict(plans, findings, inputs),
    )

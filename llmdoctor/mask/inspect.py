"""`mask inspect`: what each layer and backend receives, from the 2-D mask to the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmdoctor.core.document import Block, Note
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.report import Report, Skipped
from llmdoctor.mask import architectures, releases, rules, screen, verdicts
from llmdoctor.mask.accounting import account
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.drawing import pictures
from llmdoctor.mask.findings import BUDGET, examine
from llmdoctor.mask.forward_inputs import backends_of, dtype_of, read_config
from llmdoctor.mask.functions import function_report, names_function
from llmdoctor.mask.input_findings import of_placeholders
from llmdoctor.mask.layer_results import result_of
from llmdoctor.mask.options import MaskInspectOptions
from llmdoctor.mask.plan import plan
from llmdoctor.mask.results import MaskInspectResult
from llmdoctor.mask.sources import inputs_of, with_decoder
from llmdoctor.mask.types import GPT_FAST, BackendPlan, ForwardInputs
from llmdoctor.mask.vision import tower_blocks, tower_of
from llmdoctor.modeldir.directory import ModelDir, read_model_dir


def inspect_report(options: MaskInspectOptions) -> Report:
    """Return what each layer of the model receives for the inputs that `options` describe.

    Raises QuestionError if the model, the inputs or an option cannot be understood.
    """
    if options.mode not in ("plan", "run"):
        raise QuestionError(f"--mode {options.mode}: expected plan or run")
    if options.weights and options.mode != "run":
        raise QuestionError("--weights: a plan reads no weights, use --mode run")
    if names_function(options.model):
        return function_report(options)
    directory = read_model_dir(options.model)
    config = read_config(directory)
    backends = backends_of(options)
    arch = _architecture(config, options)
    inputs, chat = inputs_of(directory, options)
    inputs = with_decoder(inputs, arch, config)
    read = account(inputs, arch, options)
    dtype = dtype_of(options, arch.dtype if arch is not None else str(config.get("dtype") or config.get("torch_dtype") or "float32"))
    plans, notes = make_plans(directory, arch, inputs=inputs, backends=backends, dtype=dtype, options=options)
    if options.query is not None and not 0 <= options.query < inputs.q_len:
        raise QuestionError(f"--query {options.query}: the queries are 0 to {inputs.q_len - 1}")
    budget = BUDGET if options.budget is None else options.budget
    findings = [] if arch is None else examine(arch, inputs, plans, config=config, budget=budget, dtype=dtype)
    findings += [] if findings else _refusal(plans)
    findings += of_placeholders(inputs, config, complete=chat is not None)
    result: MaskInspectResult = {**result_of(plans, inputs), "inputs": read.result()}  # type: ignore[typeddict-item]
    tower = tower_of(config, inputs.grids, dtype)
    if tower is not None:
        result["tower"] = tower.result()
    if chat is not None:
        result["chat"] = chat.result
    document = [
        *_document(plans, inputs, arch=arch, dtype=dtype, options=options, findings=findings),
        *([] if tower is None else tower_blocks(tower)),
        *([] if chat is None else chat.blocks),
    ]
    library = releases.of_run() if options.mode == "run" else releases.of_plan(options.model)
    document += screen.facts(
        {"Input": inputs.description, "Library": library, "Note": "\n".join(notes), "Ignored": verdicts.ignored_text(read)}
    )
    subject = {
        "path": options.model, "model_type": config.get("model_type"), "mode": options.mode, "dtype": dtype, "inputs": inputs.description,
        "library": library,
    }  # fmt: skip
    refused = tuple(Skipped(each.backend, each.error) for each in plans if each.error is not None and len(plans) > 1)
    release = releases.doubt(str(config.get("model_type")), options.model) if options.mode == "plan" else ""
    verdict = verdicts.of_inspect(plans, findings, inputs, release=release, tower=tower is not None, mode=options.mode)
    return Report(
        command="mask inspect",
        subject=subject,
        result=dict(result),
        findings=tuple(findings),
        skipped=refused,
        document=tuple(document),
        verdict=verdict,
    )


def _architecture(config: dict[str, Any], options: MaskInspectOptions) -> Architecture | None:
    """Return the model's architecture; None if only a run can show its masks. Raises QuestionError if a plan was asked for."""
    try:
        return architectures.read(config)
    except QuestionError:
        if options.mode == "run":
            return None
        raise


def _refusal(plans: Sequence[BackendPlan]) -> list[Finding]:
    """Return the finding of a library that raises under every backend."""
    if any(each.error is None for each in plans):
        return []
    names = [each.backend for each in plans]
    rule = rules.BACKEND_REFUSED
    return [rule.at(None, f"{', '.join(names)}: {plans[0].error}", cause=rule.reason, fix="see the library's message", backends=names)]


def make_plans(
    directory: ModelDir,
    arch: Architecture | None,
    inputs: ForwardInputs,
    backends: tuple[str, ...],
    dtype: str,
    options: MaskInspectOptions,
) -> tuple[list[BackendPlan], list[str]]:
    """Return one plan per backend, from the config or from a real forward, and notes on how it was made."""
    if options.mode == "run":
        from llmdoctor.mask.live import observe

        if GPT_FAST in backends:
            raise QuestionError("--backend gpt-fast --mode run: gpt-fast's mask is planned, transformers cannot run it")
        return observe(directory.path, inputs, backends, dtype, options.weights)
    if arch is None:
        raise QuestionError("config.json: this model type is not known here: use --mode run")
    made = []
    for backend in backends:
        if backend == GPT_FAST:
            from llmdoctor.mask.gptfast import plan_gpt_fast

            made.append(plan_gpt_fast(arch, inputs))
        else:
            made.append(plan(arch, inputs, backend, dtype))
    return made, [note for each in made for note in each.notes]


def _fixes(findings: Sequence[Finding]) -> list[Block]:
    """Return a note on the fixes that were not tried: an inspection runs nothing with them, and the plan alone shows only some repairs."""
    untried = dict.fromkeys(one.code for one in findings if one.severity is not Severity.INFO and "fix_planned" not in one.evidence)
    if not untried:
        return []
    return [
        Note(
            "Fixes",
            f"not tried here: {', '.join(untried)}. `llmdoctor mask test` applies and measures the fix of what fails in a run",
            "dim",
        )
    ]


def _document(
    plans: Sequence[BackendPlan],
    inputs: ForwardInputs,
    arch: Architecture | None,
    dtype: str,
    options: MaskInspectOptions,
    findings: Sequence[Finding],
) -> list[Block]:
    blocks: list[Block] = []
    if any(each.layers for each in plans):
        blocks.append(screen.stage_table(plans, inputs))
        blocks += screen.reasons(plans)
    if len(plans) == 1 and plans[0].error is not None:
        return blocks
    blocks += [*findings, *_fixes(findings)]
    unobserved = sorted({layer for each in plans for layer in each.unobserved})
    if unobserved:
        blocks.append(
            Note("Limits", f"nothing is known of layers {screen.layers_text(tuple(unobserved))}: their kind is not modelled", "warn")
        )
    blocks += screen.differences(plans, inputs)
    if options.query is not None:
        blocks += screen.queries(plans, options.query)
    else:
        blocks += pictures(plans, inputs, findings)
    if arch is not None and options.mode == "plan":
        from llmdoctor.mask.whatif import what_if

        blocks += what_if(arch, inputs, plans, dtype)
    return blocks

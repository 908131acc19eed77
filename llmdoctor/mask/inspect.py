"""`mask inspect`: every stage from the 2-D mask to what the kernel sees, as a report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmdoctor.core.document import Block, Headline, Note
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.installed import installed_version
from llmdoctor.core.report import Report, Skipped
from llmdoctor.mask import architectures
from llmdoctor.mask import screen as show
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.check import BUDGET, examine
from llmdoctor.mask.drawing import pictures
from llmdoctor.mask.options import Options, ask, ask_backends, ask_dtype, read_config
from llmdoctor.mask.plan import plan
from llmdoctor.mask.types import GPT_FAST, Inputs, LayerMask, Object, Plan
from llmdoctor.modeldir.directory import ModelDir, read_model_dir
from llmdoctor.modeldir.layerkinds import table


def inspect_report(model: str, options: Options) -> Report:
    """What each layer of `model` receives for the inputs that `options` describe.

    Raises QuestionError where the model, the inputs or an option cannot be understood.
    """
    if options.mode not in ("plan", "run"):
        raise QuestionError(f"--mode {options.mode}: expected plan or run")
    if options.weights and options.mode != "run":
        raise QuestionError("--weights: a plan reads no weights, say --mode run")
    directory = read_model_dir(model)
    config = read_config(directory)
    backends = ask_backends(options)
    arch = _architecture(config, options)
    inputs, extra = ask_inputs(directory, options)
    if arch is not None:
        inputs = replace(inputs, makes_blocks=any(layer.pattern is not None and layer.pattern.blocks for layer in arch.layers))
    dtype = ask_dtype(options, arch.dtype if arch is not None else str(config.get("dtype") or config.get("torch_dtype") or "float32"))
    plans, notes = make_plans(directory, arch, inputs, backends, dtype, options)
    if options.query is not None and not 0 <= options.query < inputs.q_len:
        raise QuestionError(f"--query {options.query}: the queries are 0 to {inputs.q_len - 1}")
    findings = [] if arch is None else examine(arch, inputs, plans, BUDGET if options.budget is None else options.budget)
    result = {**result_of(plans, inputs), **({} if not extra else extra.result)}
    document = _document(plans, inputs, arch, dtype, options, notes, findings)
    if extra:
        findings, document = [*findings, *extra.findings], (*document, *extra.blocks)
    worst = next((one for one in findings if one.severity is Severity.ERROR and one.code != "MSK020"), None)
    if worst is not None:
        document = (Headline(f"{worst.code} {worst.message}", "bad"), *document)
    subject = {"path": model, "model_type": config.get("model_type"), "mode": options.mode, "dtype": dtype, "inputs": inputs.told}
    refused = tuple(Skipped(each.backend, each.error) for each in plans if each.error is not None and len(plans) > 1)
    return Report("mask inspect", subject, result, tuple(findings), refused, document)


def _architecture(config: dict[str, Any], options: Options) -> Architecture | None:
    """The model as its masks see it; None where only a run can tell."""
    try:
        return architectures.read(config)
    except QuestionError:
        if options.mode == "run":
            return None
        raise


def ask_inputs(directory: ModelDir, options: Options) -> tuple[Inputs, Any]:
    """The inputs, and what a chat adds to the report. Raises QuestionError where a token is outside the model's vocabulary."""
    if options.messages is None:
        inputs = ask(options)
        _check_ids(directory, inputs)
        return inputs, None
    from llmdoctor.mask.chat import ask_chat

    return ask_chat(directory, options)


def _check_ids(directory: ModelDir, inputs: Inputs) -> None:
    config = read_config(directory)
    text = config.get("text_config")
    size = (text if isinstance(text, dict) else config).get("vocab_size")
    ids = inputs.input_ids
    if ids is None or not isinstance(size, int) or isinstance(size, bool):
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= size:
        raise QuestionError(f"input_ids holds {low if low < 0 else high}, outside the model's vocabulary of {size} tokens")


def make_plans(
    directory: ModelDir, arch: Architecture | None, inputs: Inputs, backends: tuple[str, ...], dtype: str, options: Options
) -> tuple[list[Plan], list[str]]:
    """One Plan a backend, from the config or from a real forward, and notes on how."""
    if options.mode == "run":
        from llmdoctor.mask.live import observe

        if GPT_FAST in backends:
            raise QuestionError("--backend gpt-fast --mode run: gpt-fast's mask is planned, transformers cannot run it")
        return observe(directory.path, inputs, backends, dtype, options.weights)
    if arch is None:
        raise QuestionError("config.json: this model type is not known here: try --mode run")
    made = []
    for backend in backends:
        if backend == GPT_FAST:
            from llmdoctor.mask.gptfast import plan_gpt_fast

            made.append(plan_gpt_fast(arch, inputs))
        else:
            made.append(plan(arch, inputs, backend, dtype))
    notes = []
    rules, here = table()["transformers"], installed_version("transformers")
    if here not in (None, rules):
        notes.append(f"the plan follows transformers {rules}; {here} is installed here: --mode run shows that one")
    if not arch.verified:
        notes.append(f"{arch.doubt} (exact: false)")
    return made, [*notes, *(note for each in made for note in each.notes)]


def result_of(plans: list[Plan], inputs: Inputs) -> dict[str, Any]:
    """The contract's result object of `mask inspect`."""
    return {
        "layers": [layer_of(group) for each in plans for group in each.layers],
        "unobserved": sorted({layer for each in plans for layer in each.unobserved}),
        "error": next((each.error for each in plans if each.error is not None and not any(one.layers for one in plans)), None),
        "errors": {each.backend: each.error for each in plans if each.error is not None},
        "inputs": {"batch": inputs.batch, "q_len": inputs.q_len, "past": inputs.past, "phase": inputs.phase, "cache": str(inputs.cache)},
    }


def layer_of(group: LayerMask) -> dict[str, Any]:
    """One group of layers, for a program."""
    kernel = group.kernel
    told: dict[str, Any] = {"is_causal": kernel.is_causal, "window": kernel.window, "cu_seqlens": kernel.cu_seqlens}
    if kernel.cu_seqlens_q is not None:
        told["cu_seqlens_q"] = kernel.cu_seqlens_q
    if kernel.mask is not None:
        told["mask"] = object_of(kernel.mask)
    return {
        "layers": list(group.layers),
        "type": group.type,
        "backend": group.backend,
        "q_len": group.q_len,
        "kv_len": group.kv_len,
        "q_offset": group.q_offset,
        "formula": group.formula,
        "object": object_of(group.object),
        "skip_reason": group.skip_reason,
        "kernel": told,
        "visible": group.count,
        "total": group.total,
        "exact": group.exact,
    }


def object_of(made: Object) -> dict[str, Any]:
    """An object, for a program."""
    return {
        "kind": made.kind,
        "shape": None if made.shape is None else list(made.shape),
        "dtype": made.dtype,
        "logical_bytes": made.logical_bytes,
        "storage_bytes": made.storage_bytes,
    }


def _document(
    plans: list[Plan],
    inputs: Inputs,
    arch: Architecture | None,
    dtype: str,
    options: Options,
    notes: list[str],
    findings: list[Finding],
) -> tuple[Block, ...]:
    blocks: list[Block] = [show.headline(plans)]
    if any(each.layers for each in plans):
        blocks.append(show.stage_table(plans, inputs))
        blocks += show.reasons(plans)
    if len(plans) == 1 and plans[0].error is not None:
        return tuple(blocks)
    blocks += show.errors(plans) if len(plans) == 1 else []
    unobserved = sorted({layer for each in plans for layer in each.unobserved})
    if unobserved:
        blocks.append(Note("UNOBSERVED", f"layers {show.layers_text(tuple(unobserved))}: of a kind that is not understood here", "warn"))
    blocks += show.differences(plans, inputs)
    if options.query is not None:
        blocks += show.queries(plans, options.query)
    else:
        blocks += pictures(plans, inputs, findings)
    if arch is not None and options.mode == "plan":
        from llmdoctor.mask.whatif import what_if

        blocks += what_if(arch, inputs, plans, dtype)
    blocks += show.facts({"INPUT": inputs.told, "NOTE": "\n".join(notes)})
    return tuple(blocks)

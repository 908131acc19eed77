"""`mask test`: does anything leak? The static rules over the inputs, then the model itself, run on them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmdoctor.core.document import Block, Cell, Grid, Headline, Note, Table, Tone
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.report import Report, Skipped
from llmdoctor.core.text import plural
from llmdoctor.mask import architectures
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.check import BUDGET, examine, finding
from llmdoctor.mask.drawing import MOST, leaking
from llmdoctor.mask.inspect import ask_inputs
from llmdoctor.mask.options import Options, ask, ask_backends, read_config
from llmdoctor.mask.plan import plan
from llmdoctor.mask.types import GPT_FAST, SHORT, Inputs, Plan
from llmdoctor.modeldir.directory import ModelDir, is_model_dir, read_model_dir

if TYPE_CHECKING:
    from llmdoctor.mask.live.differential import Failed, Measure

# Without inputs of the user's: padding at either side, and two packed documents.
SUITE: tuple[dict[str, str], ...] = (
    {"lengths": "5,8", "pad": "left"},
    {"lengths": "5,8", "pad": "right"},
    {"packed": "3,5"},
)
_USES = ("shape", "lengths", "packed", "input_ids", "messages", "mask")


def leak_report(model: str, options: Options, select: list[str], ignore: list[str], static_only: bool = False) -> Report:
    """Every MSK rule over the inputs that `options` describe, or over a small suite where they describe none."""
    subject = _subject(model)
    for name in ("backend", "weights"):
        if subject.directory is None and getattr(options, name):
            raise QuestionError(f"--{name} with {model}: the model is tested as its function builds it, leave the option out")
    own = any(getattr(options, name) is not None for name in _USES) or options.phase is not None
    questions = (
        [options]
        if own
        else [replace(options, lengths=each.get("lengths"), pad=each.get("pad"), packed=each.get("packed")) for each in SUITE]
    )
    backends = ask_backends(options)
    if GPT_FAST in backends:
        raise QuestionError("--backend gpt-fast: there is nothing to test, gpt-fast has one causal mask for everything")
    findings: list[Finding] = []
    measures: list[tuple[str, Measure]] = []
    skipped: list[Skipped] = []
    drawn: list[Grid] = []
    not_run = 0
    for question in questions:
        inputs, chat = ask_inputs(subject.directory, question) if subject.directory is not None else (ask(question), None)
        if subject.arch is not None:
            inputs = replace(inputs, makes_blocks=any(layer.pattern is not None and layer.pattern.blocks for layer in subject.arch.layers))
        plans = _plans(subject.arch, inputs, backends, options) if subject.arch is not None else []
        static = _static(subject.arch, inputs, plans, options) if subject.arch is not None else []
        told: list[Measure] = []
        failed: list[Failed] = []
        if not static_only:
            told, failed, missed = _measured(subject, inputs, backends, options)
            skipped += [*missed, *(Skipped(one.backend, f"{one.test}: {one.error}") for one in failed)]
            not_run += len(failed)
        measures += [(inputs.told, one) for one in told]
        drawn += leaking(plans, inputs, static)
        found = _joined(static, told, subject.arch)
        found += _raised(failed, found) if own else []
        findings += [*found, *(chat.findings if chat else ())] if own else [_milder(one) for one in found]
    kept = _keep(_unique(findings), select, ignore)
    result = {
        "subjects": [{"path": model, "kind": subject.kind, "findings": list(range(len(kept)))}],
        "tests": [_plain(said, one) for said, one in measures],
    }
    document = _document(model, kept, measures, drawn, not_run)
    left_out = tuple({(one.what, one.reason): one for one in skipped}.values())
    untested = not static_only and not measures and not kept
    return Report("mask test", {"path": model, "backends": list(backends)}, result, tuple(kept), left_out, document, nothing=untested)


class _Subject:
    """A model directory, or a function that builds a model."""

    def __init__(self, name: str, directory: ModelDir | None, arch: Architecture | None) -> None:
        self.name, self.directory, self.arch = name, directory, arch
        self.kind = "function" if directory is None else "model"


def _subject(name: str) -> _Subject:
    if ":" in name and not is_model_dir(name) and "/" not in name:
        return _Subject(name, None, None)
    directory = read_model_dir(name)
    try:
        return _Subject(name, directory, architectures.read(read_config(directory)))
    except QuestionError:
        if directory.config is None or not isinstance(directory.config.value, dict):
            raise
        return _Subject(name, directory, None)


def _plans(arch: Architecture, inputs: Inputs, backends: tuple[str, ...], options: Options) -> list[Plan]:
    plans = [plan(arch, inputs, backend, "float32") for backend in backends]
    return [each for each in plans if each.error is None or options.backend is not None or not each.error.startswith("ValueError")]


def _static(arch: Architecture, inputs: Inputs, plans: list[Plan], options: Options) -> list[Finding]:
    found = examine(arch, inputs, plans, BUDGET if options.budget is None else options.budget)
    return [one for one in found if one.code != "MSK020" or options.backend is not None]


def _measured(
    subject: _Subject, inputs: Inputs, backends: tuple[str, ...], options: Options
) -> tuple[list[Measure], list[Failed], list[Skipped]]:
    from llmdoctor.mask.live import measure_model

    source = subject.name if subject.directory is None else subject.directory.path
    found, failed, missed = measure_model(source, subject.directory is None, inputs, backends, options.weights)
    return found, failed, [Skipped(what, why) for what, why in missed]


def _raised(failed: list[Failed], found: list[Finding]) -> list[Finding]:
    """A forward that raises over the user's own inputs, where nothing static says why."""
    if any(one.code in ("MSK004", "MSK005", "MSK006", "MSK020") for one in found):
        return []
    alike: dict[str, list[str]] = {}
    for one in failed:
        if one.plainly:
            alike.setdefault(one.error, []).append(one.backend)
    return [
        finding("MSK020", f"{_names(backends)}: forward() raises over these inputs: {error}", fix="inputs that forward() takes: see the error",
                backend=backends[0], backends=list(dict.fromkeys(backends)))
        for error, backends in alike.items()
    ]  # fmt: skip


def _names(backends: list[str]) -> str:
    return ", ".join(dict.fromkeys(SHORT.get(backend, backend) for backend in backends))


def _joined(static: list[Finding], measures: list[Measure], arch: Architecture | None) -> list[Finding]:
    """Static findings with what was measured for them; a measured failure that nothing foretold is a finding of its own.

    A packing leak that the plan expects and the gradients do not show, in every backend that it names, is none.
    """
    failed = [one for one in measures if not one.passed]
    apart = {one.backend for one in measures if one.code == "MSK007" and one.passed} - {
        one.backend for one in failed if one.code == "MSK007"
    }
    out: list[Finding] = []
    used: set[int] = set()
    for one in static:
        backends = one.evidence.get("backends")
        if one.code == "MSK007" and backends and set(backends) <= apart:
            continue
        matching = [each for each in failed if _same_cause(one.code, each.code) and (backends is None or each.backend in backends)]
        if not matching:
            out.append(one)
            continue
        used |= {id(each) for each in matching}
        match = matching[0]
        evidence = {**one.evidence, "measured": match.value, "threshold": match.threshold}
        message = f"{one.message}; measured {match.value:.3g}, allowed {match.threshold:g}"
        out.append(replace(one, message=message, evidence=evidence))
    alike: dict[tuple[str, str, int], list[Measure]] = {}
    for each in failed:
        if id(each) not in used:
            alike.setdefault((each.code, each.name, each.row), []).append(each)
    return [*out, *(_from_measures(same, arch, apart) for same in alike.values())]


# A measured failure of the second kind is explained by a static finding of the first.
_EXPLAINS = {
    "MSK018": ("MSK008", "MSK012", "MSK018", "MSK005", "MSK002", "MSK003"), "MSK007": ("MSK007", "MSK013"),
    "MSK019": ("MSK004", "MSK006", "MSK019", "MSK014", "MSK012"), "MSK003": ("MSK003", "MSK004"),
    "MSK002": ("MSK002",), "MSK001": ("MSK001", "MSK005", "MSK009"), "MSK005": ("MSK005",),
}  # fmt: skip


def _same_cause(static: str, measured: str) -> bool:
    return static in _EXPLAINS.get(measured, (measured,))


def _from_measures(same: list[Measure], arch: Architecture | None, apart: set[str]) -> Finding:
    """One failure of a row under one or more backends, with the worst of what was measured; `apart` are backends that keep documents apart."""
    one = max(same, key=lambda each: np.inf if np.isnan(each.value) else each.value / max(each.threshold, 1e-12))
    code, backends = one.code, list(dict.fromkeys(each.backend for each in same))
    if code == "MSK007" and arch is not None and any(layer.pattern is None for layer in arch.layers):
        code = "MSK013"
    fix = None
    if code == "MSK007":
        fix = f'attn_implementation="{min(apart)}", or one document a row' if apart else "one document a row"
    return finding(
        code, f"{_names(backends)}: {one.text}; measured {one.value:.3g}, allowed {one.threshold:g}", backend=one.backend, backends=backends,
        row=one.row, span=list(one.span), measured=one.value, threshold=one.threshold, test=one.name, fix=fix,
    )  # fmt: skip


def _milder(one: Finding) -> Finding:
    """A finding of the suite says what would go wrong with such inputs; only what is wrong with the model itself is an error."""
    return (
        one if one.code in ("MSK003", "MSK010", "MSK019") or one.severity is not Severity.ERROR else replace(one, severity=Severity.WARNING)
    )


def _unique(findings: list[Finding]) -> list[Finding]:
    seen: dict[tuple[str, str], Finding] = {}
    for one in findings:
        seen.setdefault((one.code, one.message), one)
    return list(seen.values())


def _keep(findings: list[Finding], select: list[str], ignore: list[str]) -> list[Finding]:
    return [
        one
        for one in findings
        if (not select or one.code.startswith(tuple(select))) and not (ignore and one.code.startswith(tuple(ignore)))
    ]


def _plain(said: str, one: Measure) -> dict[str, Any]:
    return {
        "test": one.name, "backend": one.backend, "inputs": said, "row": one.row, "span": list(one.span), "measured": one.value,
        "threshold": one.threshold, "passed": one.passed,
    }  # fmt: skip


def _document(
    model: str, findings: list[Finding], measures: list[tuple[str, Measure]], drawn: list[Grid], not_run: int
) -> tuple[Block, ...]:
    errors = sum(one.severity is Severity.ERROR for one in findings)
    warnings = sum(one.severity is Severity.WARNING for one in findings)
    tone: Tone = "bad" if errors else "warn" if warnings else "good"
    count = f"{plural(errors, 'error')}, {plural(warnings, 'warning')}"
    if not findings and not measures:
        return (Headline(f"{model}: NOTHING WAS TESTED", "warn"),)
    missing = f", {plural(not_run, 'test')} not run" if not_run else ""
    if not_run and tone == "good":
        tone = "warn"
    verdict = Headline(
        f"{model}: {count}{missing}" if findings else f"{model}: NOTHING LEAKS in {plural(len(measures), 'test')}{missing}", tone
    )
    return (verdict, *([_table(measures), Note("HOW", HOW, "dim")] if measures else []), *(drawn[:MOST] if findings else ()))


HOW = "gradients of real tokens' logits at tokens they must not see (exactly 0.0 where the mask holds), and each row against itself alone"


def _table(measures: list[tuple[str, Measure]]) -> Table:
    """One row an input and a test, one column a backend, each with the worst that was measured."""
    backends = list(dict.fromkeys(one.backend for _, one in measures))
    worst: dict[tuple[str, str], dict[str, Measure]] = {}
    for said, one in measures:
        held = worst.setdefault((said, one.name), {}).get(one.backend)
        if held is None or not one.value <= held.value:
            worst[said, one.name][one.backend] = one
    rows: list[tuple[str | Cell, ...]] = []
    last = ""
    for (said, name), each in worst.items():
        if said != last:
            rows.append((Cell(said, "dim"), *[""] * len(backends)))
            last = said
        rows.append((f"  {name}", *(_cell(each.get(backend)) for backend in backends)))
    return Table(("measured, in red what is too much", *(SHORT.get(backend, backend) for backend in backends)), tuple(rows))


def _cell(one: Measure | None) -> Cell:
    if one is None:
        return Cell("-", "dim")
    value = "NaN" if np.isnan(one.value) else f"{one.value:.2g}"
    return Cell(value if one.passed else f"{value} > {one.threshold:g}", "plain" if one.passed else "bad")

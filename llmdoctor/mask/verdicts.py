"""The first line of `mask inspect` and `mask test`: the answer with every limit that could change it."""

from __future__ import annotations

from collections.abc import Sequence

from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.inputs import Inputs
from llmdoctor.core.report import Verdict
from llmdoctor.core.text import plural
from llmdoctor.mask.inputs_file import TOWER_INPUTS
from llmdoctor.mask.screen import layers_text, size_text
from llmdoctor.mask.types import SHORT, BackendPlan, ForwardInputs


def of_inspect(
    plans: Sequence[BackendPlan],
    findings: Sequence[Finding],
    inputs: ForwardInputs,
    *,
    release: str = "",
    tower: bool = False,
    mode: str = "plan",
) -> Verdict:
    """Return the verdict: the worst fault, else which backend builds how much, with the reason if the plan is not exact.

    `release` is the reason if another transformers is installed than the one that the plan follows. `tower` is True if the vision tower is
    shown. `mode` is plan or run.
    """
    limits = _raising(plans) + _limits(inputs, tower=tower) + _unknown_layers(plans)
    worst = next((one for one in findings if one.severity is Severity.ERROR), None)
    worst = worst or next((one for one in findings if one.severity is Severity.WARNING and one.code != "MSK016"), None)
    doubts = list(
        dict.fromkeys([*([release] if release else []), *(group.doubt for each in plans for group in each.layers if not group.exact)])
    )
    if worst is not None:
        sure = worst.code in _SURE and not (release and worst.code == "MSK020")
        unsure = f" (exact: false: {doubts[0] or _UNKNOWN})" if doubts and not sure else ""
        return Verdict(worst.message + unsure + limits, "problem")
    answer = _answer(plans)
    if doubts:
        return Verdict(
            f"Undecided (exact: false): {doubts[0] or _UNKNOWN}. By the {mode}, {answer[0].lower()}{answer[1:]}{limits}", "undecided"
        )
    return Verdict(answer + limits)


def _unknown_layers(plans: Sequence[BackendPlan]) -> str:
    """Return the layers of which nothing is known, as the end of a sentence."""
    unknown = sorted({layer for each in plans for layer in each.unobserved})
    return f"; nothing is known of layers {layers_text(tuple(unknown))}" if unknown else ""


def _raising(plans: Sequence[BackendPlan]) -> str:
    """Return the backends that raise over these inputs while others answer; a class that does not support a backend is no news."""
    raising = [
        each for each in plans if each.error is not None and "does not support" not in each.error and "is not supported" not in each.error
    ]
    if not raising or all(each.error is not None for each in plans):
        return ""
    verb = "raises" if len(raising) == 1 else "raise"
    return f"; {' and '.join(SHORT.get(each.backend, each.backend) for each in raising)} {verb}: {raising[0].error}"


_UNKNOWN = "the pairs that a layer sees are not known"
_SURE = ("MSK014", "MSK015", "MSK020", "MSK021", "MSK022", "MSK024", "MSK025")  # found in the inputs alone, whatever the plan


def _answer(plans: Sequence[BackendPlan]) -> str:
    """Return which backends build a mask of queries x keys, and its bytes."""
    answered = [each for each in plans if each.error is None]
    if not answered:
        return f"{plans[0].backend} fails: {plans[0].error}"
    attended = {each.backend: [group for group in each.layers if group.type != "linear"] for each in answered}
    if not any(attended.values()):
        return "No attention: every layer reads a state, so there is no mask of pairs"
    spent = {backend: sum(group.object.storage_bytes for group in groups) for backend, groups in attended.items()}
    square = [backend for backend, groups in attended.items() if any(group.object.kind == "tensor" for group in groups)]
    if len(answered) == 1:
        backend = answered[0].backend
        return f"{backend} builds {_bytes(spent[backend])} here"
    amounts = ", ".join(f"{SHORT.get(backend, backend)} {_bytes(count)}" for backend, count in spent.items())
    if not square:
        return f"No backend builds a mask of queries x keys here: {amounts}"
    if square == ["eager"]:
        return f"Only eager builds a mask of queries x keys: {amounts}"
    verb = "builds" if len(square) == 1 else "build"
    return f"{' and '.join(SHORT.get(name, name) for name in square)} {verb} a mask of queries x keys: {amounts}"


def _bytes(count: int) -> str:
    return size_text(count) if count else "nothing"


def _limits(inputs: ForwardInputs, *, tower: bool = False) -> str:
    """Return what was assumed or left out, as the end of a sentence."""
    parts = []
    if inputs.assumed:
        parts.append("1 x 16 tokens assumed: --shape")
    if inputs.without:
        parts.append(f"without {', '.join(inputs.without)}")
    if inputs.unread:
        parts.append(f"{', '.join(inputs.unread)} not read: no argument of forward() that is known here")
    if TOWER_INPUTS & set(inputs.fields):
        patches = sum(int(grid.prod(axis=1).sum()) for grid in inputs.grids.values())
        over = f" over {patches:,} patches" if patches else ""
        if tower:
            parts.append(f"the text layers alone; the vision tower{over} has a table of its own")
        else:
            parts.append(f"the text layers alone: the attention of the vision or audio tower{over} is not shown")
    return f" ({'; '.join(parts)})" if parts else ""


def ignored_text(read: Inputs) -> str:
    """Return the fields that have no influence, one reason per line."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in read.ignored.items():
        by_reason.setdefault(reason, []).append(key)
    return "\n".join(f"{', '.join(keys)}: {reason}" for reason, keys in by_reason.items())


_NOTHING = "these inputs have nothing to test: no padding, no documents, no later token"


def of_test(
    findings: Sequence[Finding],
    measured: int,
    not_run: int,
    why: str | None,
    inputs: Sequence[ForwardInputs],
    *,
    static: bool,
    release: str = "",
) -> Verdict:
    """Return the verdict of `mask test`: faults found, what passed, what did not run. `why` is the reason if nothing ran.

    `release` is the reason if another transformers is installed than the one that the plan follows.
    """
    limits = _limits(inputs[0]) if inputs else ""
    missing = f"; {plural(not_run, 'test')} did not run" + (f": {why}" if why else "") if not_run else ""
    errors = sum(one.severity is Severity.ERROR for one in findings)
    warnings = sum(one.severity is Severity.WARNING for one in findings)
    count = f"{plural(errors, 'error')}, {plural(warnings, 'warning')}"
    if errors or warnings:
        first = next(one for one in findings if one.severity is (Severity.ERROR if errors else Severity.WARNING))
        unsure = f" (exact: false: {release})" if static and release and first.code not in _SURE else ""
        return Verdict(f"{count}: {first.message}{unsure}{missing}{limits}", "problem")
    if static and release:
        return Verdict(
            f"Undecided: no fault in the inputs and the plan, the model was not run (--static), and {release}{limits}", "undecided"
        )
    if static:
        return Verdict(f"No fault in the inputs and the plan; the model was not run (--static){limits}")
    if not measured:
        return Verdict(f"Nothing was tested: {why or _NOTHING}{limits}", "undecided")
    if not_run:
        return Verdict(f"Undecided: {plural(measured, 'test')} passed{missing}{limits}", "undecided")
    return Verdict(f"Nothing leaks in {plural(measured, 'test')}{limits}")

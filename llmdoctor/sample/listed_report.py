"""`sample replay` of a response's top log-probabilities, as a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmdoctor.core.document import Block, Cell, Note, Table
from llmdoctor.core.finding import Finding
from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.text import plural
from llmdoctor.requests.listed import Listed
from llmdoctor.sample.findings import findings_of
from llmdoctor.sample.listed import KIND_WORDS, ListedReplay, overall, replay_listed
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.result_parts import STATUSES, claim_result, finite, interval_result, test_result
from llmdoctor.sample.results import FittedSettingsResult, ListedStepResult, ReplayResult
from llmdoctor.sample.rules import KIND


def listed_report(options: ReplayOptions) -> Report:
    """Return the replay of a response's top log-probabilities. Raises QuestionError."""
    replays = replay_listed(options)
    findings = tuple(finding for one in replays for finding in _findings(one))
    shown = _deciding(replays)
    subject = {
        "responses": options.logits,
        "steps": sum(len(one.listed) for one in replays),
        "requests": len({line for one in replays for line, _ in one.responses.requests}),
    }
    return Report(
        "sample replay",
        subject,
        _result(shown, replays),
        findings,
        document=_document(shown, replays, findings),
        verdict=_verdict(shown, replays),
    )


def _deciding(replays: Sequence[ListedReplay]) -> ListedReplay:
    verdict = overall(replays)
    return next(one for one in replays if one.verdict is verdict)


def _findings(one: ListedReplay) -> tuple[Finding, ...]:
    bad = [at for at, name in enumerate(one.first.bounds.removed) if name]
    return findings_of(one.verdict, one.claim, str(one.options.logits), bad, cause=_cause(one))


def _cause(one: ListedReplay) -> str | None:
    """What the tokens came from, as far as the lists show it."""
    if one.verdict.outcome != "inconsistent":
        return None
    if one.greedy and one.claim.settings.do_sample:
        return f"greedy decoding (the same as top_k 1): all {len(one.listed)} tokens are the argmax"
    seen = one.first.temperature
    claimed = one.claim.settings.temperature or 1.0
    if seen is not None and not seen.low <= claimed <= seen.high:
        return f"a temperature of about {seen.value:.2f} (95%: {seen.low:.2f} to {seen.high:.2f}), if the cuts are as claimed"
    return None


def _verdict(one: ListedReplay, replays: Sequence[ListedReplay]) -> Verdict:
    decided = one.verdict
    limits = []
    if decided.outcome == "consistent":
        limits.append(f"if the log-probabilities are {KIND_WORDS[one.kind]}, {one.because}")
    limits += [f"{name} left out" for name in one.options.without]
    limits += [one.claim.engine.doubt] if one.claim.engine.doubt else []
    more = f"; about {plural(decided.more, 'more token')} would decide" if decided.more else ""
    group = f", one of {len(replays)} groups of settings" if len(replays) > 1 else ""
    limit = f", {'; '.join(limits)}" if limits else ""
    where = f"{plural(len(one.listed), 'token')} from lists of log-probabilities, alpha {one.options.alpha:g}{group}"
    text = f"{decided.outcome.capitalize()} with {one.claim.words()}{limit}: {decided.reason}{more} ({where})."
    return Verdict(text, STATUSES[decided.outcome])


def _result(one: ListedReplay, replays: Sequence[ListedReplay]) -> ReplayResult:
    verdict = one.verdict
    seen = one.first.temperature if verdict.outcome != "undecided" or verdict.more else None
    if one.greedy and verdict.outcome == "inconsistent":
        seen = None
    groups: list[dict[str, Any]] = [
        {
            "requests": list(dict.fromkeys(line for line, _ in each.responses.requests)),
            "settings": each.claim.settings.named(),
            "outcome": each.verdict.outcome,
        }
        for each in replays
    ]
    return {
        "verdict": verdict.outcome,
        "reason": verdict.reason,
        "alpha": one.options.alpha,
        "p_value": verdict.p_corrected,
        "more_tokens": verdict.more,
        "claim": claim_result(one.claim),
        "notes": list(one.responses.notes),
        "logprobs": {
            "kind": one.kind,
            "because": one.because,
            "readings": [{"kind": each.kind, "outcome": each.verdict.outcome, "reason": each.verdict.reason} for each in one.readings],
        },
        "tests": [test_result(test) for test in one.first.tests],
        "estimate": {} if seen is None else {"temperature": interval_result(seen)},
        "fits": _fits(one),
        "groups": groups,
        "steps": _steps(one),
        "inputs": one.claim.inputs.result(),
    }


def _fits(one: ListedReplay) -> list[FittedSettingsResult]:
    """Greedy decoding, if every token is the largest and the claim is not that."""
    if not (one.greedy and one.claim.settings.do_sample and one.verdict.outcome == "inconsistent"):
        return []
    return [
        {
            "engine": one.claim.engine.name,
            "settings": {"top_k": 1, "do_sample": False},
            "law": None,
            "impossible": 0,
            "loglik": 0.0,
            "score": 0.0,
            "p_value": None,
            "claimed": False,
        }
    ]


def _steps(one: ListedReplay) -> list[ListedStepResult]:
    bounds, arrays = one.first.bounds, one.arrays
    sure = bounds.sure.sum(axis=1)
    most = bounds.maybe.sum(axis=1)
    return [
        {
            "token": step.token,
            "rank": int(arrays.at[at]) + 1 if arrays.at[at] < arrays.size[at] else step.rank,
            "listed": int(arrays.size[at]),
            "logprob_recorded": finite(step.logprob),
            "mass_before": [float(bounds.before[at, 0]), float(bounds.before[at, 1])],
            "support": [int(sure[at]), None if bounds.tail[at] and bounds.tail_high[at] > 0 else int(most[at])],
            "possible": not bounds.removed[at],
            "removed_by": bounds.removed[at] or None,
        }
        for at, step in enumerate(one.listed)
    ]


def _document(one: ListedReplay, replays: Sequence[ListedReplay], findings: Sequence[Finding]) -> tuple[Block, ...]:
    blocks: list[Block] = [*findings]
    readings = [f"if {KIND_WORDS[each.kind]}: {each.verdict.outcome} ({each.verdict.reason})" for each in one.readings]
    blocks.append(
        Note(
            "Kind", f"log-probabilities read as {KIND_WORDS[one.kind]}, {one.because}\n" + "\n".join(readings if len(readings) > 1 else [])
        )
    )
    blocks += [Note("Note", note) for note in one.responses.notes]
    seen = one.first.temperature
    if seen is not None and one.verdict.outcome != "undecided" and not one.greedy:
        blocks.append(
            Note("Estimate", f"temperature {seen.value:.2f} (95%: {seen.low:.2f} to {seen.high:.2f}), from the listed tokens alone")
        )
    if len(replays) > 1:
        rows = tuple((each.claim.words(), f"{len(each.listed):,}", each.verdict.outcome) for each in replays)
        blocks.append(Table(("settings", "tokens", "verdict"), rows))
    blocks.append(
        Table(
            ("test", "statistic", "p alone"),
            tuple(
                (test.name, f"{test.statistic:.4g}", Cell(f"{test.p_value:.2g}", "bad" if test.p_value < one.options.alpha else "plain"))
                for test in one.first.tests
            ),
        )
    )
    if one.options.rows:
        blocks.append(_table(one))
    sizes = one.arrays.size
    many = f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
    limits = f"{many} log-probabilities per step are listed; mass and support are bounds, because unlisted tokens could have any share of the rest"
    blocks.append(Note("Limits", limits, "dim"))
    if one.kind == "processed":
        blocks.append(Note("Training", KIND.reason, "dim"))
    return tuple(blocks)


def _table(one: ListedReplay) -> Table:
    bad = [at for at, name in enumerate(one.first.bounds.removed) if name]
    others = sorted(set(range(len(one.listed))) - set(bad), key=lambda at: one.listed[at].logprob)
    shown = sorted([*bad, *others][: one.options.rows])
    steps = _steps(one)
    return Table(
        ("step", "token", "rank", "mass before", "support", "removed by"), tuple(_row(at, one.listed[at], steps[at]) for at in shown)
    )


def _row(at: int, step: Listed, one: ListedStepResult) -> tuple[str | Cell, ...]:
    rank = f"over {one['listed']}" if one["rank"] is None else str(one["rank"])
    low, high = one["support"]
    support = f"{low}" if low == high else f"{low} to {'...' if high is None else high}"
    least, most = one["mass_before"]
    mass = f"{least:.3f} to {most:.3f}" if most - least > 5e-4 else f"{least:.3f}"
    token = step.token if step.token.isdigit() else repr(step.token)  # white space is visible
    return str(at), token, rank, mass, support, Cell(one["removed_by"] or "", "bad")

"""The verdict on a traced run, with every limit of the trace that could change it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmdoctor.core.report import Status, Verdict
from llmdoctor.core.text import plural, shown
from llmdoctor.gencfg.causes import Cause
from llmdoctor.gencfg.trace.counts import CallSite, TraceCounts
from llmdoctor.gencfg.trace.trace_file import TraceFile


def verdict_of(trace: TraceFile, total: TraceCounts, sites: Sequence[CallSite], cause: Cause | None) -> Verdict:
    """Return what the run did; a command that failed comes first, and what the trace does not hold comes last."""
    text, status = _calls(total, sites, cause, caught=was_caught(trace))
    limits = list(_limits(trace, total, sites))
    code = exit_code(trace)
    if code:
        status = "problem"
        text = f"The command failed with exit code {code}. {text}"
    elif limits and status == "ok":
        status = "undecided"
    return Verdict(" ".join([text, *limits]), status)


def exit_code(trace: TraceFile) -> int | None:
    """Return the exit code of the traced command; None if it is not known."""
    code = (trace.run or {}).get("exit_code")
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def was_caught(trace: TraceFile) -> bool:
    """Return whether an exception in generate() was caught: the command ended well."""
    return exit_code(trace) == 0


def _calls(total: TraceCounts, sites: Sequence[CallSite], cause: Cause | None, *, caught: bool) -> tuple[str, Status]:
    if not total.calls:
        return "No generate() was recorded" + ("; the rollouts went through vLLM." if total.vllm else " in this run."), "undecided"
    never = sum(site.never_stops for site in sites)
    if never:
        reason = cause.brief if cause is not None else "no token ends a sequence"
        return f"{_of(never, total.calls, 'call')} cannot stop before the limit: {reason}.", "problem"
    failed = next((site.bad.effective.error for site in sites if site.bad is not None and site.bad.effective.error is not None), None)
    if failed is not None and not caught:
        return f"generate() raised {failed.type}: {shown(failed.message, 200)[1:-1]}", "problem"
    return _sequences(total, sites)


def _sequences(total: TraceCounts, sites: Sequence[CallSite]) -> tuple[str, Status]:
    sequences, passed = sum(site.sequences for site in sites), sum(sum(site.passed.values()) for site in sites)
    if passed:
        return f"{_of(passed, sequences, 'sequence')} ran past a terminator, although the calls have an eos_token_id.", "problem"
    unfinished = sum(site.unfinished for site in sites)
    if unfinished:
        return f"{_of(unfinished, total.calls, 'call')} had not ended when the run ended; they could have stopped.", "undecided"
    cut = sum(site.ended_by["length"] for site in sites)
    if cut:
        return f"The calls can stop, but {_of(cut, sequences, 'sequence')} reached the limit without a terminator.", "undecided"
    if not sequences:
        return f"How the sequences of {plural(total.calls, 'generate() call')} ended is not recorded.", "undecided"
    return f"Every sequence stopped: {sequences:,} of {sequences:,}.", "ok"


def _limits(trace: TraceFile, total: TraceCounts, sites: Sequence[CallSite]) -> Iterator[str]:
    """Yield what the trace does not hold."""
    if trace.parts:
        yield "The run was cut off before its files were merged."
    if trace.unreadable:
        yield f"{plural(len(trace.unreadable), 'line')} of the trace could not be read."
    if total.faults:
        yield f"The recorder failed in {plural(len(total.faults), 'place')}."
    own = sum(site.own for site in sites)
    if own:
        yield f"{_of(own, total.calls, 'call')} went to a generate() of the model's own, whose loop is not recorded."
    failed = sum(site.failed for site in sites)
    if failed and was_caught(trace):
        yield f"{_of(failed, total.calls, 'call')} raised an exception that the program caught."


def _of(count: int, total: int, noun: str) -> str:
    return f"{count:,} of {plural(total, noun)}"

"""`gencfg trace`: what happened in a traced run, as a report."""

from __future__ import annotations

from typing import Any

from llmdoctor.attach.records import Record
from llmdoctor.core.report import Report, Skipped
from llmdoctor.core.text import plural
from llmdoctor.gencfg.causes import Cause
from llmdoctor.gencfg.trace.counts import CallSite, TraceCounts, count_records
from llmdoctor.gencfg.trace.findings import site_findings
from llmdoctor.gencfg.trace.options import TraceOptions
from llmdoctor.gencfg.trace.results import CallSiteResult, LoadResult, MutationResult, TracedImportResult, TraceResult, VllmRolloutResult
from llmdoctor.gencfg.trace.screen import document_of
from llmdoctor.gencfg.trace.trace_file import TraceFile
from llmdoctor.gencfg.trace.verdict import exit_code, verdict_of, was_caught


def trace_report(options: TraceOptions) -> Report:
    """Return what happened in a traced run. Raises QuestionError if the trace cannot be read."""
    return report_on(TraceFile(options.path))


def report_on(trace: TraceFile) -> Report:
    """Return the report on a trace that has not been read yet."""
    total = count_records(trace.records())
    sites = sorted(total.sites.values(), key=lambda site: (site.bad is None, not site.passed, -site.sequences))
    caught = was_caught(trace)
    findings = tuple(finding for site in sites for finding in site_findings(site, caught=caught))
    cause = next((found for site in sites if (found := site.cause()) is not None), None)
    return Report(
        "gencfg trace",
        subject={"path": trace.path},
        result=_result(total, sites, cause, trace),
        findings=findings,
        skipped=_skipped(trace, total),
        document=document_of(trace, total, sites, cause, findings),
        verdict=verdict_of(trace, total, sites, cause),
        nothing=not total.calls,
    )


def _skipped(trace: TraceFile, total: TraceCounts) -> tuple[Skipped, ...]:
    gone = []
    if trace.unreadable:
        lines = ", ".join(map(str, trace.unreadable[:5]))
        gone.append(Skipped(f"{trace.path}:{lines}", f"{plural(len(trace.unreadable), 'line')} cut off, or not a record"))
    if total.faults:
        first = total.faults[0]
        gone.append(
            Skipped(str(first.get("where")), f"the recorder failed there ({plural(len(total.faults), 'fault')}): {first.get('error')}")
        )
    return tuple(gone)


def _result(total: TraceCounts, sites: list[CallSite], cause: Cause | None, trace: TraceFile) -> TraceResult:
    ended: dict[str, int] = {}
    for site in sites:
        for reason, count in site.ended_by.items():
            ended[reason] = ended.get(reason, 0) + count
    command = (trace.run or {}).get("command")
    return {
        "calls": total.calls,
        "sequences": sum(site.sequences for site in sites),
        "ranks": len(total.ranks),
        "overhead": total.overhead(),
        "exit_code": exit_code(trace),
        "command": list(map(str, command)) if isinstance(command, list) else None,
        "ended_by": ended,
        "sites": [_site(site) for site in sites],
        "imports": [_import(record) for record in total.imports],
        "mutations": [_mutation(record) for record in total.mutations],
        "loads": [_load(record) for record in total.loads],
        "vllm": [_rollout(record) for record in total.vllm],
        "cause": None if cause is None else cause.text,
        "complete": trace.run is not None and not trace.unreadable,
    }


def _site(site: CallSite) -> CallSiteResult:
    return {
        "source": site.source,
        "file": site.file,
        "line": site.line,
        "stack": list(site.stack),
        "calls": site.calls,
        "sequences": site.sequences,
        "ended_by": dict(site.ended_by),
        "never_stops": site.never_stops,
        "failed": site.failed,
        "unfinished": site.unfinished,
        "own": site.own,
        "stopping_criteria": sorted(site.criteria),
        "passed_terminators": {
            "sequences": sum(site.passed.values()),
            "tokens": dict(site.passed),
            "median_position": site.median_position(),
        },
        "new_tokens": site.tokens,
        "wasted_tokens": site.wasted,
    }


def _import(record: Record) -> TracedImportResult:
    return {
        "package": _text(record, "package"),
        "version": _text(record, "version"),
        "observed": _whole(record, "observed"),
        "changed": record.get("changed"),
        "file": _text(record, "file"),
        "line": _whole(record, "line"),
    }


def _mutation(record: Record) -> MutationResult:
    return {
        "target": _text(record, "target"),
        "model": _text(record, "model"),
        "field": _text(record, "field"),
        "before": record.get("before"),
        "after": record.get("after"),
        "source": _text(record, "source"),
        "file": _text(record, "file"),
        "line": _whole(record, "line"),
        "rank": _whole(record, "rank"),
    }


def _load(record: Record) -> LoadResult:
    return {"model": _text(record, "model"), "class": _text(record, "class")}


def _rollout(record: Record) -> VllmRolloutResult:
    return {"source": _text(record, "source"), "sampling_params": record.get("sampling_params")}


def _text(record: Record, name: str) -> str | None:
    value: Any = record.get(name)
    return None if value is None else str(value)


def _whole(record: Record, name: str) -> int | None:
    value: Any = record.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None

"""`gencfg trace --summary`: what happened in a run, as a report."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from llmdoctor.core.document import Bar, Bars, Block, Cell, Code, Fold, Headline, Note, Table, Tone
from llmdoctor.core.finding import Finding, Location, Severity
from llmdoctor.core.report import Report, Skipped
from llmdoctor.core.text import plural, shown
from llmdoctor.gencfg.causes import Cause
from llmdoctor.gencfg.findings import call_findings
from llmdoctor.gencfg.imports import import_blocks
from llmdoctor.gencfg.runaway.rules import PASSED
from llmdoctor.gencfg.tables import origin_table
from llmdoctor.gencfg.trace.read import Reading
from llmdoctor.gencfg.trace.sides import imported
from llmdoctor.gencfg.trace.tally import Site, Tally, own_caller, tally

_SITES, _CHANGES = 12, 5
_MUTATION = ("target", "model", "field", "before", "after", "source", "file", "line", "rank")


def summary_report(path: str) -> Report:
    """Read a trace and say what happened in it.

    Raises QuestionError where it cannot be read.
    """
    return report_on(Reading(path))


def report_on(reading: Reading) -> Report:
    """The report on a trace that has not been read yet."""
    path = reading.path
    total = tally(reading.records())
    sites = sorted(total.sites.values(), key=lambda site: (site.bad is None, not site.passed, -site.sequences))
    findings = tuple(finding for site in sites for finding in _findings(site))
    cause = next((found for site in sites if (found := site.cause()) is not None), None)
    return Report(
        "gencfg trace",
        subject={"path": path},
        result=_result(total, sites, cause, reading),
        findings=findings,
        skipped=_skipped(reading, total),
        document=_document(path, total, sites, cause, reading),
        nothing=not total.calls,
        told=True,
    )


def _findings(site: Site) -> Iterator[Finding]:
    """What is wrong at one call site: what cannot stop, and what could but ran past a terminator all the same."""
    if site.bad is not None:
        yield from (replace(finding, message=f"{site.source}: {finding.message}") for finding in call_findings(site.bad))
    elif site.passing is not None and (cause := site.cause()) is not None:
        yield Finding(
            PASSED.code,
            # Turns of a conversation that one generate() writes look so too, and do stop in the end.
            Severity.WARNING if site.stopped == site.sequences else PASSED.severity,
            f"{site.source}: {sum(site.passed.values())} of {plural(site.sequences, 'sequence')} ran past a terminator: {cause.brief}",
            cause.location,
            {"passed": dict(site.passed), "median_position": site.median_position(), "wasted_tokens": site.wasted},
            cause.text,
            cause.fix,
        )


def _skipped(reading: Reading, total: Tally) -> tuple[Skipped, ...]:
    gone = []
    if reading.unreadable:
        lines = ", ".join(map(str, reading.unreadable[:5]))
        gone.append(Skipped(f"{reading.path}:{lines}", f"{plural(len(reading.unreadable), 'line')} cut off or no record"))
    if total.faults:
        first = total.faults[0]
        gone.append(
            Skipped(str(first.get("where")), f"the tracer failed there ({plural(len(total.faults), 'fault')}): {first.get('error')}")
        )
    return tuple(gone)


def _result(total: Tally, sites: list[Site], cause: Cause | None, reading: Reading) -> dict[str, Any]:
    ended: dict[str, int] = {}
    for site in sites:
        for reason, count in site.ended_by.items():
            ended[reason] = ended.get(reason, 0) + count
    run = reading.run or {}
    return {
        "calls": total.calls,
        "sequences": sum(site.sequences for site in sites),
        "ranks": len(total.ranks),
        "overhead": total.overhead(),
        "exit_code": run.get("exit_code"),
        "command": run.get("command"),
        "ended_by": ended,
        "sites": [_site(site) for site in sites],
        "imports": [
            {name: record.get(name) for name in ("package", "version", "observed", "changed", "file", "line")} for record in total.imports
        ],
        "mutations": [{name: record.get(name) for name in _MUTATION} for record in total.mutations],
        "loads": [{"model": load.get("model"), "class": load.get("class")} for load in total.loads],
        "vllm": [{"source": call.get("source"), "sampling_params": call.get("sampling_params")} for call in total.vllm],
        "cause": None if cause is None else cause.text,
        "complete": reading.run is not None and not reading.unreadable,
    }


def _site(site: Site) -> dict[str, Any]:
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
        "passed_terminators": {
            "sequences": sum(site.passed.values()),
            "tokens": dict(site.passed),
            "median_position": site.median_position(),
        },
        "new_tokens": site.tokens,
        "wasted_tokens": site.wasted,
    }


# --- what a person reads ----------------------------------------------------------------------------------------------------------


def _document(path: str, total: Tally, sites: list[Site], cause: Cause | None, reading: Reading) -> tuple[Block, ...]:
    blocks: list[Block] = [_verdict(total, sites, cause, reading), Note("RUN", _run(total, reading), "dim")]
    if sites:
        rows = [row for site in sites[:_SITES] for row in _rows(site)]
        blocks.append(Table(("call site", "how its sequences ended"), tuple(rows)))
        blocks += _pictures(sites[:_SITES])
        if len(sites) > _SITES:
            blocks.append(Note("ALSO", f"{len(sites) - _SITES} more call sites (--format json shows them)", "dim"))
    if cause is not None:
        blocks.append(Note("CAUSE", cause.text))
    blocks += _assigned(total, cause)
    blocks += import_blocks(map(imported, total.imports))
    if not total.calls:
        blocks += _elsewhere(total)
    if cause is not None and cause.watch:
        blocks.append(Note("WATCH", cause.watch, "warn"))
    if cause is not None:
        blocks.append(Code("FIX", cause.fix))
    if reading.parts:
        blocks.append(Note("NOTE", "the run was cut off before its files were merged; this is what each process had written", "warn"))
    if total.calls and reading.lines is None:
        blocks.append(Note("NEXT", f"llmdoctor gencfg diff {shlex.quote(path)}"))
    return tuple(blocks)


def _verdict(total: Tally, sites: list[Site], cause: Cause | None, reading: Reading) -> Headline:
    if not total.calls and reading.unreadable:
        return Headline("NO generate() STANDS IN WHAT IS LEFT of this trace", "warn")
    if not total.calls:
        return Headline("NO generate() HAPPENED in this run" + (", its rollouts went through vLLM" if total.vllm else ""), "warn")
    never = sum(site.never_stops for site in sites)
    if never:
        what = cause.brief if cause is not None else "no token ends a sequence"
        return Headline(f"NEVER STOPS: {what} ({never} of {plural(total.calls, 'call')})", "bad")
    failed = next((site.bad.effective.error for site in sites if site.bad is not None and site.bad.effective.error is not None), None)
    if failed is not None:
        return Headline(f"FAILS: {failed.type} in generate(): {failed.message}", "bad")
    sequences, passed = sum(site.sequences for site in sites), sum(sum(site.passed.values()) for site in sites)
    if passed:
        return Headline(
            f"RAN PAST A TERMINATOR: {passed} of {plural(sequences, 'sequence')}, though the calls do have an eos_token_id", "bad"
        )
    unfinished = sum(site.unfinished for site in sites)
    if unfinished:
        return Headline(f"CUT OFF: {plural(unfinished, 'call')} that could have stopped had not ended when the run did", "warn")
    cut = sum(site.ended_by["length"] for site in sites)
    if cut:
        return Headline(f"CAN STOP, but {cut} of {plural(sequences, 'sequence')} reached the limit without a terminator", "warn")
    return Headline(f"EVERY SEQUENCE STOPPED: {sequences} of {sequences}", "good")


def _run(total: Tally, reading: Reading) -> str:
    ranks = (
        plural(len(total.ranks), "rank")
        if len(total.ranks) > 1
        else plural(len(total.processes), "process")
        if total.processes
        else "no traced process"
    )
    parts = [ranks if total.processes else "no traced process", plural(total.calls, "generate() call")]
    overhead = total.overhead()
    if overhead is not None:
        parts.append(f"overhead {overhead:.1%}")
    code = (reading.run or {}).get("exit_code")
    if code:
        parts.append(f"the command ended with {code}")
    return ", ".join(parts)


def _pictures(sites: list[Site]) -> Iterator[Block]:
    """For a page: how sequences ended as bars, and the config of each call site with where every field is from."""
    parts = ("stopped", "ran past a terminator", "ran to the limit")
    bars = []
    for site in sites:
        passed = min(sum(site.passed.values()), site.sequences - site.stopped)
        bars.append(Bar(site.source, (site.stopped, passed, site.sequences - site.stopped - passed), chosen=site.never_stops > 0))
    if any(site.sequences for site in sites):
        yield Fold("How its sequences ended", (Bars("Sequences by call site", "sequences", parts, tuple(bars), digits=0),), open=True)
    for site in sites:
        answer = site.bad or (site.passing[0] if site.passing is not None else site.first)
        if answer is not None:
            yield Fold(
                f"{site.source}: the generation config of a call, field by field",
                (origin_table(answer.effective.fields, answer.effective.stop.never_stops),),
            )


def _rows(site: Site) -> list[tuple[str | Cell, ...]]:
    rows: list[tuple[str | Cell, ...]] = [(site.source, _ended(site))]
    details = _details(site)
    caller = own_caller(site.source, site.stack)
    first = "" if caller is None else f"  from {caller}"
    if first and not details:
        details = [""]
    for index, detail in enumerate(details):
        rows.append((Cell(first if index == 0 else "", "dim"), Cell(detail, "dim")))
    return rows


def _ended(site: Site) -> Cell:
    if site.failed == site.calls:
        return Cell(f"{plural(site.calls, 'call')} failed", "bad")
    reasons = [reason for reason in site.ended_by if reason != "length"]
    at = f" at {reasons[0]}" if len(reasons) == 1 and reasons[0] in ("eos", "stop_string") else ""
    text = f"{site.stopped} of {plural(site.sequences, 'sequence')} stopped{at}"
    if site.unfinished:
        text = f"{plural(site.unfinished, 'call')} had not ended when the run did" + (f"; {text}" if site.sequences else "")
    if site.failed:
        text += f"; {plural(site.failed, 'call')} failed"
    tone: Tone = "bad" if site.never_stops else "warn" if site.stopped < site.sequences or site.passed else "good"
    return Cell(text, tone)


def _details(site: Site) -> list[str]:
    passed = sum(site.passed.values())
    if not passed:
        limit = site.limits.most_common(1)
        return [f"{site.ended_by['length']} ran to {limit[0][0]} tokens" if limit else "the limit"] if site.ended_by["length"] else []
    names = ", ".join(shown(name).strip("'") for name, _ in site.passed.most_common(3))
    waste = f"{site.wasted / site.tokens:.0%} of the tokens were waste" if site.tokens else ""
    limit = site.limits.most_common(1)
    of = f" of {limit[0][0]}" if limit else ""
    return [f"{passed} produced {names} and ran past it", f"median position {site.median_position()}{of}: {waste}"]


def _assigned(total: Tally, cause: Cause | None) -> list[Block]:
    """Assignments to a model's generation config other than the one that CAUSE tells."""
    lines: dict[str, None] = {}
    for record in total.mutations:
        if record.get("model") is not None and not (cause is not None and cause.location is not None and _is_at(record, cause.location)):
            lines |= dict.fromkeys(f"{record.get('source')} set {change}" for change in _changes_of(record))
    told = [*lines][:_CHANGES]
    more = len(lines) - len(told)
    return [Note("ALSO SET", "\n".join([*told, *([f"and {more} more (--format json shows them)"] if more else [])]), "dim")] if told else []


def _changes_of(record: dict[str, Any]) -> Iterator[str]:
    """Field by field, also of a config that was replaced whole; eos_token_id first."""
    before, after = record.get("before"), record.get("after")
    if record.get("target") == "model" and isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}, key=lambda name: (name != "eos_token_id", name)):
            yield f"{name} {shown(before.get(name))} -> {shown(after.get(name))}"
    else:
        yield f"{record.get('field')} {shown(before)} -> {shown(after)}"


def _is_at(record: dict[str, Any], place: Location) -> bool:
    return record.get("line") == place.line and os.path.basename(str(record.get("file"))) == os.path.basename(place.file)


def _elsewhere(total: Tally) -> list[Block]:
    """What did happen in a run without generate()."""
    if total.vllm:
        first = total.vllm[0]
        params = first.get("sampling_params")
        given = params if isinstance(params, dict) else {}
        names = ("n", "temperature", "top_p", "top_k", "max_tokens", "stop", "stop_token_ids", "ignore_eos")
        told = ", ".join(f"{name} {shown(given[name])}" for name in names if given.get(name) not in (None, []))
        blocks: list[Block] = [
            Note("VLLM", f"{plural(len(total.vllm), 'set')} of SamplingParams, the first at {first.get('source')}: {told}")
        ]
        if given.get("ignore_eos"):
            blocks.append(Note("WATCH", "ignore_eos is on: every sequence of these runs to max_tokens", "warn"))
        return [*blocks, Note("NEXT", "llmdoctor gencfg runaway OUTPUTS.jsonl  with what vLLM returned")]
    if total.loads:
        loaded = ", ".join(sorted({os.path.basename(str(load.get("model"))) for load in total.loads}))
        return [Note("SEEN", f"{plural(len(total.loads), 'model')} loaded ({loaded}), none asked to generate()")]
    if total.processes:
        return [Note("SEEN", "transformers was imported, no model was loaded")]
    return [
        Note(
            "SEEN",
            "no Python process with transformers in it; a Python started with -I, -E or -S, in a container or on another host is not traced",
        )
    ]

"""What a person reads of a trace, below the verdict."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from llmdoctor.core.document import Bar, Bars, Block, Cell, Fold, Note, Table, Tone
from llmdoctor.core.finding import Finding, Location
from llmdoctor.core.text import plural, shown
from llmdoctor.gencfg.causes import Cause
from llmdoctor.gencfg.imports import import_blocks
from llmdoctor.gencfg.tables import origin_table
from llmdoctor.gencfg.trace.counts import CallSite, TraceCounts, own_caller
from llmdoctor.gencfg.trace.sides import imported
from llmdoctor.gencfg.trace.trace_file import TraceFile

_SITES, _CHANGES = 12, 5


def document_of(
    trace: TraceFile, total: TraceCounts, sites: Sequence[CallSite], cause: Cause | None, findings: Sequence[Finding]
) -> tuple[Block, ...]:
    """Return what was run, the call sites, the findings, the assignments and imports, and the next command."""
    blocks: list[Block] = [Note("Ran", _run(total, trace), "dim")]
    if sites:
        rows = [row for site in sites[:_SITES] for row in _rows(site)]
        blocks.append(Table(("Call site", "How its sequences ended"), tuple(rows)))
        blocks += _pictures(sites[:_SITES])
        if len(sites) > _SITES:
            blocks.append(Note("More", f"{len(sites) - _SITES} more call sites (--format json lists them).", "dim"))
    blocks += findings
    blocks += _assigned(total, cause)
    blocks += import_blocks(map(imported, total.imports))
    if not total.calls:
        blocks += _elsewhere(total)
    if cause is not None and cause.watch:
        blocks.append(Note("Warning", cause.watch, "warn"))
    if total.calls and trace.lines is None:
        blocks.append(Note("Next", f"llmdoctor gencfg diff {shlex.quote(trace.path)}"))
    return tuple(blocks)


def _run(total: TraceCounts, trace: TraceFile) -> str:
    ranks = plural(len(total.ranks), "rank") if len(total.ranks) > 1 else plural(len(total.processes), "process")
    parts = [ranks if total.processes else "no traced process", plural(total.calls, "generate() call")]
    overhead = total.overhead()
    if overhead is not None:
        parts.append(f"overhead of the recorder {overhead:.1%}")
    code = (trace.run or {}).get("exit_code")
    if code is not None:
        parts.append(f"exit code {shown(code)}")
    return ", ".join(parts)


def _pictures(sites: Sequence[CallSite]) -> Iterator[Block]:
    """Yield, for a page, how sequences ended as bars, and the config of each call site with the source of every field."""
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


def _rows(site: CallSite) -> list[tuple[str | Cell, ...]]:
    rows: list[tuple[str | Cell, ...]] = [(site.source, _ended(site))]
    details = _details(site)
    caller = own_caller(site.source, site.stack)
    first = "" if caller is None else f"  from {caller}"
    if first and not details:
        details = [""]
    for index, detail in enumerate(details):
        rows.append((Cell(first if index == 0 else "", "dim"), Cell(detail, "dim")))
    return rows


def _ended(site: CallSite) -> Cell:
    if site.own == site.calls:
        return Cell(f"{plural(site.calls, 'call')} of the model's own generate(), whose loop is not recorded", "warn")
    if site.failed == site.calls:
        return Cell(f"{plural(site.calls, 'call')} raised an exception", "bad")
    reasons = [reason for reason in site.ended_by if reason != "length"]
    at = f" at {reasons[0]}" if len(reasons) == 1 and reasons[0] in ("eos", "stop_string") else ""
    text = f"{site.stopped} of {plural(site.sequences, 'sequence')} stopped{at}"
    if site.unfinished:
        text = f"{plural(site.unfinished, 'call')} had not ended when the run ended" + (f"; {text}" if site.sequences else "")
    if site.failed:
        text += f"; {plural(site.failed, 'call')} raised an exception"
    tone: Tone = "bad" if site.never_stops else "warn" if site.stopped < site.sequences or site.passed else "good"
    return Cell(text, tone)


def _details(site: CallSite) -> list[str]:
    criteria = [f"StoppingCriteria: {', '.join(sorted(site.criteria))}"] if site.criteria else []
    return [*_own(site), *_lengths(site), *criteria]


def _own(site: CallSite) -> list[str]:
    """Return where a generate() of the model's own is, and what it was called with."""
    last = site.last if site.own else None
    if last is None or not isinstance(last.get("own"), str):
        return []
    kwargs = last.get("kwargs")
    given = ", ".join(f"{name} {shown(value)}" for name, value in kwargs.items()) if isinstance(kwargs, dict) else ""
    return [f"defined at {os.path.basename(last['own'])}", *([f"called with {given}"] if given else [])]


def _lengths(site: CallSite) -> list[str]:
    passed = sum(site.passed.values())
    if not passed:
        limit = site.limits.most_common(1)
        return [f"{site.ended_by['length']} ran to {limit[0][0]} tokens" if limit else "the limit"] if site.ended_by["length"] else []
    names = ", ".join(shown(name).strip("'") for name, _ in site.passed.most_common(3))
    waste = f"{site.wasted / site.tokens:.0%} of the tokens were waste" if site.tokens else ""
    limit = site.limits.most_common(1)
    of = f" of {limit[0][0]}" if limit else ""
    return [f"{passed} produced {names} and ran past it", f"median position {site.median_position()}{of}: {waste}"]


def _assigned(total: TraceCounts, cause: Cause | None) -> list[Block]:
    """Return the assignments to a model's generation config, without the one that is the cause."""
    lines: dict[str, None] = {}
    for record in total.mutations:
        if record.get("model") is not None and not (cause is not None and cause.location is not None and _is_at(record, cause.location)):
            lines |= dict.fromkeys(f"{record.get('source')} set {change}" for change in _changes_of(record))
    listed = [*lines][:_CHANGES]
    more = len(lines) - len(listed)
    return [Note("Also", "\n".join([*listed, *([f"and {more} more (--format json lists them)"] if more else [])]), "dim")] if listed else []


def _changes_of(record: dict[str, Any]) -> Iterator[str]:
    """Yield the changes field by field, also of a config that was replaced as a whole; eos_token_id first."""
    before, after = record.get("before"), record.get("after")
    if record.get("target") == "model" and isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}, key=lambda name: (name != "eos_token_id", name)):
            yield f"{name} {shown(before.get(name))} -> {shown(after.get(name))}"
    else:
        yield f"{record.get('field')} {shown(before)} -> {shown(after)}"


def _is_at(record: dict[str, Any], place: Location) -> bool:
    return record.get("line") == place.line and os.path.basename(str(record.get("file"))) == os.path.basename(place.file)


def _elsewhere(total: TraceCounts) -> list[Block]:
    """Return what did happen in a run without generate()."""
    if total.vllm:
        first = total.vllm[0]
        params = first.get("sampling_params")
        given = params if isinstance(params, dict) else {}
        names = ("n", "temperature", "top_p", "top_k", "max_tokens", "stop", "stop_token_ids", "ignore_eos")
        settings = ", ".join(f"{name} {shown(given[name])}" for name in names if given.get(name) not in (None, []))
        blocks: list[Block] = [
            Note("Evidence", f"{plural(len(total.vllm), 'set')} of vLLM SamplingParams, the first at {first.get('source')}: {settings}")
        ]
        if given.get("ignore_eos"):
            blocks.append(Note("Warning", "ignore_eos is on: every one of these sequences runs to max_tokens.", "warn"))
        return [*blocks, Note("Next", "llmdoctor gencfg runaway OUTPUTS.jsonl   with what vLLM returned")]
    if total.loads:
        loaded = ", ".join(sorted({os.path.basename(str(load.get("model"))) for load in total.loads}))
        return [Note("Evidence", f"{plural(len(total.loads), 'model')} loaded ({loaded}), and none of them generated.")]
    if total.processes:
        return [Note("Evidence", "transformers was imported, and no model was loaded.")]
    return [
        Note(
            "Evidence",
            "There was no Python process with transformers in it. A Python that is started with -I, -E or -S, in a container or on another host, "
            "is not traced.",
        )
    ]

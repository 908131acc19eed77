"""Findings about a model directory: each rule is a function from what was examined to its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from llmdoctor.core.finding import Finding
from llmdoctor.gencfg import rules, stop_findings, weight_findings
from llmdoctor.gencfg.causes import wanted_ids
from llmdoctor.gencfg.engines.table import engines
from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.file_findings import (
    adapter_vocabulary,
    beyond_embedding,
    class_default,
    ignored_sampling,
    model_defaults,
    pad_is_eos,
    pad_outside,
    token_conflict,
    unknown_fields,
)
from llmdoctor.gencfg.findings import call_findings
from llmdoctor.gencfg.places import named_ids, own_code, place, verdicts


def directory_findings(examined: Examined) -> Iterator[Finding]:
    """Yield every finding of every rule about one model directory."""
    for rule in _RULES:
        yield from rule(examined)


def findings_without_call(examined: Examined) -> Iterator[Finding]:
    """Yield the findings that hold for a model without generate(), too: they are about its tokens and weights."""
    for rule in _RULES_WITHOUT_CALL:
        yield from rule(examined)


def _call(examined: Examined) -> Iterator[Finding]:
    """GEN001, GEN004, GEN005: the plain call raises or never stops."""
    for finding in call_findings(examined.answer):
        if finding.code == rules.TURN_END.code:
            continue  # judged with the other engines beside it
        where = finding.location or place(examined.file, "")
        located = replace(finding, location=where, evidence={**finding.evidence, **verdicts(examined)})
        if finding.code == rules.NO_TERMINATOR.code and (wanted := wanted_ids(examined.answer)):
            fix, edits = stop_findings.stop_at(examined, wanted, safe=examined.stop_ids.turn_end in wanted)
            located = replace(located, fix=fix, edits=edits)
        yield located if finding.code == rules.REJECTED.code else own_code(examined, located)


def _engines_differ(examined: Examined) -> Iterator[Finding]:
    """GEN012: an engine that reads generation_config.json stops at other tokens, or any engine passes the end of an answer."""
    ours, end = set(examined.eos), examined.terminator
    table = engines()
    ends = end is not None and end.ends_at(ours)
    differing = {
        name: effective.stop.eos_token_id
        for name, effective in examined.elsewhere.items()
        if effective.error is None
        and (
            (table[name].file_defaults and set(effective.stop.eos_token_id) != ours)
            or (ends and end and not end.ends_at(effective.stop.eos_token_id))
        )
    }
    if not differing or not examined.runs or not ours:
        return
    others = "; ".join(f"{table[name].title} at {named_ids(ids)}" for name, ids in differing.items())
    yield rules.ENGINES_DIFFER.at(
        place(examined.file, "/eos_token_id"), f"transformers stops at {named_ids(examined.eos)}; {others}", **verdicts(examined)
    )


def _unresolved(examined: Examined) -> Iterator[Finding]:
    """GEN013: no file gives the id that ends a turn."""
    end = examined.terminator
    if end is None or end.reason is None:
        return
    named = [examined.directory.tokenizer.token_of(token) for token in examined.eos]
    if end.token is not None and end.token in named:
        return
    file = examined.directory.tokenizer_config or examined.directory.config
    in_file = file is not None and isinstance(file.value, dict) and "chat_template" in file.value
    yield rules.UNRESOLVED.at(place(file, "/chat_template" if in_file else ""), end.reason, token=end.token)


_RULES: tuple[Callable[[Examined], Iterator[Finding]], ...] = (
    _call,
    stop_findings.turn_end,
    stop_findings.tokenizer_eos,
    stop_findings.tool_end,
    stop_findings.stops_early,
    stop_findings.suppressed,
    class_default,
    pad_outside,
    ignored_sampling,
    token_conflict,
    beyond_embedding,
    adapter_vocabulary,
    pad_is_eos,
    model_defaults,
    unknown_fields,
    weight_findings.weights,
    _engines_differ,
    _unresolved,
)
_RULES_WITHOUT_CALL: tuple[Callable[[Examined], Iterator[Finding]], ...] = (
    token_conflict,
    beyond_embedding,
    adapter_vocabulary,
    weight_findings.weights,
)

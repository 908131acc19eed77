"""Findings about where a model directory's plain call stops: too late (GEN002, GEN003, GEN004, GEN021), or too early (GEN022)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from llmdoctor.core.edit import Edit
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.rule import Rule
from llmdoctor.core.text import is_id, listed
from llmdoctor.gencfg import rules
from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.places import own_code, place, verdicts


def turn_end(examined: Examined) -> Iterator[Finding]:
    """GEN002: the token that ends an answer is not an eos id."""
    end, stop_ids = examined.terminator, examined.stop_ids
    token = stop_ids.turn_end
    if end is None or token is None or not _judgeable(examined) or end.ends_at(examined.eos) or stop_ids.is_outside(token):
        return
    also = ", which is also the tokenizer's eos_token" if stop_ids.tokenizer_eos == token else ""
    finding = _missing(examined, rules.TURN_END, token, f"the chat template ends an answer with {end.token} ({token}){also}")
    if end.ends_late_at(examined.eos):
        finding = _late(finding)
    elif stop_ids.tokenizer_eos in examined.eos:  # Qwen2.5 is published like this, and a fine-tuned copy of it inherits the files
        base = "the tokenizer's eos_token agrees with the file: right for a base model that only continues text, wrong for answers"
        finding = replace(finding, cause=f"{finding.cause}; {base}")
    yield finding


def _late(finding: Finding) -> Finding:
    """Return GEN002 for a call that stops at what the template writes behind the end of an answer: right only if the model writes it as well."""
    cause = "the template writes that id behind the last turn only: a model that does not produce it there goes on as the other speaker"
    return replace(finding, severity=Severity.WARNING, cause=f"{finding.cause}; {cause}")


def tokenizer_eos(examined: Examined) -> Iterator[Finding]:
    """GEN003: the tokenizer's eos_token is not an eos id. A note if the call stops where the chat template ends an answer."""
    stop_ids, special = examined.stop_ids, examined.directory.tokenizer.special("eos_token")
    token = stop_ids.tokenizer_eos
    if special is None or token is None or not _judgeable(examined) or token in examined.eos or stop_ids.is_outside(token):
        return
    if stop_ids.turn_end == token:
        return  # GEN002 reports the same token
    separator = examined.directory.tokenizer.special("sep_token")
    if separator is not None and separator.id in examined.eos:
        return  # BERT's tokenizers end a sequence with [SEP], not with eos_token
    finding = _missing(examined, rules.TOKENIZER_EOS, token, f"the tokenizer's eos_token is {special.token} ({token})")
    if stop_ids.ends_early(token):
        cause = "the chat template writes this token inside an answer, so generate() must not stop there"
        finding = replace(finding, severity=Severity.INFO, cause=cause, fix=rules.TOKENIZER_EOS.fix, edits=())
    elif examined.terminator is not None and examined.terminator.ends_at(examined.eos):
        cause = "generate() stops where the chat template ends an answer; the token matters only for text without the template"
        finding = replace(finding, severity=Severity.INFO, cause=cause, edits=())
    yield finding


def tool_end(examined: Examined) -> Iterator[Finding]:
    """GEN021: the token that ends a tool call is not an eos id."""
    end, token = examined.terminator, examined.stop_ids.tool_end
    if end is None or end.tool is None or token is None or not _judgeable(examined) or token in examined.eos:
        return
    yield _missing(examined, rules.TOOL_END, token, f"the chat template ends a tool call with {end.tool.token} ({token})")


def stops_early(examined: Examined) -> Iterator[Finding]:
    """GEN022: an eos id is ordinary text, or occurs inside an answer."""
    stop_ids, end = examined.stop_ids, examined.terminator
    field = examined.answer.effective.fields.get("eos_token_id")
    ending = set() if end is None else {end.id, *end.after, stop_ids.tool_end}
    for token in examined.eos:
        if field is None or token in ending or token == stop_ids.tokenizer_eos or not stop_ids.ends_early(token):
            continue
        text = examined.directory.tokenizer.text_of(token)
        if stop_ids.is_text(token):
            message = f"eos_token_id holds {token}, which is the ordinary text {_readable(text)}: every answer ends at the first one"
            severity = None
        else:
            message = f"eos_token_id holds {token} {text}, which the chat template writes inside an answer: generation ends there"
            severity = Severity.WARNING
        wanted = stop_ids.wanted(examined.eos)
        yield rules.STOPS_EARLY.at(
            place(examined.file, field.origin.pointer or "/eos_token_id"),
            message,
            fix=_fix(examined, wanted),
            severity=severity,
            edits=_edits(examined, wanted, safe=False),
            token=token,
            text=text,
            eos_token_id=list(examined.eos),
        )


def suppressed(examined: Examined) -> Iterator[Finding]:
    """GEN004: suppress_tokens holds the token that ends an answer, while another eos id can be produced."""
    field = examined.answer.effective.fields.get("suppress_tokens")
    token = examined.stop_ids.turn_end
    if field is None or not isinstance(field.value, list) or examined.answer.effective.stop.never_stops or not examined.runs:
        return
    if token is not None and any(is_id(each) and each == token for each in field.value):
        name = examined.stop_ids.name(token)
        yield rules.UNREACHABLE.at(
            place(examined.file, field.origin.pointer or "/suppress_tokens"),
            f"suppress_tokens holds {name}, with which the chat template ends an answer: it can never be produced",
            fix=f'"suppress_tokens": {[each for each in field.value if each != token] or None!r}'.replace("None", "null"),
            suppress_tokens=field.value,
            token=token,
        )


def _judgeable(examined: Examined) -> bool:
    """Return whether the plain call runs and has eos ids: another rule reports a call without them."""
    return examined.runs and bool(examined.eos)


def _missing(examined: Examined, rule: Rule, token: int, found: str) -> Finding:
    """Return the finding that generate() does not stop at `token`. All findings of a directory propose the same list of ids."""
    field = examined.answer.effective.fields["eos_token_id"]
    wanted = examined.stop_ids.wanted(examined.eos)
    finding = rule.at(
        place(examined.file, field.origin.pointer or "/eos_token_id"),
        f"{found}, but generate() stops only at {', '.join(map(str, examined.eos))}; {_elsewhere(examined, token)}",
        cause=f"eos_token_id {field.value!r} comes from {field.origin.file or field.origin.source}{_checked(examined)}",
        fix=_fix(examined, wanted),
        edits=_edits(examined, wanted, safe=rule in (rules.TURN_END, rules.TOOL_END)) if token in wanted else (),
        wanted=token,
        eos_token_id=list(examined.eos),
        **verdicts(examined),
    )
    return own_code(examined, finding)


def _checked(examined: Examined) -> str:
    """Return what was checked of the ids in the fix, as a clause."""
    end = examined.terminator
    known = end is not None and end.token is not None and end.reason is None
    return "; the fix names no id that the chat template writes inside an answer" if known else ""


def stop_at(examined: Examined, wanted: list[int], *, safe: bool) -> tuple[str, tuple[Edit, ...]]:
    """Return the text to paste and the edits that make a plain call stop at `wanted`."""
    return _fix(examined, wanted), _edits(examined, wanted, safe=safe)


def _fix(examined: Examined, wanted: list[int]) -> str:
    """Return the line to paste; without generation_config.json, also a file with every generation field that config.json has."""
    if examined.directory.generation_config is not None:
        return f'"eos_token_id": {wanted}   in generation_config.json'
    return f'"eos_token_id": {wanted}   in config.json, or a new generation_config.json:\n{_new_file(examined, wanted)}'


def _new_file(examined: Examined, wanted: list[int]) -> str:
    """Return a generation_config.json that decodes like config.json alone, apart from eos_token_id."""
    import json

    fields = {
        name: field.value
        for name, field in examined.answer.effective.model_fields.items()
        if field.value is not None and field.origin.layer in ("config.json", "class-default")
    }
    return json.dumps({**fields, "eos_token_id": wanted})


def _edits(examined: Examined, wanted: list[int], *, safe: bool) -> tuple[Edit, ...]:
    """Return the edit of the file whose eos_token_id counts. It is safe only if the chat template shows where an answer ends."""
    if examined.file is None or examined.directory.remote_code or not wanted:
        return ()
    return (Edit(examined.file.shown_name, "/eos_token_id", value=wanted, safe=safe),)


def _elsewhere(examined: Examined, token: int) -> str:
    """Return which other engines stop at `token` with the files as they are."""
    stopping = [engine.title for engine in examined.stopping_at(token)]
    if not stopping:
        return "no other engine known here stops there either"
    return f"{listed(stopping)} {'stops' if len(stopping) == 1 else 'stop'} there"


def _readable(text: str | None) -> str:
    """Return a vocabulary entry as a person writes it: byte-level and SentencePiece spaces are spaces."""
    return repr((text or "").replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n"))

"""The blocks and sentences that show, diff, check and runaway share."""

from __future__ import annotations

from llmdoctor.core.document import Note
from llmdoctor.core.release import release
from llmdoctor.core.report import Verdict
from llmdoctor.gencfg.engines.table import engine_named, version_for
from llmdoctor.gencfg.findings import missed_turn_end
from llmdoctor.gencfg.limits import default_limit, limits_of
from llmdoctor.gencfg.types import Effective, Resolution


def name_tokens(resolution: Resolution, ids: tuple[int, ...]) -> str:
    """Return token ids with their text beside them: "151645 <|im_end|>, 151643 <|endoftext|>"."""
    named = []
    for token_id in ids:
        token = resolution.tokenizer.token_of(token_id)
        named.append(str(token_id) if token is None else f"{token_id} {token}")
    return ", ".join(named)


def call_verdict(resolution: Resolution, subject: str = "The call") -> Verdict:
    """Return whether a call stops, and where, with every limit of the answer."""
    effective, stop = resolution.effective, resolution.effective.stop
    if effective.error is not None:
        return _limited(resolution, f"{subject} fails: {effective.error.type} in {effective.error.stage}: {effective.error.message}", False)
    limit = limit_words(effective)
    if stop.never_stops:
        return _limited(resolution, f"{subject} never stops before {limit}: {stop.because or 'no token ends it'}", False)
    if stop.unknown is not None:
        return Verdict(
            f"Undecided whether {subject[0].lower()}{subject[1:]} stops: {stop.unknown}{_added(limits_of(resolution))}", "undecided"
        )
    where = name_tokens(resolution, stop.eos_token_id) or "a stop string"
    missed = missed_turn_end(resolution)
    if missed is not None:
        end = name_tokens(resolution, (missed,))
        return _limited(resolution, f"{subject} stops at {where}, but a turn ends with {end}: an answer goes on, to at most {limit}", False)
    return _limited(resolution, f"{subject} stops at {where}, at the latest after {limit}", True)


def _limited(resolution: Resolution, text: str, good: bool) -> Verdict:
    limits = limits_of(resolution)
    return Verdict(f"{text}{_added(limits)}", "ok" if good else "problem")


def _added(limits: list[str]) -> str:
    return f"; {'; '.join(dict.fromkeys(limits))}" if limits else ""


def with_limits(text: str, *sides: Resolution) -> str:
    """Return a sentence about several calls with the limits of all of them."""
    return text + _added([limit for side in sides for limit in limits_of(side)])


def limit_words(effective: Effective) -> str:
    """Return the limit of a call as words: "512 new tokens", with a word on a default that nothing set."""
    if effective.stop.limit is None:
        return "the end of the context"
    default = " (the default)" if default_limit(effective) else ""
    return f"{effective.stop.limit} new tokens{default}"


def rules_line(resolution: Resolution) -> str:
    """Return whose rules were applied, in which version, and whether that version is installed here."""
    engine, _ = engine_named(resolution.options.engine)
    effective = resolution.effective
    version = effective.transformers.removeprefix(f"{engine.name} ")
    if resolution.from_trace:
        return f"{engine.title} {version}, as the run recorded it"
    _, named = engine_named(resolution.options.engine)
    requested = named or (resolution.options.transformers if engine.keeps_assignments else None)
    chosen = version_for(engine, requested, resolution.options.model).chosen
    how = "not installed here" if chosen.basis == "newest" else chosen.how  # the verdict names it as the newest known one
    how = how if engine.distribution is not None or chosen.basis == "pinned" else "read in its sources"
    if release(effective.rules.removeprefix("v")) != release(version):
        how += f"; the rules of {effective.rules} were applied"
    return f"{engine.title} {version}, {how}"


def rules_note(*sides: Resolution) -> Note:
    """Return the line that names the library and version of an answer."""
    lines = [rules_line(side) for side in sides]
    if len(set(lines)) == 1:
        return Note("Rules", lines[0], "dim")
    return Note("Rules", "\n".join(f"{name}: {line}" for name, line in zip(("left", "right"), lines, strict=False)), "dim")

"""Settings that a framework does not have, or whose value it does not accept: judged by the schemas of configs/, as `mem compare` reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmdoctor.configs.reading import read_file
from llmdoctor.configs.types import Configuration, UnknownKey
from llmdoctor.configs.view import Config
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.mem.config_rules.rules import REFUSED, UNKNOWN

_LISTED = 6


def key_findings(config: Config) -> Iterator[Finding]:
    """Yield the findings about the names and values of a file's settings."""
    found = read_file(config.file)
    strangers: list[UnknownKey] = []
    older = [one for one in found.unknown if one.removed is not None]
    for one in (one for one in found.unknown if one.removed is None):
        if found.format.extended and not _is_misspelt(one):
            strangers.append(one)
        else:
            yield _unknown(config, found, one)
    if older:
        yield _older(config, found, older)
    if strangers:
        yield _strangers(config, found, strangers)
    for key, reason in found.rejected.items():
        if key and not _is_template(found.values.get(key)):
            who = f"{found.format.library} {found.format.version}"
            keys = key.split(".")
            yield config.found(REFUSED, reason, *keys, cause=f"the schema of {who}", fix="write one of the values that the message names")


def _is_misspelt(one: UnknownKey, least: float = 0.9) -> bool:
    """Return whether a name is so close to a known one that it is a slip, and not another program's or another release's own."""
    import difflib

    return bool(one.close) and difflib.SequenceMatcher(None, one.key, one.close[0]).ratio() >= least


def _unknown(config: Config, found: Configuration, one: UnknownKey) -> Finding:
    who = f"{found.format.library} {found.format.version}"
    ends = "it is ignored without a warning" if one.effect == "ignores" else "the run ends with an error"
    fix = f'write "{one.close[0]}"' if one.close else "correct the name or remove it"
    rule = UNKNOWN if one.effect == "ignores" else REFUSED
    likely = _is_misspelt(one, 0.85)
    severity = None if likely else Severity.INFO if one.effect == "ignores" else Severity.WARNING
    message = f"{one.sentence(found.format, found.variant.name)}; {ends}"
    return config.found(rule, message, *one.key.split("."), cause=f"the schema of {who}", fix=fix, severity=severity)


def _older(config: Config, found: Configuration, several: list[UnknownKey]) -> Finding:
    """Return one finding for all settings that older releases had."""
    listed = [f"{one.key} ({one.removed} had it{f'; now {one.close[0]}' if one.close else ''})" for one in several[:_LISTED]]
    names = ", ".join(listed) + (f" and {len(several) - _LISTED} more" if len(several) > _LISTED else "")
    who = f"{found.format.library} {found.format.version}"
    fix = "remove them, or write the present names; with the older release they are right"
    keys = several[0].key.split(".")
    message = f"settings of older releases: {names}; a current release raises an error"
    return config.found(
        REFUSED, message, *keys, cause=f"the schema of {who}", fix=fix, severity=Severity.INFO, keys=[one.key for one in several]
    )


def _strangers(config: Config, found: Configuration, several: list[UnknownKey]) -> Finding:
    """Return one finding for all names that the framework does not have and that a script may add."""
    names = ", ".join(one.key for one in several[:_LISTED]) + (f" and {len(several) - _LISTED} more" if len(several) > _LISTED else "")
    who = f"{found.format.library} {found.format.version}"
    message = f"{who} has no {names}: its own parser raises an error, unless the script adds them"
    keys = several[0].key.split(".")
    fix = "remove them, or keep them for the script that reads them"
    return config.found(
        UNKNOWN, message, *keys, cause=f"the schema of {who}", fix=fix, severity=Severity.INFO, keys=[one.key for one in several]
    )


def _is_template(value: Any) -> bool:
    """Return whether a value is filled in by another program (${BATCH}, {{ batch }})."""
    return isinstance(value, str) and ("$" in value or "{" in value or "<" in value)

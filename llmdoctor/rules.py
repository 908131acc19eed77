"""`llmdoctor rule`: what a rule looks for, from the same words as its page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmdoctor.core.document import Block, Code, Headline, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report
from llmdoctor.core.rule import Rule


def all_rules() -> tuple[Rule, ...]:
    """Every rule of every job, by code."""
    from llmdoctor.callsites.rules import RULES as CALL_SITES
    from llmdoctor.files.rules import RULES as FILES
    from llmdoctor.gencfg.request_rules import RULES as REQUESTS
    from llmdoctor.gencfg.rules import RULES as GENERATION
    from llmdoctor.gencfg.runaway.rules import RULES as OUTPUTS
    from llmdoctor.labels.rules import RULES as LABELS
    from llmdoctor.mask.rules import RULES as MASK
    from llmdoctor.mem.config_rules.rules import RULES as TRAINING
    from llmdoctor.mem.rules import RULES as MEMORY
    from llmdoctor.modeldir.rules import RULES as DIRECTORY
    from llmdoctor.sample.rules import RULES as SAMPLING

    generation, memory = (*GENERATION, *OUTPUTS, *REQUESTS), (*MEMORY, *TRAINING)
    return tuple(sorted((*CALL_SITES, *FILES, *DIRECTORY, *generation, *LABELS, *MASK, *memory, *SAMPLING), key=lambda rule: rule.code))


def code_prefixes(given: Iterable[str], where: str) -> tuple[str, ...]:
    """What --select or --ignore was given, commas parted, in capitals.

    Raises QuestionError where one is no beginning of any rule's code: a rule that is mistyped is checked by nobody.
    """
    prefixes = tuple(prefix.strip().upper() for text in given for prefix in text.split(","))
    codes = [rule.code for rule in all_rules()] if prefixes else []
    for prefix in prefixes:
        if not prefix or not any(code.startswith(prefix) for code in codes):
            raise QuestionError(
                f"{where} {prefix!r}: no rule's code begins so, expected one such as GEN or GEN001 (`llmdoctor rule` lists them)"
            )
    return prefixes


def report(code: str | None) -> Report:
    """One rule's page, or the list of all; QuestionError where there is no such rule."""
    rules = all_rules()
    if code is None:
        rows = tuple((rule.code, rule.severity.value, rule.summary) for rule in rules)
        return Report("rule", {}, {"rules": [_plain(rule) for rule in rules]}, document=(Table(("code", "severity", "looks for"), rows),))
    for rule in rules:
        if rule.code == code.upper() or rule.name == code.lower():
            return Report("rule", {"code": rule.code}, {"rules": [_plain(rule)]}, document=_page(rule))
    raise QuestionError(f"there is no rule {code}: `llmdoctor rule` lists them ({rules[0].code} to {rules[-1].code})")


def _page(rule: Rule) -> tuple[Block, ...]:
    return (
        Headline(f"{rule.code} {rule.name} ({rule.severity.value})"),
        Note("LOOKS FOR", rule.summary),
        Note("WHY", rule.reason),
        Note("BAD", rule.bad, "bad"),
        Note("GOOD", rule.good, "good"),
        Code("FIX", rule.fix),
    )


def _plain(rule: Rule) -> dict[str, Any]:
    return {
        "code": rule.code,
        "name": rule.name,
        "severity": rule.severity.value,
        "summary": rule.summary,
        "reason": rule.reason,
        "bad": rule.bad,
        "good": rule.good,
        "fix": rule.fix,
    }

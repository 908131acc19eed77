"""`llmdoctor rule`: what a rule looks for, from the same words as its page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

from llmdoctor.core.document import Block, Code, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.rule import Rule
from llmdoctor.core.text import plural


def all_rules() -> tuple[Rule, ...]:
    """Return every rule of every job, by code."""
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
    """Return the values of --select or --ignore, split at commas, in capitals.

    Raises QuestionError if the code of no rule begins with one of them: a misspelt rule would never be checked.
    """
    prefixes = tuple(prefix.strip().upper() for text in given for prefix in text.split(","))
    codes = [rule.code for rule in all_rules()] if prefixes else []
    for prefix in prefixes:
        if not prefix or not any(code.startswith(prefix) for code in codes):
            raise QuestionError(
                f"{where} {prefix!r}: the code of no rule begins with it, expected one such as GEN or GEN001 (`llmdoctor rule` lists them)"
            )
    return prefixes


class RuleEntry(TypedDict):
    """One rule; `bad`, `good`, `fix` and `silence` are text to read or to paste."""

    code: str
    name: str
    severity: str
    summary: str
    reason: str
    bad: str
    good: str
    fix: str
    since: str
    fixable: bool
    silence: str


class RuleResult(TypedDict):
    """`rule`: the rules that the argument names, by code."""

    rules: list[RuleEntry]


def rule_report(code: str | None = None) -> Report:
    """Return the page of the rule `code` (its code or its name), the list of a family such as GEN, or without `code` the list of all rules.

    Raises QuestionError if there is no such rule or family.
    """
    rules = all_rules()
    one = next((rule for rule in rules if code is not None and (rule.code == code.upper() or rule.name == code.lower())), None)
    if one is not None:
        verdict = Verdict(f"{one.code} {one.name} ({one.severity.value})")
        return Report("rule", {"code": one.code}, _result([one]), document=_page(one), verdict=verdict)
    family = [rule for rule in rules if rule.code.startswith((code or "").upper())]
    if not family:
        raise QuestionError(f"there is no rule {code}: `llmdoctor rule` lists them ({rules[0].code} to {rules[-1].code})")
    rows = tuple((rule.code, rule.severity.value, rule.summary) for rule in family)
    subject = {} if code is None else {"code": code.upper()}
    verdict = Verdict(plural(len(family), "rule") + ("" if code is None else f" whose code begins with {code.upper()}"))
    return Report("rule", subject, _result(family), document=(Table(("Code", "Severity", "Looks for"), rows),), verdict=verdict)


def _result(rules: list[Rule]) -> dict[str, Any]:
    result: RuleResult = {"rules": [_entry(rule) for rule in rules]}
    return dict(result)


def _page(rule: Rule) -> tuple[Block, ...]:
    return (
        Note("Looks for", rule.summary),
        Note("Why", rule.reason),
        Note("Bad", rule.bad, "bad"),
        Note("Good", rule.good, "good"),
        Code("Fix", rule.fix),
        Note("Fixable", "yes, by check --fix or --fix --unsafe-fixes; --diff shows the change" if rule.fixable else "no, by hand"),
        Code("Silence", silence(rule)),
        Note("Since", f"llmdoctor {rule.since}"),
    )


def silence(rule: Rule) -> str:
    """Return what suppresses the findings of `rule`: the option, the setting, and for a rule about Python the comment."""
    ways = [f"--ignore {rule.code}", f'ignore = ["{rule.code}"]  # [tool.llmdoctor] in pyproject.toml']
    return "\n".join([*ways, f"# llmdoctor: ignore[{rule.code}]  at the end of the line"] if rule.code.startswith("PYC") else ways)


def _entry(rule: Rule) -> RuleEntry:
    return {
        "code": rule.code,
        "name": rule.name,
        "severity": rule.severity.value,
        "summary": rule.summary,
        "reason": rule.reason,
        "bad": rule.bad,
        "good": rule.good,
        "fix": rule.fix,
        "since": rule.since,
        "fixable": rule.fixable,
        "silence": silence(rule),
    }

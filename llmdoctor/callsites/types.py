"""What the functions of the rules return."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Pitfall:
    """A place in a syntax tree where a rule applies; it becomes a finding once the path of the file is known.

    `cause` names another line that takes part in it; `severity` replaces that of the rule.
    """

    rule: Rule
    node: ast.AST
    message: str
    cause: str | None = None
    severity: Severity | None = None

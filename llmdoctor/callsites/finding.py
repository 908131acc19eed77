"""What a rule's function hands back before the file's path is known."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from llmdoctor.core.rule import Rule


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Found:
    """A rule's finding at a node of the tree; `cause` names another line that takes part in it."""

    rule: Rule
    node: ast.AST
    message: str
    cause: str | None = None

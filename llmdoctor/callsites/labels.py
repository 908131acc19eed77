"""PYC005: labels in which the end of an answer has been masked with the padding."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from llmdoctor.callsites.module import Module, Scope
from llmdoctor.callsites.names import called, dotted, is_literal, keyword, last, number, unwrapped
from llmdoctor.callsites.pads import PAD, PadOrigin, compared, eos_write, pad_origin
from llmdoctor.callsites.rules import PAD_LABELS
from llmdoctor.callsites.state import TrackedSetting
from llmdoctor.callsites.types import Pitfall
from llmdoctor.core.finding import Severity

_COLLATORS = {"DataCollatorForLanguageModeling": "transformers", "DataCollatorForCompletionOnlyLM": "trl"}
_IGNORED = re.compile(r"ignore_?(index|id|label|token)", re.IGNORECASE)


def find(module: Module) -> Iterator[Pitfall]:
    """Yield each collator and each line that sets the label of the pad token to -100, if the pad token is the eos token."""
    pads = TrackedSetting(module, PAD)
    for scope in module.scopes:
        yield from _collators(scope, pads)
        for node, condition, equal in _masked(scope):
            origin = _origin(condition, equal, scope, pads)
            if origin is not None:
                yield _pitfall(node, "the labels that equal the pad token become -100", origin)


def _collators(scope: Scope, pads: TrackedSetting) -> Iterator[Pitfall]:
    for call in scope.calls:
        package, _, name = pads.module.origin(call).rpartition(".")
        if package.split(".")[0] != _COLLATORS.get(name):
            continue
        tokenizer = keyword(call, "tokenizer") or (call.args[0] if call.args and package.startswith("transformers") else None)
        causal = is_literal(keyword(call, "mlm") or (call.args[1] if len(call.args) > 1 else None), False) or package.startswith("trl")
        if causal and (origin := eos_write(dotted(tokenizer), scope, pads, call)) is not None:
            yield _pitfall(call, f"{name} takes the pad token out of the loss", origin)


def _pitfall(node: ast.AST, what: str, origin: PadOrigin) -> Pitfall:
    """Return the pitfall; a note if the line runs only for a tokenizer without a pad token, which cannot be seen here."""
    message = f"{what}, and {origin.condition}the pad token is the eos token: the model is not trained to end"
    return Pitfall(PAD_LABELS, node, message, origin.cause, Severity.INFO if origin.guarded else None)


def _masked(scope: Scope) -> Iterator[tuple[ast.AST, ast.expr, bool]]:
    """Yield what sets something to -100: the node, the condition, and whether that happens where the condition is true."""
    for assignment in scope.assignments:
        if isinstance(assignment.target, ast.Subscript) and _is_ignored(assignment.value):
            yield assignment.node, assignment.target.slice, True
    for call in scope.calls:
        name, arguments = called(call), call.args
        if name in ("masked_fill", "masked_fill_") and len(arguments) >= 2 and _is_ignored(arguments[-1]):
            yield call, arguments[-2], True
        elif name == "where" and len(arguments) == 3:
            if _is_ignored(arguments[1]):
                yield call, arguments[0], True
            elif _is_ignored(arguments[2]):
                yield call, arguments[0], False
        elif name == "where" and len(arguments) == 2 and _is_ignored(arguments[1]):  # labels.where(labels != pad, -100)
            yield call, arguments[0], False
    for choice in scope.choices:
        if _is_ignored(choice.body):
            yield choice, choice.test, True
        elif _is_ignored(choice.orelse):
            yield choice, choice.test, False


def _is_ignored(node: ast.expr) -> bool:
    """Return whether a value is the label that the loss ignores."""
    if isinstance(node, ast.Call) and called(node) in ("tensor", "full_like") and node.args:
        node = node.args[-1]
    return number(node) == -100 or _IGNORED.search(last(node)) is not None


def _origin(condition: ast.expr, equal: bool, scope: Scope, pads: TrackedSetting) -> PadOrigin | None:
    """Return what makes the pad of a comparison the eos, if `condition` is a comparison with a pad that is `equal` or not."""
    condition = unwrapped(condition)
    if isinstance(condition, ast.UnaryOp) and isinstance(condition.op, ast.Invert | ast.Not):
        condition, equal = condition.operand, not equal
    if isinstance(condition, ast.Name):
        condition = scope.value_of(condition, condition) or condition
    sides = compared(condition, ast.Eq, "eq") if equal else compared(condition, ast.NotEq, "ne")
    for side in sides or ():
        if (origin := pad_origin(side, scope, pads)) is not None:
            return origin
    return None

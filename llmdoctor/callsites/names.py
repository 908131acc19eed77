"""Reading expressions: dotted names, what a wrapper call wraps, plain numbers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

# Methods that give back the same values in another dtype, place or shape.
_WRAPPERS = frozenset(
    "long int float half bool to type cpu cuda detach clone contiguous tolist item numpy squeeze unsqueeze view reshape expand byte".split()
)
_IDS = re.compile(r"(^|_)(ids|tokens|query_responses?|responses?|sequences?|queries|query)$")


def dotted(node: ast.expr | None) -> str | None:
    """`self.tokenizer.pad_token_id` of a name or a chain of attributes; None for any other expression."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])


def last(node: ast.expr | None) -> str:
    """The last part of what an expression is called: pad_token_id of a.pad_token_id, input_ids of batch["input_ids"]; "" without one."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Subscript):
        return node.slice.value if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str) else last(node.value)
    return ""


def owner(node: ast.expr | None) -> str:
    """The last part of what an attribute belongs to: tokenizer of self.tokenizer.pad_token_id."""
    return last(node.value) if isinstance(node, ast.Attribute) else ""


def called(call: ast.expr | None) -> str:
    """Return the last part of the called name: generate for model.generate(...); "" if `call` is not a call."""
    return last(call.func) if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute | ast.Name) else ""


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The argument given by that name, or None."""
    return next((given.value for given in call.keywords if given.arg == name), None)


def unwrapped(node: ast.expr) -> ast.expr:
    """`x` of `x.long().to(device)`, and of anything else that only changes dtype, place or shape."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _WRAPPERS:
        node = node.func.value
    return node


def number(node: ast.expr | None) -> int | float | None:
    """Return the value of a number literal, also of `-1`; None for everything else, a bool included."""
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, node = -1, node.operand
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return sign * node.value
    return None


def is_literal(node: ast.expr | None, value: object) -> bool:
    """Whether the expression is this None, True, False or string, as it is written."""
    return isinstance(node, ast.Constant) and type(node.value) is type(value) and node.value == value


def are_ids(node: ast.expr) -> bool:
    """Whether an expression is called what token ids are called."""
    return _IDS.search(last(unwrapped(node))) is not None


def targets(node: ast.stmt | ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Every target of an assignment with the value it gets; (a, b) = c, d in pairs."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple) and len(target.elts) == len(node.value.elts):
                yield from zip(target.elts, node.value.elts, strict=True)
            else:
                yield target, node.value
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        yield node.target, node.value

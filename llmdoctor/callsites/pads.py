"""Whether a file makes the eos token the pad token, and where."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from llmdoctor.callsites.module import Scope
from llmdoctor.callsites.names import called, dotted, last, unwrapped
from llmdoctor.callsites.state import TrackedSetting, Write, line_of

PAD = re.compile(r"^_?pad(ding)?(_token)?(_ids?)?$")
EOS = re.compile(r"^_?(eos|eod)(_token)?(_ids?)?$")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PadOrigin:
    """The line that makes the eos token the pad token; `guarded` if it runs only for a tokenizer without a pad token."""

    node: ast.AST
    guarded: bool

    @property
    def condition(self) -> str:
        """The clause that a message begins with: a guarded line does nothing for a tokenizer that has a pad token of its own."""
        return "if the tokenizer has no pad token of its own, " if self.guarded else ""

    @property
    def cause(self) -> str:
        """The sentence that names the line."""
        return f"line {line_of(self.node)} makes the eos token the pad token" + (" if there is none" if self.guarded else "")


def is_eos(value: ast.expr) -> bool:
    """Return whether a value is the eos token, or becomes it if there is no pad token: `pad or eos`, `eos if pad is None else pad`."""
    if isinstance(value, ast.BoolOp | ast.IfExp):
        return any(EOS.match(last(each)) is not None for each in _alternatives(value))
    return EOS.match(last(value)) is not None


def _alternatives(value: ast.expr) -> list[ast.expr]:
    if isinstance(value, ast.BoolOp):
        return value.values
    return [value.body, value.orelse] if isinstance(value, ast.IfExp) else []


def eos_write(name: str | None, scope: Scope, pads: TrackedSetting, before: ast.AST) -> PadOrigin | None:
    """Return the line that makes the eos token the pad token of the tokenizer `name`, if that holds before a node."""
    write = pads.last(name, scope, before) if name is not None else None
    if write is None or write.value is None or not is_eos(write.value):
        return None
    return PadOrigin(write.node, _is_guarded(write))


def pad_origin(pad: ast.expr, scope: Scope, pads: TrackedSetting) -> PadOrigin | None:
    """Return the line that makes the pad id `pad` the eos id, for the same tokenizer or variable; None if the file has no such line."""
    if not PAD.match(last(pad)):
        return None
    if isinstance(pad, ast.Name):
        around: Scope | None = scope
        while around is not None:
            found = [each for each in around.assignments if dotted(each.target) == pad.id and line_of(each.node) < line_of(pad)]
            if found:
                if EOS.match(last(found[-1].value)):  # `pad if there is one else eos` is another id for another tokenizer
                    return PadOrigin(found[-1].node, False)
                pad, scope = found[-1].value, around
                break
            around = around.parent
    return eos_write(dotted(pad.value), scope, pads, pad) if isinstance(pad, ast.Attribute) else None


def compared(node: ast.expr, operator: type[ast.cmpop], method: str) -> tuple[ast.expr, ast.expr] | None:
    """Return the two sides of `a != b`, a.ne(b) and torch.ne(a, b), for the operator and the method that are asked for."""
    node = unwrapped(node)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], operator):
        return node.left, node.comparators[0]
    if isinstance(node, ast.Call) and called(node) == method and isinstance(node.func, ast.Attribute):
        return (node.func.value, node.args[0]) if len(node.args) == 1 else (node.args[0], node.args[1]) if len(node.args) == 2 else None
    return None


def _is_guarded(write: Write) -> bool:
    """Return whether a write keeps a pad token that there is: by an alternative in its value, or by the `if` around it."""
    if write.value is not None and any(PAD.match(last(each)) for each in _alternatives(write.value)):
        return True
    line = line_of(write.node)
    for branch in write.scope.branches:
        body = branch.body
        if line_of(body[0]) <= line <= (body[-1].end_lineno or line_of(body[-1])):
            test = ast.unparse(branch.test)
            if re.search(r"pad", test) and re.search(r"\bNone\b|\bnot\b", test) and "is not None" not in test:
                return True
    return False

"""PYC014: answers that vLLM ends after 16 tokens."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from llmdoctor.callsites.module import Module, Scope
from llmdoctor.callsites.names import called, dotted, keyword
from llmdoctor.callsites.rules import SIXTEEN_TOKENS
from llmdoctor.callsites.types import Pitfall

_LIMIT_AT = 21  # SamplingParams(n, presence_penalty, ...): a call with so many positional arguments may set max_tokens by its place


def find(module: Module) -> Iterator[Pitfall]:
    """Yield each SamplingParams without max_tokens, and each LLM.generate() and LLM.chat() without sampling parameters."""
    if not module.imports("vllm"):
        return
    for scope in module.scopes:
        yield from _unlimited(scope, module)
        yield from _defaults(scope, module)


def _unlimited(scope: Scope, module: Module) -> Iterator[Pitfall]:
    for call in scope.calls:
        if (
            not _is_of_vllm(call, "SamplingParams", module)
            or len(call.args) >= _LIMIT_AT
            or any(isinstance(one, ast.Starred) for one in call.args)
        ):
            continue
        if any(given.arg in (None, "max_tokens") for given in call.keywords) or _set_later(call, scope):
            continue
        yield Pitfall(SIXTEEN_TOKENS, call, "SamplingParams without max_tokens ends every answer after 16 tokens")


def _set_later(call: ast.Call, scope: Scope) -> bool:
    """Return whether the object gets its max_tokens afterwards: params.max_tokens = 512."""
    names = {dotted(assignment.target) for assignment in scope.assignments if assignment.value is call} - {None}
    targets = (assignment.target for assignment in scope.assignments if isinstance(assignment.target, ast.Attribute))
    return any(target.attr == "max_tokens" and dotted(target.value) in names for target in targets)


def _defaults(scope: Scope, module: Module) -> Iterator[Pitfall]:
    for call in scope.calls:
        if called(call) not in ("generate", "chat") or not isinstance(call.func, ast.Attribute) or len(call.args) != 1:
            continue
        if any(given.arg in (None, "sampling_params", "params") for given in call.keywords):
            continue
        made = _assigned(call.func.value, call, scope)
        if (
            isinstance(made, ast.Call)
            and _is_of_vllm(made, "LLM", module)
            and keyword(made, "runner") is None
            and keyword(made, "task") is None
        ):
            message = f"LLM.{called(call)}() without sampling parameters ends every answer after 16 tokens"
            yield Pitfall(SIXTEEN_TOKENS, call, message)


def _assigned(name: ast.expr, before: ast.AST, scope: Scope) -> ast.expr | None:
    """Return what a name was assigned, in this function or in one around it."""
    around: Scope | None = scope
    while around is not None:
        value = around.value_of(name, before)
        if value is not None:
            return value
        around = around.parent
    return None


def _is_of_vllm(call: ast.Call, name: str, module: Module) -> bool:
    """Return whether a call makes vLLM's class `name`: imported by name, or through the module."""
    parts = (dotted(call.func) or "").split(".")
    return parts[-1] == name and module.imported.get(parts[0], "").split(".")[0] == "vllm"

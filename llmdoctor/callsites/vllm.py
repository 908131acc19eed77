"""PYC014: answers that vLLM ends after 16 tokens."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from llmdoctor.callsites.dicts import passed_names
from llmdoctor.callsites.module import Module, Scope
from llmdoctor.callsites.names import called, dotted, is_literal, keyword
from llmdoctor.callsites.rules import SIXTEEN_TOKENS
from llmdoctor.callsites.types import Pitfall

_LIMIT_AT = 21  # SamplingParams(n, presence_penalty, ...): a call with so many positional arguments may set max_tokens by its place
# Trainers that set max_tokens themselves on what they get (unsloth's GRPO, from max_completion_length).
_OVERRIDDEN = "vllm_sampling_params"
_DEPTH = 5  # another name for another name for ...


def find(module: Module) -> Iterator[Pitfall]:
    """Yield each SamplingParams without max_tokens, and each LLM.generate() and LLM.chat() without sampling parameters."""
    if not module.imports("vllm"):
        return
    for scope in module.scopes:
        yield from _unlimited(scope, module)
        yield from _defaults(scope, module)


def _unlimited(scope: Scope, module: Module) -> Iterator[Pitfall]:
    for call in scope.calls:
        if not _is_of_vllm(call, "SamplingParams", module) or len(call.args) >= _LIMIT_AT:
            continue
        names = None if any(isinstance(one, ast.Starred) for one in call.args) else passed_names(call, scope, module)
        if names is None or "max_tokens" in names or _is_limited(call, module):
            continue
        yield Pitfall(SIXTEEN_TOKENS, call, "SamplingParams without max_tokens ends every answer after 16 tokens")


def _is_limited(call: ast.Call, module: Module) -> bool:
    """Return whether the object, or a copy of it, gets its max_tokens elsewhere in the file, or from the trainer that it is passed to.

    Objects are followed by their names, in any function: a name that two functions use for different objects hides a finding.
    """
    names = _names(call, module)
    for assignment in module.assignments():
        target = assignment.target
        if isinstance(target, ast.Attribute) and target.attr == "max_tokens" and dotted(target.value) in names:
            return True
    for each in (each for scope in module.scopes for each in scope.calls):
        given = keyword(each, _OVERRIDDEN)
        if given is not None and (given is call or dotted(given) in names):
            return True
        if not each.args or dotted(each.args[0]) not in names:
            continue
        if keyword(each, "max_tokens") is not None:  # dataclasses.replace and its like
            return True
        if called(each) == "setattr" and (not isinstance(each.args[1], ast.Constant) or is_literal(each.args[1], "max_tokens")):
            return True
    return False


def _names(call: ast.Call, module: Module) -> set[str]:
    """Return the names of the object that `call` makes: those it is assigned to, its copies', a function's that returns or gets it."""
    names: set[str] = set()
    made = {id(call)}
    for _ in range(_DEPTH):
        before = len(names) + len(made)
        for assignment in module.assignments():
            value, name = assignment.value, dotted(assignment.target)
            if name is not None and (id(value) in made or dotted(value) in names or _copies(value, names)):
                names.add(name)
        for scope in (each for each in module.scopes if isinstance(each.node, ast.FunctionDef | ast.AsyncFunctionDef)):
            calls = [each for place in module.scopes for each in place.calls if scope.node and called(each) == scope.node.name]
            if any(id(each) in made or dotted(each) in names for each in scope.returns):
                made.update(map(id, calls))
            for each in calls:
                parameters = [name for name in scope.parameters() if name not in ("self", "cls")]
                names.update(
                    name for name, given in zip(parameters, each.args, strict=False) if id(given) in made or dotted(given) in names
                )
        if len(names) + len(made) == before:
            break
    return names


def _copies(value: ast.expr, names: set[str]) -> bool:
    """Return whether a call is a method of the object, or gets it first: params.clone(), copy.deepcopy(params)."""
    return isinstance(value, ast.Call) and any(dotted(each) in names for each in (*value.args[:1], _receiver(value)) if each is not None)


def _receiver(call: ast.Call) -> ast.expr | None:
    return call.func.value if isinstance(call.func, ast.Attribute) else None


def _defaults(scope: Scope, module: Module) -> Iterator[Pitfall]:
    for call in scope.calls:
        if called(call) not in ("generate", "chat") or not isinstance(call.func, ast.Attribute) or len(call.args) != 1:
            continue
        if any(given.arg in (None, "sampling_params", "params") for given in call.keywords):
            continue
        made = module.meaning(call.func.value, call, scope) or call.func.value
        if (
            isinstance(made, ast.Call)
            and _is_of_vllm(made, "LLM", module)
            and keyword(made, "runner") is None
            and keyword(made, "task") is None
        ):
            message = f"LLM.{called(call)}() without sampling parameters ends every answer after 16 tokens"
            yield Pitfall(SIXTEEN_TOKENS, call, message)


def _is_of_vllm(call: ast.Call, name: str, module: Module) -> bool:
    """Return whether a call makes vLLM's class `name`: imported by name, under another name, or through the module."""
    origin = module.origin(call).split(".")
    return origin[0] == "vllm" and origin[-1] == name

"""PYC001 and PYC013: what ends a sequence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from llmdoctor.callsites.module import Module, Scope
from llmdoctor.callsites.names import called, dotted, is_literal, keyword, last, number, owner
from llmdoctor.callsites.rules import EOS_NARROWED, EOS_NONE
from llmdoctor.callsites.types import Pitfall

_CONFIGS = ("generation_config", "gen_config", "generate_config")
_TOKENIZERS = re.compile(r"tok|processor", re.IGNORECASE)


def find(module: Module) -> Iterator[Pitfall]:
    """Yield what the rules about stopping apply to."""
    for scope in module.scopes:
        yield from _no_eos(scope)
        yield from _narrowed(scope)


def _no_eos(scope: Scope) -> Iterator[Pitfall]:
    written = list(_eos_written(scope))
    for node, config, value in written:
        if not is_literal(value, None) or any(dotted(other) == dotted(config) and not is_literal(said, None) for _, other, said in written):
            continue
        if (known_as := _of_a_model(config, scope, node)) is not None:
            name = f"{dotted(config) or last(config)}.eos_token_id"
            alias = "" if known_as in (dotted(config), last(config)) else f" ({dotted(config)} is {known_as})"
            yield Pitfall(EOS_NONE, node, f"{name} = None{alias}: nothing ends what this model generates from here on")
    for call in scope.calls:
        if called(call) != "generate" or not is_literal(keyword(call, "eos_token_id"), None):
            continue
        if keyword(call, "generation_config") is None and keyword(call, "stopping_criteria") is None and not _fixed_length(call):
            yield Pitfall(EOS_NONE, call, "generate(eos_token_id=None): nothing ends a sequence before the length limit")


def _eos_written(scope: Scope) -> Iterator[tuple[ast.AST, ast.expr, ast.expr]]:
    """Every write to an eos_token_id: where, of which config, and what; a whole new config for a model too."""
    for assignment in scope.assignments:
        target, value = assignment.target, assignment.value
        if isinstance(target, ast.Attribute) and target.attr == "eos_token_id":
            yield assignment.node, target.value, value
        elif isinstance(target, ast.Attribute) and target.attr in _CONFIGS:
            made = called(value) == "GenerationConfig" and isinstance(value, ast.Call)
            yield assignment.node, target, (keyword(value, "eos_token_id") if made and isinstance(value, ast.Call) else None) or value
    for call in scope.calls:
        said = keyword(call, "eos_token_id")
        if called(call) == "update" and isinstance(call.func, ast.Attribute) and said is not None:
            yield call, call.func.value, said
        elif called(call) == "setattr" and len(call.args) == 3 and is_literal(call.args[1], "eos_token_id"):
            yield call, call.args[0], call.args[2]


def _of_a_model(config: ast.expr, scope: Scope, node: ast.AST) -> str | None:
    """What a model calls its config: that itself, what it is another name for, or what it is given to; None for a config that is passed to a call."""
    if not isinstance(config, ast.Name):
        return (dotted(config) or last(config)) if last(config) in _CONFIGS else None
    value = scope.value_of(config, node)
    if isinstance(value, ast.Attribute | ast.Subscript):
        return dotted(value) or last(value) if last(value) in _CONFIGS else None
    given = (each.target for each in scope.assignments if isinstance(each.value, ast.Name) and each.value.id == config.id)
    return next((dotted(target) or last(target) for target in given if not isinstance(target, ast.Name) and last(target) in _CONFIGS), None)


def _fixed_length(call: ast.Call) -> bool:
    """Whether the call asks for one new token, or for at least as many as it wants: it needs no terminator."""
    return number(keyword(call, "max_new_tokens")) == 1 or keyword(call, "min_new_tokens") is not None


def _narrowed(scope: Scope) -> Iterator[Pitfall]:
    """Yield each generate() that is given the one eos of a tokenizer, directly or through a dictionary or a GenerationConfig that it gets."""
    for call in scope.calls:
        if called(call) != "generate":
            continue
        for given in (call, *_passed(call, scope)):
            node = _eos_in(given)
            if node is not None and (name := _tokenizer_eos(node, call, scope)) is not None:
                message = f"generate() stops at {name} alone, even if the model's generation config lists more terminators"
                cause = None if given is call else f"line {_line(node)} sets eos_token_id"
                yield Pitfall(EOS_NARROWED, call, message, cause)


def _passed(call: ast.Call, scope: Scope) -> Iterator[ast.expr]:
    """Yield the dictionaries that `call` unpacks, and the GenerationConfig that it is given."""
    for given in call.keywords:
        if given.arg in (None, "generation_config"):
            value = scope.value_of(given.value, call) or given.value
            if isinstance(value, ast.Dict) or called(value) in ("dict", "GenerationConfig"):
                yield value


def _eos_in(given: ast.expr) -> ast.expr | None:
    """Return the eos_token_id that a call or a dictionary sets."""
    if isinstance(given, ast.Call):
        return keyword(given, "eos_token_id")
    if isinstance(given, ast.Dict):
        for key, value in zip(given.keys, given.values, strict=True):
            if is_literal(key, "eos_token_id"):
                return value
    return None


def _tokenizer_eos(node: ast.expr, before: ast.AST, scope: Scope) -> str | None:
    """Return `tokenizer.eos_token_id` if an expression is that, a list of it, or a name for it."""
    if isinstance(node, ast.Name):
        node = scope.value_of(node, before) or node
    if isinstance(node, ast.List) and len(node.elts) == 1:
        node = node.elts[0]
    if isinstance(node, ast.Attribute) and node.attr == "eos_token_id" and _TOKENIZERS.search(owner(node)):
        return dotted(node) or "tokenizer.eos_token_id"
    return None


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))

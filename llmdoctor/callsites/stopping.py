"""PYC001 and PYC013: what ends a sequence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from llmdoctor.callsites.dicts import entry, unpacked
from llmdoctor.callsites.encoders import reads_with_an_encoder
from llmdoctor.callsites.module import Module, Scope, class_of
from llmdoctor.callsites.names import called, dotted, is_literal, keyword, last, number, owner
from llmdoctor.callsites.rules import EOS_NARROWED, EOS_NONE
from llmdoctor.callsites.types import Pitfall

_CONFIGS = ("generation_config", "gen_config", "generate_config")
_TOKENIZERS = re.compile(r"tok|processor", re.IGNORECASE)
_PIPELINES = ("pipe", "pipeline", "generator")  # by the names that the documentation of transformers gives them


def find(module: Module) -> Iterator[Pitfall]:
    """Yield what the rules about stopping apply to."""
    decoder_only = not reads_with_an_encoder(module)
    for scope in module.scopes:
        yield from _no_eos(scope, module)
        if decoder_only:
            yield from _narrowed(scope, module)
            yield from _narrowed_for_good(scope)


def _no_eos(scope: Scope, module: Module) -> Iterator[Pitfall]:
    written = list(_eos_written(scope))
    for node, config, value in written:
        if not _is_nothing(value) or _is_restored(config, scope, module):
            continue
        if (known_as := _of_a_model(config, scope, node)) is not None:
            name = f"{dotted(config) or last(config)}.eos_token_id"
            alias = "" if known_as in (dotted(config), last(config)) else f" ({dotted(config)} is {known_as})"
            yield Pitfall(EOS_NONE, node, f"{name} = {ast.unparse(value)}{alias}: nothing ends what this model generates from here on")
    for call in scope.calls:
        if called(call) != "generate" or keyword(call, "generation_config") is not None or keyword(call, "stopping_criteria") is not None:
            continue
        for given in (call, *(made for _, made in unpacked(call, scope, module) if made is not None)):
            eos = entry(given, "eos_token_id")
            if eos is not None and _is_nothing(eos) and not _fixed_length(call) and not _fixed_length(given):
                cause = None if given is call else f"line {_line(eos)} sets eos_token_id"
                message = f"generate(eos_token_id={ast.unparse(eos)}): nothing ends a sequence before the length limit"
                yield Pitfall(EOS_NONE, call, message, cause)


def _is_nothing(value: ast.expr) -> bool:
    """Return whether no token equals an eos_token_id: None, a negative id, an empty list."""
    if isinstance(value, ast.List):
        return all(_is_nothing(item) for item in value.elts)
    return is_literal(value, None) or (number(value) or 0) < 0


def _is_restored(config: ast.expr, scope: Scope, module: Module) -> bool:
    """Return whether the function, or another method of its class (__exit__), gives the same config another value."""
    home = class_of(scope)
    places = [each for each in module.scopes if each is scope or (home is not None and class_of(each) is home)]
    written = (each for place in places for each in _eos_written(place))
    return any(dotted(other) == dotted(config) and not _is_nothing(value) for _, other, value in written)


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


def _fixed_length(given: ast.expr) -> bool:
    """Return whether a call or a dictionary asks for one new token, or for at least as many as it wants: it needs no terminator."""
    return number(entry(given, "max_new_tokens")) == 1 or entry(given, "min_new_tokens") is not None


def _narrowed(scope: Scope, module: Module) -> Iterator[Pitfall]:
    """Yield each generate() that is given the one eos of a tokenizer: directly, in a dictionary or GenerationConfig, or by a trainer's arguments."""
    for call in scope.calls:
        settings = keyword(call, "generation_kwargs")  # of trl's configs: what the trainer's generate() is given
        by_trainer = settings is not None and called(call).endswith("Config")
        if not by_trainer and called(call) not in ("generate", *(_PIPELINES if module.imports("transformers") else ())):
            continue
        made = None if settings is None else module.meaning(settings, call, scope) or settings
        for given in (made,) if by_trainer and made is not None else (call, *_passed(call, scope, module)):
            node = entry(given, "eos_token_id")
            if node is not None and (name := _tokenizer_eos(node, call, scope)) is not None:
                message = f"generate() stops at {name} alone, even if the model's generation config lists more terminators"
                cause = None if given is call else f"line {_line(node)} sets eos_token_id"
                yield Pitfall(EOS_NARROWED, call, message, cause)


def _narrowed_for_good(scope: Scope) -> Iterator[Pitfall]:
    """Yield each assignment of a tokenizer's one eos to the generation config of a model.

    A function that gives the tokenizer another eos_token (as trl's clone_chat_template does) means the one id.
    """
    if any(isinstance(each.target, ast.Attribute) and each.target.attr == "eos_token" for each in scope.assignments):
        return
    for node, config, value in _eos_written(scope):
        if last(config) in _CONFIGS and isinstance(config, ast.Attribute) and (name := _tokenizer_eos(value, node, scope)) is not None:
            message = f"every later generate() stops at {name} alone, even if the model's generation config listed more terminators"
            yield Pitfall(EOS_NARROWED, node, message)


def _passed(call: ast.Call, scope: Scope, module: Module) -> Iterator[ast.expr]:
    """Yield the dictionaries that `call` unpacks, and the GenerationConfig that it is given."""
    yield from (made for _, made in unpacked(call, scope, module) if made is not None)
    given = keyword(call, "generation_config")
    value = None if given is None else module.meaning(given, call, scope) or given
    if called(value) == "GenerationConfig" and value is not None:
        yield value


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

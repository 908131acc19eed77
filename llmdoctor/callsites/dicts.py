"""What a call unpacks: the dictionaries behind `**settings`, as far as the file shows them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from llmdoctor.callsites.module import Module, Scope
from llmdoctor.callsites.names import called, dotted, is_literal, keyword


def unpacked(call: ast.Call, scope: Scope, module: Module) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """Yield each expression behind `**` in a call, with the dictionary that it is; None if the file does not show it."""
    for given in call.keywords:
        if given.arg is None:
            value = module.meaning(given.value, call, scope) or given.value
            yield given.value, value if isinstance(value, ast.Dict) or called(value) == "dict" else None


def entry(made: ast.expr, name: str) -> ast.expr | None:
    """Return the value that a dictionary or a call sets under `name`; None if it sets none."""
    if isinstance(made, ast.Call):
        return keyword(made, name)
    if isinstance(made, ast.Dict):
        return next((value for key, value in zip(made.keys, made.values, strict=True) if is_literal(key, name)), None)
    return None


def passed_names(call: ast.Call, scope: Scope, module: Module) -> set[str] | None:
    """Return the names of a call's keywords, those of unpacked dictionaries included; None if they are not all known."""
    names = {given.arg for given in call.keywords if given.arg is not None}
    for expression, made in unpacked(call, scope, module):
        inner = None if made is None or _changes(expression, module) else _names_in(made)
        if inner is None:
            return None
        names |= inner
    return names


def _names_in(made: ast.expr) -> set[str] | None:
    if isinstance(made, ast.Call):
        names = [given.arg for given in made.keywords]
        return None if made.args or None in names else {name for name in names if name is not None}
    keys = [key.value if isinstance(key, ast.Constant) else None for key in made.keys] if isinstance(made, ast.Dict) else [None]
    return None if None in keys else {str(key) for key in keys}


def _changes(expression: ast.expr, module: Module) -> bool:
    """Return whether a dictionary is changed after it is made: `settings["n"] = 2`, settings.update(...), or passed on as it is."""
    name = dotted(expression)
    if name is None:
        return False
    written = [each.target for each in module.assignments()]
    if any(isinstance(target, ast.Subscript) and dotted(target.value) == name for target in written):
        return True
    calls = [call for scope in module.scopes for call in scope.calls]
    return sum(dotted(target) == name for target in written) > 1 or any(
        (isinstance(call.func, ast.Attribute) and dotted(call.func.value) == name) or name in map(dotted, call.args) for call in calls
    )

"""What a tokenizer's setting is where it is used: the last of what this code writes to it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from llmdoctor.callsites.module import Module, Scope, class_of
from llmdoctor.callsites.names import called, dotted, keyword

_DEPTH = 5  # another name for another name for ...


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Write:
    """What a setting is given at `node` in `scope`: `value`, None if that is not known.

    With `owner` the setting is that of another object: of that name in `scope` before `node`, or at the end of the function `function` that
    returned the object.
    """

    node: ast.AST
    scope: Scope
    value: ast.expr | None
    owner: str | None = None
    function: Scope | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TrackedSetting:
    """A setting by the attributes that hold it. Every scope is read once: `writes` are its writes by object, `methods` the scopes of a class,
    `functions` the functions by name."""

    module: Module
    attribute: re.Pattern[str]
    writes: dict[int, dict[str, list[Write]]] = field(default_factory=dict)
    methods: dict[int, list[Scope]] = field(default_factory=dict)
    functions: dict[str, list[Scope]] = field(default_factory=dict)

    def last(self, name: str, scope: Scope, before: ast.AST | None, depth: int = 0) -> Write | None:
        """Return the write that holds for the object `name` in a scope above `before` (anywhere in it without one); None if the file has none.

        A name belongs to its function, to its class if it begins with self, or to what surrounds the function. An object that a function of
        the file returns is followed into that function, and a parameter to the calls of its function if they all agree.
        """
        if depth > _DEPTH:
            return None
        found = self._last_of(name, scope, before, depth)
        if found is None or found.owner is None:
            return found
        if found.function is not None:
            return self.last(found.owner, found.function, None, depth + 1)
        return self.last(found.owner, found.scope, found.node, depth + 1)

    def _last_of(self, name: str, scope: Scope, before: ast.AST | None, depth: int) -> Write | None:
        own = [write for write in self._writes(name, scope) if before is None or line_of(write.node) < line_of(before)]
        if own:
            return own[-1]
        root = name.partition(".")[0]
        home = class_of(scope) if root in ("self", "cls") else None
        if home is not None:
            writes = [write for method in self._methods(home) if method is not scope for write in self._writes(name, method)]
            return max(writes, key=lambda write: line_of(write.node), default=None)
        if root in scope.parameters():
            return self._from_callers(name, scope, depth)
        around = scope.parent
        while around is not None and isinstance(around.node, ast.ClassDef):
            around = around.parent
        return self._last_of(name, around, None, depth) if around is not None else None

    def _from_callers(self, name: str, scope: Scope, depth: int) -> Write | None:
        """Return the write to an argument, if every call of the function in this file passes an object with the same value."""
        root, dot, rest = name.partition(".")
        function, names = (scope.node.name if scope.node else ""), [each for each in scope.parameters() if each not in ("self", "cls")]
        writes: list[Write] = []
        for caller in self.module.scopes:
            for call in caller.calls:
                if called(call) != function or caller is scope:
                    continue
                at = names.index(root) if root in names else len(call.args)
                given = dotted(keyword(call, root) or (call.args[at] if at < len(call.args) else None))
                found = self.last(f"{given}{dot}{rest}", caller, call, depth + 1) if given is not None else None
                if found is None or found.value is None:
                    return None
                writes.append(found)
        same = {ast.dump(write.value) for write in writes if write.value is not None}
        return writes[0] if len(same) == 1 else None

    def _returned(self, call: ast.Call, at: int | None) -> tuple[str, Scope] | None:
        """Return the name that a function of this file returns (the item `at` of a tuple) and the function; None if the returns differ."""
        function = self._function(called(call))
        if function is None:
            return None
        values = [
            each.elts[at] if at is not None and isinstance(each, ast.Tuple) and at < len(each.elts) else each for each in function.returns
        ]
        names = {dotted(value) for value in values}
        name = names.pop() if len(names) == 1 else None
        return None if name is None else (name, function)

    def _methods(self, home: Scope) -> list[Scope]:
        if not self.methods:
            for scope in self.module.scopes:
                self.methods.setdefault(id(class_of(scope)), []).append(scope)
        return self.methods.get(id(home), [])

    def _writes(self, name: str, scope: Scope) -> list[Write]:
        """What a scope writes to an object's setting, by line; a new object under the name is a write too."""
        if id(scope) not in self.writes:
            found: dict[str, list[Write]] = {}
            self.writes[id(scope)] = found  # a function that calls itself finds what is known so far
            for owner, write in sorted(
                (*self._assigned(scope), *self._called(scope), *self._handed(scope)), key=lambda pair: line_of(pair[1].node)
            ):
                found.setdefault(owner, []).append(write)
        return self.writes[id(scope)].get(name, [])

    def _assigned(self, scope: Scope) -> Iterator[tuple[str, Write]]:
        for assignment in scope.assignments:
            target, value = assignment.target, assignment.value
            if isinstance(target, ast.Attribute) and self.attribute.match(target.attr):
                yield dotted(target.value) or "", Write(assignment.node, scope, value)
                continue
            for at, name in enumerate(map(dotted, target.elts if isinstance(target, ast.Tuple) else [target])):
                if name is not None and not isinstance(value, ast.Call):
                    yield name, Write(assignment.node, scope, None, dotted(value))
                elif name is not None and isinstance(value, ast.Call) and name not in map(dotted, value.args):
                    returned = self._returned(value, at if isinstance(target, ast.Tuple) else None)
                    if returned is not None:
                        yield name, Write(assignment.node, scope, None, *returned)
                    else:
                        yield name, Write(assignment.node, scope, self._given(value))  # tokenizer = prepare(tokenizer) keeps what was set

    def _called(self, scope: Scope) -> Iterator[tuple[str, Write]]:
        for call in scope.calls:
            name = dotted(call.func.value) if called(call) == "add_special_tokens" and isinstance(call.func, ast.Attribute) else None
            if name is None:
                continue
            tokens = keyword(call, "special_tokens_dict") or (call.args[0] if call.args else None)
            tokens = (scope.value_of(tokens, call) or tokens) if tokens else None
            if not isinstance(tokens, ast.Dict):
                yield name, Write(call, scope, None)
            for key, value in zip(tokens.keys, tokens.values, strict=True) if isinstance(tokens, ast.Dict) else ():
                if isinstance(key, ast.Constant) and isinstance(key.value, str) and self.attribute.match(key.value):
                    yield name, Write(call, scope, value)

    def _handed(self, scope: Scope) -> Iterator[tuple[str, Write]]:
        """Yield the objects that are handed to a function of the file which writes to its parameter: prepare(tokenizer)."""
        for call in scope.calls:
            function = self._function(called(call)) if isinstance(call.func, ast.Name) else None
            if function is None or function is scope:
                continue
            given = [*zip(function.parameters(), call.args, strict=False), *((each.arg, each.value) for each in call.keywords if each.arg)]
            for parameter, value in given:
                name = dotted(value)
                if name is not None and self._writes(parameter, function):
                    yield name, Write(call, scope, None, parameter, function)

    def _function(self, name: str) -> Scope | None:
        """Return the one function of the file with that name."""
        if not self.functions:
            for scope in self.module.scopes:
                if isinstance(scope.node, ast.FunctionDef):
                    self.functions.setdefault(scope.node.name, []).append(scope)
        found = self.functions.get(name, [])
        return found[0] if len(found) == 1 else None

    def _given(self, call: ast.Call) -> ast.expr | None:
        """Return the value of pad_token in from_pretrained(..., pad_token=...)."""
        return next((each.value for each in call.keywords if each.arg and self.attribute.match(each.arg)), None)


def line_of(node: ast.AST) -> int:
    """The line on which a node begins, from 1; 0 where it has none."""
    return int(getattr(node, "lineno", 0))

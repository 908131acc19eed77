"""One walk over a syntax tree: what the rules ask about, by function and in the order in which it is written."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.callsites.names import dotted, targets


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Assignment:
    """`target` gets `value`; `iterated` if it is each of the value's items in turn."""

    target: ast.expr
    value: ast.expr
    node: ast.AST
    iterated: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Keywords:
    """Names with their values: a call's keywords, or a dict's string keys. `call` is None for a dict."""

    node: ast.expr
    entries: Mapping[str, ast.expr]
    call: ast.Call | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Scope:
    """A function's body, or a module's or a class's own: without the functions inside it. `node` is None for the module, and so is `parent`."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | None = None
    parent: Scope | None = None
    assignments: list[Assignment] = field(default_factory=list)
    calls: list[ast.Call] = field(default_factory=list)
    dicts: list[ast.Dict] = field(default_factory=list)
    quotients: list[ast.BinOp] = field(default_factory=list)
    loops: list[ast.For] = field(default_factory=list)
    branches: list[ast.If] = field(default_factory=list)
    returns: list[ast.expr] = field(default_factory=list)
    choices: list[ast.IfExp] = field(default_factory=list)

    @property
    def name(self) -> str:
        """`Class.method`; "" for the module."""
        outer = self.parent.name if self.parent else ""
        return f"{outer}.{self.node.name}".lstrip(".") if self.node else ""

    def parameters(self) -> dict[str, ast.expr | None]:
        """A function's parameters with their annotations; empty for a class and a module."""
        if not isinstance(self.node, ast.FunctionDef | ast.AsyncFunctionDef):
            return {}
        given = self.node.args
        return {each.arg: each.annotation for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)}

    def keywords(self) -> Iterator[Keywords]:
        """Yield what every call and every dictionary sets by name."""
        for call in self.calls:
            if call.keywords:
                yield Keywords(call, {given.arg: given.value for given in call.keywords if given.arg is not None}, call)
        for node in self.dicts:
            pairs = zip(node.keys, node.values, strict=True)
            entries = {key.value: value for key, value in pairs if isinstance(key, ast.Constant) and isinstance(key.value, str)}
            yield Keywords(node, entries, None)

    def value_of(self, name: ast.expr, before: ast.AST) -> ast.expr | None:
        """What was last assigned to a name (or a chain of attributes) above the line of `before`; None if nothing was."""
        wanted, line = dotted(name), _line(before)
        found = None
        for assignment in self.assignments if wanted is not None else ():
            if _end(assignment) < line and dotted(assignment.target) == wanted:
                found = assignment.value
        return found


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Module:
    """A file: its scopes, and where the names that it imports come from."""

    scopes: tuple[Scope, ...]
    imported: Mapping[str, str]

    def imports(self, package: str) -> bool:
        """Whether anything of that package is imported."""
        return any(origin.split(".")[0] == package for origin in self.imported.values())

    def origin(self, call: ast.Call) -> str:
        """Return the full name of what is called: vllm.SamplingParams of SP(...), imported under that name; "" if it is not imported."""
        first, dot, rest = (dotted(call.func) or "").partition(".")
        source = self.imported.get(first)
        return "" if source is None else f"{source}{dot}{rest}"

    def meaning(self, name: ast.expr, before: ast.AST, scope: Scope) -> ast.expr | None:
        """Return what a name was assigned last: above the line of `before`, in another method of the class (self.x), or around the function."""
        own = scope.value_of(name, before)
        wanted = dotted(name)
        if own is not None or wanted is None:
            return own
        if wanted.startswith(("self.", "cls.")):
            home = class_of(scope)
            around = [each for each in self.scopes if home is not None and class_of(each) is home]
        elif wanted.partition(".")[0] in scope.parameters():
            return None
        else:
            around, outer = [], scope.parent
            while outer is not None:
                around, outer = [*around, outer], outer.parent
        return next((each.value for place in around for each in reversed(place.assignments) if dotted(each.target) == wanted), None)

    def scope_at(self, line: int) -> str:
        """The name of the innermost function or class that holds a line; "" for the module."""
        around = [scope for scope in self.scopes if scope.node and scope.node.lineno <= line <= (scope.node.end_lineno or 0)]
        return max(around, key=lambda scope: _line(scope.node or ast.Pass())).name if around else ""

    def assignments(self) -> Iterator[Assignment]:
        """Every assignment of the file."""
        return (assignment for scope in self.scopes for assignment in scope.assignments)


def class_of(scope: Scope) -> Scope | None:
    """The class that a method, or a function in one, belongs to."""
    around = scope.parent
    while around is not None and not isinstance(around.node, ast.ClassDef):
        around = around.parent
    return around


def read_module(tree: ast.Module) -> Module:
    """Walk the tree once; no recursion, as an expression may be nested deeper than Python's stack.

    The stack holds nodes, and the scope to go back to once all of a function has been walked.
    """
    top = Scope()
    scopes, imported = [top], dict[str, str]()
    scope, stack = top, list[Any]([tree])
    while stack:
        node = stack.pop()
        kind = type(node)
        if kind in _SCOPES:
            stack.append(scope)
            scope = Scope(node, scope)
            scopes.append(scope)
        elif kind is Scope:
            scope = node
            continue
        elif kind in _NOTED:
            _NOTED[kind](scope, node)
        elif kind in _IMPORTS:
            imported.update(_imported(node))
        for name in _INSIDE[kind]:
            child = getattr(node, name)
            if type(child) is list:
                stack.extend([item for item in reversed(child) if type(item) not in _LEAVES])
            elif type(child) not in _LEAVES:
                stack.append(child)
    return Module(tuple(scopes), imported)


def _note_call(scope: Scope, node: ast.Call) -> None:
    scope.calls.append(node)


def _note_dict(scope: Scope, node: ast.Dict) -> None:
    scope.dicts.append(node)


def _note_assignment(scope: Scope, node: ast.Assign | ast.AnnAssign | ast.NamedExpr) -> None:
    scope.assignments.extend(Assignment(target, value, node) for target, value in targets(node))


def _note_loop(scope: Scope, node: ast.For) -> None:
    scope.loops.append(node)
    scope.assignments.append(Assignment(node.target, node.iter, node, iterated=True))


def _note_branch(scope: Scope, node: ast.If) -> None:
    scope.branches.append(node)


def _note_return(scope: Scope, node: ast.Return) -> None:
    if node.value is not None:
        scope.returns.append(node.value)


def _note_choice(scope: Scope, node: ast.IfExp) -> None:
    scope.choices.append(node)


def _note_comprehension(scope: Scope, node: ast.comprehension) -> None:
    scope.assignments.append(Assignment(node.target, node.iter, node.target, iterated=True))


def _note_quotient(scope: Scope, node: ast.BinOp | ast.AugAssign) -> None:
    if isinstance(node.op, ast.Div):
        whole = node if isinstance(node, ast.BinOp) else ast.copy_location(ast.BinOp(node.target, node.op, node.value), node)
        scope.quotients.append(whole)


class _Inside(dict[type, tuple[str, ...]]):
    """The fields of a kind of node that can hold calls and assignments, the last one first; annotations hold none."""

    def __missing__(self, kind: type[ast.AST]) -> tuple[str, ...]:
        names = tuple(name for name in reversed(getattr(kind, "_fields", ())) if name not in _PLAIN)
        self[kind] = names
        return names


_SCOPES = frozenset({ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef})
_IMPORTS = frozenset({ast.Import, ast.ImportFrom})
_NOTED: dict[type, Callable[[Scope, Any], None]] = {
    ast.Call: _note_call,
    ast.Dict: _note_dict,
    ast.Assign: _note_assignment,
    ast.AnnAssign: _note_assignment,
    ast.NamedExpr: _note_assignment,
    ast.For: _note_loop,
    ast.If: _note_branch,
    ast.Return: _note_return,
    ast.IfExp: _note_choice,
    ast.comprehension: _note_comprehension,
    ast.BinOp: _note_quotient,
    ast.AugAssign: _note_quotient,
}
_PLAIN = frozenset(
    "annotation arg asname attr conversion ctx id is_async level module name names op ops returns simple type_comment type_ignores type_params".split()
)
_LEAVES = frozenset({ast.Name, ast.Constant, ast.Pass, ast.Break, ast.Continue, ast.Global, ast.Nonlocal, ast.alias, type(None), str})
_INSIDE = _Inside()


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    for alias in node.names:
        origin = alias.name if isinstance(node, ast.Import) else f"{'.' * node.level}{node.module or ''}.{alias.name}"
        yield alias.asname or alias.name.split(".")[0], origin


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))


def _end(assignment: Assignment) -> int:
    """The last line of an assignment; of a loop, the line of what it runs over."""
    node = assignment.value if assignment.iterated else assignment.node
    return int(getattr(node, "end_lineno", None) or _line(node))

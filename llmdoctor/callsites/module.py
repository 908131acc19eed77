"""One walk over a syntax tree: what the rules ask about, by function and in the order in which it is written."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from llmdoctor.callsites.names import dotted, targets

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Assignment:
    """`target` gets `value`; `iterated` where it is each of the value's items in turn."""

    target: ast.expr
    value: ast.expr
    node: ast.AST
    iterated: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Settings:
    """Names with their values: a call's keywords, or a dict's string keys. `call` is None for a dict."""

    node: ast.expr
    entries: Mapping[str, ast.expr]
    call: ast.Call | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Scope:
    """A function's body, or a module's or a class's own: without the functions inside it."""

    assignments: list[Assignment] = field(default_factory=list)
    settings: list[Settings] = field(default_factory=list)
    quotients: list[ast.BinOp] = field(default_factory=list)
    choices: list[ast.IfExp] = field(default_factory=list)
    loops: list[ast.For] = field(default_factory=list)

    def calls(self) -> Iterator[ast.Call]:
        """Every call, in order."""
        return (settings.call for settings in self.settings if settings.call is not None)

    def value_of(self, name: ast.expr, before: ast.AST) -> ast.expr | None:
        """What was last assigned to a name (or a chain of attributes) above the line of `before`; None where nothing was."""
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

    def assignments(self) -> Iterator[Assignment]:
        """Every assignment of the file."""
        return (assignment for scope in self.scopes for assignment in scope.assignments)


def read_module(tree: ast.Module) -> Module:
    """Walk the tree once; no recursion, as an expression may be nested deeper than Python's stack."""
    top = Scope()
    scopes, imported = [top], dict[str, str]()
    stack: list[tuple[ast.AST, Scope]] = [(tree, top)]
    while stack:
        node, scope = stack.pop()
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            scope = Scope()
            scopes.append(scope)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imported.update(_imported(node))
        else:
            _note(node, scope)
        stack.extend((child, scope) for child in reversed(list(ast.iter_child_nodes(node))))
    return Module(tuple(scopes), imported)


def _note(node: ast.AST, scope: Scope) -> None:
    if isinstance(node, ast.Call):
        entries = {given.arg: given.value for given in node.keywords if given.arg is not None}
        scope.settings.append(Settings(node, entries, node))
    elif isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        entries = {key.value: value for key, value in pairs if isinstance(key, ast.Constant) and isinstance(key.value, str)}
        scope.settings.append(Settings(node, entries, None))
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
        scope.assignments.extend(Assignment(target, value, node) for target, value in targets(node))
    elif isinstance(node, ast.For):
        scope.loops.append(node)
        scope.assignments.append(Assignment(node.target, node.iter, node, iterated=True))
    elif isinstance(node, ast.comprehension):
        scope.assignments.append(Assignment(node.target, node.iter, node.target, iterated=True))
    elif isinstance(node, ast.IfExp):
        scope.choices.append(node)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        scope.quotients.append(node)


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

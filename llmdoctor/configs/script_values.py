"""What the expressions of a script are worth, read by syntax tree: names that are bound once, branches that never run, conditions that are not known."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_DTYPES = frozenset({"float32", "bfloat16", "float16", "half", "float"})
_MAIN = ast.dump(ast.parse("__name__ == '__main__'", mode="eval").body)
_NUMBERS = {ast.Add: "__add__", ast.Sub: "__sub__", ast.Mult: "__mul__", ast.Div: "__truediv__", ast.FloorDiv: "__floordiv__"}
_DEPTH = 20  # expressions inside each other


@dataclass(frozen=True, slots=True)
class Computed:
    """A value that the script computes; `source` is its expression."""

    source: str


def computed(value: Any) -> Iterator[Computed]:
    """Yield the values inside `value` that the script computes."""
    if isinstance(value, Computed):
        yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from computed(item)


def name_of(node: ast.AST | None) -> str:
    """Return the last name of `a` or `a.b`; empty for another expression."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def source_of(node: ast.AST) -> str:
    """Return the source of an expression, at most 60 characters of it."""
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:56]} ..."


@dataclass(slots=True)
class Names:
    """The names of a script that stand for one expression: bound exactly once in the whole script, and not changed in place.

    `functions` are the local functions whose only `return` has an expression; `read` counts how often each name is read.
    """

    bound: dict[str, ast.expr] = field(default_factory=dict)
    functions: dict[str, ast.expr] = field(default_factory=dict)
    read: Counter[str] = field(default_factory=Counter)

    def value(self, node: ast.expr, depth: int = 0) -> Any:
        """Return the value of an expression: a literal, a dtype of torch, or made of such; else Computed."""
        try:
            return self._value(node, depth)
        except (_Unknown, ArithmeticError, TypeError, ValueError):
            return Computed(source_of(node))

    def behind(self, node: ast.expr, depth: int = 0) -> ast.expr:
        """Return the expression that a name, or the call of a local function, stands for; `node` itself if that is not known."""
        if depth > _DEPTH:
            return node
        if isinstance(node, ast.Name) and node.id in self.bound:
            return self.behind(self.bound[node.id], depth + 1)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self.functions:
            return self.behind(self.functions[node.func.id], depth + 1)
        return node

    def arguments(self, call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
        """Yield (name, expression) of each keyword; those of a dictionary that is known, too, else one with the name `**`."""
        for word in call.keywords:
            if word.arg is not None:
                yield word.arg, word.value
                continue
            found = self.behind(word.value)
            if isinstance(found, ast.Dict) and all(isinstance(key, ast.Constant) and isinstance(key.value, str) for key in found.keys):
                yield from ((key.value, item) for key, item in zip(found.keys, found.values, strict=True) if isinstance(key, ast.Constant))  # type: ignore[misc]
            elif isinstance(found, ast.Call) and name_of(found.func) == "dict" and not found.args and found is not call:
                yield from self.arguments(found)
            else:
                yield "**", word.value

    def truth(self, node: ast.expr) -> bool | None:
        """Return whether a condition holds; None if that is not known."""
        if ast.dump(node) == _MAIN:
            return True
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.truth(node.operand)
            return None if inner is None else not inner
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.Is | ast.IsNot):
            left, right = self.value(node.left), self.value(node.comparators[0])
            if any(True for side in (left, right) for _ in computed(side)):
                return None
            return bool(left == right) is isinstance(node.ops[0], ast.Eq | ast.Is)
        found = self.value(node)
        return None if any(True for _ in computed(found)) else bool(found)

    def _value(self, node: ast.expr, depth: int) -> Any:
        if depth > _DEPTH:
            raise _Unknown
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name) and node.id in self.bound:
            return self._value(self.bound[node.id], depth + 1)
        if isinstance(node, ast.Attribute) and node.attr in _DTYPES:
            return node.attr
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return [self.value(item, depth + 1) for item in node.elts]
        if isinstance(node, ast.Dict) and None not in node.keys:
            return {
                self._value(key, depth + 1): self.value(item, depth + 1) for key, item in zip(node.keys, node.values, strict=True) if key
            }
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self._value(node.operand, depth + 1)
        if isinstance(node, ast.BinOp) and type(node.op) in _NUMBERS:
            return _number(_number_of(self._value(node.left, depth + 1)), node.op, _number_of(self._value(node.right, depth + 1)))
        if isinstance(node, ast.Call) and name_of(node.func) == "dict" and not node.args:
            return {key: self.value(item, depth + 1) for key, item in self.arguments(node)}
        raise _Unknown


class _Unknown(Exception):
    """An expression whose value is not known."""


def _number_of(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Unknown
    return value


def _number(left: float, op: ast.operator, right: float) -> Any:
    found = getattr(left, _NUMBERS[type(op)])(right)
    return getattr(float(left), _NUMBERS[type(op)])(float(right)) if found is NotImplemented else found


def names_of(tree: ast.Module) -> Names:
    """Return the names of a script that stand for one expression."""
    times: Counter[str] = Counter()
    names, changed = Names(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            times[node.id] += isinstance(node.ctx, ast.Store)
            names.read[node.id] += isinstance(node.ctx, ast.Load)
        elif isinstance(node, ast.arg):
            times[node.arg] += 1
        elif isinstance(node, ast.alias):
            times[(node.asname or node.name).partition(".")[0]] += 1
        elif isinstance(node, ast.ExceptHandler) and node.name:
            times[node.name] += 1
        elif isinstance(node, ast.FunctionDef):
            returned = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return)]
            times[node.name] += 1
            if len(returned) == 1 and returned[0] is not None:
                names.functions[node.name] = returned[0]
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else getattr(node, "target", None)
            if isinstance(target, ast.Name):
                names.bound[target.id] = node.value
        changed |= _changed(node)
    names.bound = {name: value for name, value in names.bound.items() if times[name] == 1 and name not in changed}
    names.functions = {name: value for name, value in names.functions.items() if times[name] == 1}
    return names


def _changed(node: ast.AST) -> set[str]:
    """Return the name whose object `node` changes in place: targets.append(x), settings["r"] = 8, targets += [x], lora.r = 8."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        method = node.func.attr
        if method in ("append", "extend", "insert", "remove", "pop", "clear", "update", "setdefault", "add", "discard", "popitem"):
            return {node.func.value.id}
    if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del) and isinstance(node.value, ast.Name):
        return {node.value.id}
    if isinstance(node, ast.Call) and name_of(node.func) == "setattr" and node.args and isinstance(node.args[0], ast.Name):
        return {node.args[0].id}
    return set()


def reachable(tree: ast.Module) -> ast.Module:
    """Return the script without what never runs, because a condition is known, and without what follows the training."""
    names = names_of(tree)

    class Branches(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> Any:
            self.generic_visit(node)
            known = names.truth(node.test)
            return node if known is None else (node.body if known else node.orelse) or None

        def visit_IfExp(self, node: ast.IfExp) -> Any:
            self.generic_visit(node)
            known = names.truth(node.test)
            return node if known is None else node.body if known else node.orelse

    found: ast.Module = Branches().visit(tree)
    return _until_trained(found)


def _until_trained(tree: ast.Module) -> ast.Module:
    """Return the script without what follows trainer.train() in the same block: what is loaded or merged then is not trained."""
    trainers = {
        name_of(target)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and name_of(node.value.func).endswith("Trainer")
        for target in node.targets
    }

    def trains(node: ast.AST) -> bool:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "train"):
            return False
        owner = node.func.value
        return name_of(owner) in trainers or (isinstance(owner, ast.Call) and name_of(owner.func).endswith("Trainer"))

    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            calls = [isinstance(one, ast.Expr | ast.Assign) and any(trains(inner) for inner in ast.walk(one)) for one in body]
            if any(calls):
                node.body = body[: calls.index(True) + 1]  # type: ignore[attr-defined]
    return tree


def conditions(tree: ast.AST) -> dict[int, str]:
    """Return {id of a node: the condition under which it runs} for each node below a condition that is not known."""
    out: dict[int, str] = {}

    def below(node: ast.AST, condition: str) -> None:
        if condition:
            out[id(node)] = condition
        inner = condition
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            inner = f"if {source_of(node.test)}"
        elif isinstance(node, ast.ExceptHandler):
            inner = "except"
        elif isinstance(node, ast.match_case):
            inner = f"case {source_of(node.pattern)}"
        for child in ast.iter_child_nodes(node):
            below(child, inner)

    below(tree, "")
    return out

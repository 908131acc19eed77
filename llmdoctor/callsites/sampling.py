"""PYC004, PYC007 to PYC010 and PYC015: how tokens are drawn, and their log-probabilities."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from llmdoctor.callsites.dicts import unpacked
from llmdoctor.callsites.module import Keywords, Module, Scope
from llmdoctor.callsites.names import called, dotted, is_literal, keyword, last, number, unwrapped
from llmdoctor.callsites.rules import IGNORED, INHERITED, LAST_PASS, PROBABILITIES, PROCESSED, REJECTED
from llmdoctor.callsites.types import Pitfall

_TEMPERATURES = ("temperature", "temp")
# What takes generate()'s keywords: calls, dicts of them, and a pipeline by the names that its documentation gives it.
_TAKERS = ("generate", "GenerationConfig", "dict", "update", "pipe", "pipeline", "generator")
_LOG_PROBABILITIES = ("log_softmax", "selective_log_softmax", "cross_entropy")
# The arguments by which a call sets its distribution; None means **kwargs, whose content is not known.
_DISTRIBUTION = {"temperature", "top_k", "top_p", "generation_config", None}
_BATCHES = re.compile(
    r"^(\w+_)?(batch|inputs?|enc|encoded|encodings?|prompts?|queries|query|tokens|tokenized|features)(_\w+)?$", re.IGNORECASE
)
_DIVISIONS = ("div", "div_", "divide", "divide_", "true_divide", "true_divide_")
_RANDOM = ("random", "rand", "uniform")
# Values that do nothing or mean greedy decoding, which is what do_sample=False does.
_NEUTRAL: dict[str, Callable[[float], bool]] = {
    "temperature": lambda value: value <= 0.01 or value == 1,
    "top_p": lambda value: value <= 0.01 or value == 1,
    "top_k": lambda value: value in (-1, 0, 1, 50),
    "min_p": lambda value: value == 0,
    "typical_p": lambda value: value == 1,
}


def find(module: Module) -> Iterator[Pitfall]:
    """Yield what the rules about sampling apply to."""
    has_scores = any("output_scores" in keywords.entries for scope in module.scopes for keywords in scope.keywords())
    has_scores = has_scores or any(last(assignment.target) == "output_scores" for assignment in module.assignments())
    for scope in module.scopes:
        if has_scores:
            yield from _processed(scope)
        yield from _inherited(scope, module)
        yield from _last_pass(scope)
        yield from _probabilities(scope)
        for keywords in scope.keywords():
            if keywords.call is None or called(keywords.call) in _TAKERS:
                if called(keywords.call) in ("generate", "GenerationConfig") or module.imports("transformers"):
                    yield from _rejected(keywords)
                yield from (found for found in _ignored(keywords) if not _set_later(keywords, scope))


def _processed(scope: Scope) -> Iterator[Pitfall]:
    for call in scope.calls:
        if called(call) != "log_softmax" or not isinstance(call.func, ast.Attribute | ast.Name):
            continue
        of = call.args[0] if call.args else keyword(call, "input")
        if isinstance(call.func, ast.Attribute) and (dotted(call.func.value) or "").split(".")[0] not in ("torch", "F", "nn"):
            of = call.func.value
        scores = _scores(of, call, scope)
        if scores is not None:
            yield Pitfall(
                PROCESSED, call, f"log_softmax over {dotted(scores) or 'scores'}: the scores have temperature, top_k and top_p in them"
            )


def _inherited(scope: Scope, module: Module) -> Iterator[Pitfall]:
    """Yield each sampling generate() that leaves its distribution to the model's files, in a function that takes raw log-probabilities."""
    raw = [(call, made) for call in scope.calls if called(call) in _LOG_PROBABILITIES and (made := _of_logits(call, scope))]
    drawn = _made_from_generate(scope) if raw else set()
    raw = [(call, made) for call, made in raw if any(isinstance(part, ast.Name) and part.id in drawn for part in ast.walk(made))]
    for call in scope.calls if raw else ():
        if called(call) == "generate" and is_literal(keyword(call, "do_sample"), True) and not _given(call, scope, module) & _DISTRIBUTION:
            message = (
                "generate() samples with the temperature, top_k and top_p of the model's files; the log-probabilities here ignore them"
            )
            yield Pitfall(INHERITED, call, message, f"line {_line(raw[0][0])} takes log-probabilities of raw logits")


def _given(call: ast.Call, scope: Scope, module: Module) -> set[str | None]:
    """Return the names that generate() is given; None among them stands for settings that the file does not show. A batch holds no settings."""
    names: set[str | None] = {each.arg for each in call.keywords if each.arg is not None}
    for expression, made in unpacked(call, scope, module):
        if made is not None:
            names |= (
                {each.arg for each in made.keywords} if isinstance(made, ast.Call) else {_text(key) for key in getattr(made, "keys", ())}
            )
        elif not _BATCHES.search(last(unwrapped(expression))):
            names.add(None)
    return names


def _text(key: ast.expr | None) -> str | None:
    return str(key.value) if isinstance(key, ast.Constant) else None


def _made_from_generate(scope: Scope) -> set[str]:
    """Return the names that a function gives to what generate() returned, and to what it makes from that."""
    names: set[str] = set()
    for assignment in scope.assignments:
        parts = list(ast.walk(assignment.value))
        if any(
            (isinstance(part, ast.Name) and part.id in names) or (isinstance(part, ast.Call) and called(part) == "generate")
            for part in parts
        ):
            names |= {part.id for part in ast.walk(assignment.target) if isinstance(part, ast.Name)}
    return names


def _of_logits(call: ast.Call, scope: Scope) -> ast.Call | None:
    """Return the forward pass to whose `.logits` a call is applied; None if there is none, or if generate() returned them."""
    node = call.args[0] if call.args else keyword(call, "input")
    for _ in range(8):
        node = unwrapped(node) if node is not None else None
        if isinstance(node, ast.Attribute) and node.attr == "logits":
            made = node.value if isinstance(node.value, ast.Call) else scope.value_of(node.value, call)
            return made if isinstance(made, ast.Call) and called(made) != "generate" else None
        if isinstance(node, ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Name):
            node = scope.value_of(node, call)
        else:
            return None
    return None


def _scores(node: ast.expr | None, call: ast.Call, scope: Scope) -> ast.expr | None:
    """`outputs.scores` if an expression is made of nothing but them: stacked, indexed, converted, under another name, item by item."""
    for _ in range(12):
        node = unwrapped(node) if node is not None else None
        if (isinstance(node, ast.Attribute) and node.attr == "scores") or (
            isinstance(node, ast.Subscript) and is_literal(node.slice, "scores")
        ):
            return node if _generated(node.value, call, scope) else None
        if isinstance(node, ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call) and called(node) in (
            "stack",
            "cat",
            "vstack",
            "transpose",
            "permute",
            "zip",
            "enumerate",
            "list",
            "tuple",
        ):
            inner = node.args[0] if node.args else None
            method = isinstance(node.func, ast.Attribute) and dotted(node.func.value) not in ("torch", "np", "numpy")
            node = node.func.value if method and isinstance(node.func, ast.Attribute) else inner
        elif isinstance(node, ast.Name):
            node = _bound(node, call, scope)
        else:
            return None
    return None


def _bound(name: ast.Name, call: ast.Call, scope: Scope) -> ast.expr | None:
    """What a name means: assigned above, or the item of a loop or comprehension over something."""
    if (value := scope.value_of(name, call)) is not None:
        return value
    for assignment in scope.assignments:
        within = any(isinstance(part, ast.Name) and part.id == name.id for part in ast.walk(assignment.target))
        if assignment.iterated and within and abs(_line(assignment.node) - _line(call)) <= 20:
            return assignment.value
    return None


def _generated(output: ast.expr, call: ast.Call, scope: Scope) -> bool:
    """Return whether generate() returned the owner of the scores; False if that call has do_sample=False, whose scores are logits."""
    if last(output) in ("self", "cls", ""):
        return False
    made = scope.value_of(output, call)
    if made is None:
        return True
    if called(made) != "generate" or not isinstance(made, ast.Call):
        return False
    return not is_literal(keyword(made, "do_sample"), False)


def _last_pass(scope: Scope) -> Iterator[Pitfall]:
    for loop in scope.loops:
        names = {part.id for part in ast.walk(loop.target) if isinstance(part, ast.Name)}
        for test in loop.body:
            if isinstance(test, ast.If) and _draws(test.test, loop, names) and _keeps(test, names):
                yield Pitfall(LAST_PASS, test, "each candidate gets a random number of its own, and the last one that passes wins")


def _draws(test: ast.expr, loop: ast.For, names: set[str]) -> bool:
    """random() < p with p the loop's own probability: a name of the loop, or something looked up by one."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return False
    sides = (test.left, test.comparators[0])
    fresh = {last(line.targets[0]) for line in loop.body if isinstance(line, ast.Assign) and called(unwrapped(line.value)) in _RANDOM}
    for drawn, probability in (sides, sides[::-1]):
        random = called(unwrapped(drawn)) in _RANDOM or (isinstance(drawn, ast.Name) and drawn.id in fresh)
        looked_up = isinstance(probability, ast.Subscript) and isinstance(probability.slice, ast.Name) and probability.slice.id in names
        if random and (looked_up or (isinstance(probability, ast.Name) and probability.id in names)):
            return True
    return False


def _keeps(test: ast.If, names: set[str]) -> bool:
    """Whether the body assigns the candidate to a name and lets the loop go on."""
    if any(isinstance(part, ast.Break | ast.Return | ast.Continue | ast.Raise) for line in test.body for part in ast.walk(line)):
        return False
    return any(
        isinstance(line, ast.Assign)
        and isinstance(line.targets[0], ast.Name)
        and last(line.value) in names
        and isinstance(line.value, ast.Name)
        for line in test.body
    )


def _probabilities(scope: Scope) -> Iterator[Pitfall]:
    for node, numerator, divisor in _divided(scope):
        if last(divisor) not in _TEMPERATURES:
            continue
        left = unwrapped(numerator)
        if isinstance(left, ast.Name):
            left = unwrapped(scope.value_of(left, node) or left)
        if called(left) == "softmax":
            yield Pitfall(PROBABILITIES, node, f"probabilities are divided by {last(divisor)}, which is for logits")


def _divided(scope: Scope) -> Iterator[tuple[ast.AST, ast.expr, ast.expr]]:
    """What is divided by what: a / b, a.div(b), torch.div(a, b)."""
    yield from ((quotient, quotient.left, quotient.right) for quotient in scope.quotients)
    for call in scope.calls:
        if called(call) in _DIVISIONS and isinstance(call.func, ast.Attribute) and call.args:
            sides = call.args if len(call.args) == 2 else [call.func.value, call.args[0]]
            yield call, sides[0], sides[1]


def _rejected(keywords: Keywords) -> Iterator[Pitfall]:
    if not is_literal(keywords.entries.get("do_sample"), True):
        return
    temperature, top_k = number(keywords.entries.get("temperature")), number(keywords.entries.get("top_k"))
    if temperature is not None and (temperature <= 0 or (isinstance(temperature, int) and temperature != 1)):
        problem = "has to be above 0" if temperature <= 0 else f"has to be a float: write {temperature}.0"
        yield Pitfall(REJECTED, keywords.node, f"temperature={temperature} with do_sample=True {problem}")
    if top_k is not None and (top_k < 0 or (isinstance(top_k, float) and top_k != 0)):
        yield Pitfall(REJECTED, keywords.node, f"top_k={top_k} with do_sample=True has to be a positive int, or 0 for off")


def _ignored(keywords: Keywords) -> Iterator[Pitfall]:
    if not is_literal(keywords.entries.get("do_sample"), False):
        return
    values = {name: number(keywords.entries.get(name)) for name in _NEUTRAL}
    given = [f"{name}={value}" for name, value in values.items() if value is not None and not _NEUTRAL[name](value)]
    if given:
        yield Pitfall(IGNORED, keywords.node, f"do_sample=False: {', '.join(given)} {'does' if len(given) == 1 else 'do'} nothing")


def _set_later(keywords: Keywords, scope: Scope) -> bool:
    """Whether the dict or config is given a name, and do_sample is set once more under that name."""
    names = {dotted(assignment.target) for assignment in scope.assignments if assignment.value is keywords.node} - {None}
    for assignment in scope.assignments if names else ():
        target = assignment.target
        if isinstance(target, ast.Attribute | ast.Subscript) and last(target) == "do_sample" and dotted(target.value) in names:
            return True
    updates = [each for each in scope.keywords() if names and "do_sample" in each.entries and each.node is not keywords.node]
    given = [
        call
        for call in scope.calls
        if called(call) in ("update", "setdefault") and isinstance(call.func, ast.Attribute) and dotted(call.func.value) in names
    ]
    return any(update.node is call or update.node in call.args for update in updates for call in given)


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))

"""PYC001, PYC004, PYC007 to PYC010: what ends and what draws."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from llmdoctor.callsites.finding import Found
from llmdoctor.callsites.module import Module, Scope, Settings
from llmdoctor.callsites.names import called, dotted, is_literal, keyword, last, number, unwrapped
from llmdoctor.callsites.rules import EOS_NONE, IGNORED, LAST_PASS, PROBABILITIES, PROCESSED, REJECTED

_CONFIGS = ("generation_config", "gen_config", "generate_config")
_TEMPERATURES = ("temperature", "temp")
# What takes generate()'s keywords: calls, dicts of them, and a pipeline by the names that its documentation gives it.
_TAKERS = ("generate", "GenerationConfig", "dict", "update", "pipe", "pipeline", "generator")
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


def find(module: Module) -> Iterator[Found]:
    """Every finding of the rules about stopping and sampling."""
    told = any("output_scores" in settings.entries for scope in module.scopes for settings in scope.settings())
    told = told or any(last(assignment.target) == "output_scores" for assignment in module.assignments())
    for scope in module.scopes:
        yield from _no_eos(scope)
        if told:
            yield from _processed(scope)
        yield from _last_pass(scope)
        yield from _probabilities(scope)
        for settings in scope.settings():
            if settings.call is None or called(settings.call) in _TAKERS:
                if called(settings.call) in ("generate", "GenerationConfig") or module.imports("transformers"):
                    yield from _rejected(settings)
                yield from (found for found in _ignored(settings) if not _set_later(settings, scope))


def _no_eos(scope: Scope) -> Iterator[Found]:
    written = list(_eos_written(scope))
    for node, config, value in written:
        if not is_literal(value, None) or any(dotted(other) == dotted(config) and not is_literal(said, None) for _, other, said in written):
            continue
        if (known_as := _of_a_model(config, scope, node)) is not None:
            name = f"{dotted(config) or last(config)}.eos_token_id"
            told = "" if known_as in (dotted(config), last(config)) else f" ({dotted(config)} is {known_as})"
            yield Found(EOS_NONE, node, f"{name} = None{told}: nothing ends what this model generates from here on")
    for call in scope.calls:
        if called(call) != "generate" or not is_literal(keyword(call, "eos_token_id"), None):
            continue
        if keyword(call, "generation_config") is None and keyword(call, "stopping_criteria") is None and not _fixed_length(call):
            yield Found(EOS_NONE, call, "generate(eos_token_id=None): nothing ends a sequence before the length limit")


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


def _processed(scope: Scope) -> Iterator[Found]:
    for call in scope.calls:
        if called(call) != "log_softmax" or not isinstance(call.func, ast.Attribute | ast.Name):
            continue
        of = call.args[0] if call.args else keyword(call, "input")
        if isinstance(call.func, ast.Attribute) and (dotted(call.func.value) or "").split(".")[0] not in ("torch", "F", "nn"):
            of = call.func.value
        scores = _scores(of, call, scope)
        if scores is not None:
            yield Found(
                PROCESSED, call, f"log_softmax over {dotted(scores) or 'scores'}: the scores have temperature, top_k and top_p in them"
            )


def _scores(node: ast.expr | None, call: ast.Call, scope: Scope) -> ast.expr | None:
    """`outputs.scores` where an expression is made of nothing but them: stacked, indexed, converted, under another name, item by item."""
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
    """What a name stands for: assigned above, or the item of a loop or comprehension over something."""
    if (value := scope.value_of(name, call)) is not None:
        return value
    for assignment in scope.assignments:
        within = any(isinstance(part, ast.Name) and part.id == name.id for part in ast.walk(assignment.target))
        if assignment.iterated and within and abs(_line(assignment.node) - _line(call)) <= 20:
            return assignment.value
    return None


def _generated(output: ast.expr, call: ast.Call, scope: Scope) -> bool:
    """Whether the scores' owner is what a generate() returned; not where that call says do_sample=False, as its scores are logits then."""
    if last(output) in ("self", "cls", ""):
        return False
    made = scope.value_of(output, call)
    if made is None:
        return True
    if called(made) != "generate" or not isinstance(made, ast.Call):
        return False
    return not is_literal(keyword(made, "do_sample"), False)


def _last_pass(scope: Scope) -> Iterator[Found]:
    for loop in scope.loops:
        names = {part.id for part in ast.walk(loop.target) if isinstance(part, ast.Name)}
        for test in loop.body:
            if isinstance(test, ast.If) and _draws(test.test, loop, names) and _keeps(test, names):
                yield Found(LAST_PASS, test, "each candidate gets a random number of its own, and the last one that passes wins")


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


def _probabilities(scope: Scope) -> Iterator[Found]:
    for node, numerator, divisor in _divided(scope):
        if last(divisor) not in _TEMPERATURES:
            continue
        left = unwrapped(numerator)
        if isinstance(left, ast.Name):
            left = unwrapped(scope.value_of(left, node) or left)
        if called(left) == "softmax":
            yield Found(PROBABILITIES, node, f"probabilities are divided by {last(divisor)}, which is for logits")


def _divided(scope: Scope) -> Iterator[tuple[ast.AST, ast.expr, ast.expr]]:
    """What is divided by what: a / b, a.div(b), torch.div(a, b)."""
    yield from ((quotient, quotient.left, quotient.right) for quotient in scope.quotients)
    for call in scope.calls:
        if called(call) in _DIVISIONS and isinstance(call.func, ast.Attribute) and call.args:
            sides = call.args if len(call.args) == 2 else [call.func.value, call.args[0]]
            yield call, sides[0], sides[1]


def _rejected(settings: Settings) -> Iterator[Found]:
    if not is_literal(settings.entries.get("do_sample"), True):
        return
    temperature, top_k = number(settings.entries.get("temperature")), number(settings.entries.get("top_k"))
    if temperature is not None and (temperature <= 0 or (isinstance(temperature, int) and temperature != 1)):
        told = "has to be above 0" if temperature <= 0 else f"has to be a float: write {temperature}.0"
        yield Found(REJECTED, settings.node, f"temperature={temperature} with do_sample=True {told}")
    if top_k is not None and (top_k < 0 or (isinstance(top_k, float) and top_k != 0)):
        yield Found(REJECTED, settings.node, f"top_k={top_k} with do_sample=True has to be a positive int, or 0 for off")


def _ignored(settings: Settings) -> Iterator[Found]:
    if not is_literal(settings.entries.get("do_sample"), False):
        return
    values = {name: number(settings.entries.get(name)) for name in _NEUTRAL}
    given = [f"{name}={value}" for name, value in values.items() if value is not None and not _NEUTRAL[name](value)]
    if given:
        yield Found(IGNORED, settings.node, f"do_sample=False: {', '.join(given)} {'does' if len(given) == 1 else 'do'} nothing")


def _set_later(settings: Settings, scope: Scope) -> bool:
    """Whether the dict or config is given a name, and do_sample is set once more under that name."""
    names = {dotted(assignment.target) for assignment in scope.assignments if assignment.value is settings.node} - {None}
    for assignment in scope.assignments if names else ():
        target = assignment.target
        if isinstance(target, ast.Attribute | ast.Subscript) and last(target) == "do_sample" and dotted(target.value) in names:
            return True
    updates = [each for each in scope.settings() if names and "do_sample" in each.entries and each.node is not settings.node]
    given = [
        call
        for call in scope.calls
        if called(call) in ("update", "setdefault") and isinstance(call.func, ast.Attribute) and dotted(call.func.value) in names
    ]
    return any(update.node is call or update.node in call.args for update in updates for call in given)


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))

"""PYC002, PYC003, PYC005, PYC006, PYC011: padding, and the masks made from it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from llmdoctor.callsites.finding import Found
from llmdoctor.callsites.module import Assignment, Module, Scope
from llmdoctor.callsites.names import are_ids, called, dotted, is_literal, keyword, last, number, owner, unwrapped
from llmdoctor.callsites.rules import NO_MASK, PAD_LABELS, PAD_MASK, RIGHT_PADDING, ZERO_FILL

_PAD = re.compile(r"^_?pad(ding)?(_token)?(_ids?)?$")
_EOS = re.compile(r"^_?(eos|eod)(_token)?(_ids?)?$")
_MASK = re.compile(r"^_*(\w+_)?att(entio)?n_masks?$")
_FILLS = ("masked_fill", "masked_fill_")
_COLLATORS = {"DataCollatorForLanguageModeling": "transformers", "DataCollatorForCompletionOnlyLM": "trl"}
_SEQ2SEQ = (
    "Seq2Seq",
    "T5",
    "Bart",
    "MBart",
    "Pegasus",
    "Marian",
    "Whisper",
    "EncoderDecoder",
    "VisionEncoderDecoder",
    "ForConditionalGeneration",
)


def find(module: Module) -> Iterator[Found]:
    """Every finding of the rules about padding."""
    everywhere = _shared(module.assignments())
    decoder_only = not any(word in name for name in module.imported for word in _SEQ2SEQ)
    for scope in module.scopes:
        if everywhere and (shared := _in_scope(scope, everywhere)):
            yield from _masks(scope, shared)
            yield from _collators(scope, module, shared)
        yield from _zeros(scope)
        if decoder_only:
            yield from _right(scope)
            yield from _maskless(scope)


def _shared(assignments: Iterable[Assignment]) -> dict[str, Assignment]:
    """The last assignment that makes a tokenizer's pad its eos, by the tokenizer's name."""
    return {name: assignment for assignment in assignments if (name := _pads_with_eos(assignment)) is not None}


def _in_scope(scope: Scope, everywhere: dict[str, Assignment]) -> dict[str, Assignment]:
    """What holds in a function: its own assignments first, and nothing of another function's for a tokenizer that it loads itself."""
    own = _shared(scope.assignments)
    loaded = {last(assignment.target) for assignment in scope.assignments if called(assignment.value) == "from_pretrained"}
    return {name: assignment for name, assignment in everywhere.items() if name not in loaded} | own


def _pads_with_eos(assignment: Assignment) -> str | None:
    """The tokenizer (or, for a plain name, the name) whose pad becomes its eos by this assignment; None for any other assignment."""
    target, value = assignment.target, assignment.value
    if not _PAD.match(last(target)) or isinstance(target, ast.Subscript):
        return None
    return (owner(target) or last(target)) if _EOS.match(last(value)) else None


def _pad_origin(pad: ast.expr, scope: Scope, shared: dict[str, Assignment]) -> Assignment | None:
    """The assignment that makes this pad id the eos id, if the file has one for the same tokenizer or name."""
    if not _PAD.match(last(pad)):
        return None
    if isinstance(pad, ast.Attribute):
        return shared.get(owner(pad))
    value = scope.value_of(pad, pad)
    if value is None:
        return None
    its_own = not isinstance(value, ast.Attribute) or _EOS.match(last(value)) is not None
    return shared.get(last(pad) if its_own else owner(value))


def _compared(node: ast.expr, operator: type[ast.cmpop], method: str) -> tuple[ast.expr, ast.expr] | None:
    """The two sides of `a != b`, a.ne(b) and torch.ne(a, b)."""
    node = unwrapped(node)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], operator):
        return node.left, node.comparators[0]
    if isinstance(node, ast.Call) and called(node) == method and isinstance(node.func, ast.Attribute):
        return (node.func.value, node.args[0]) if len(node.args) == 1 else (node.args[0], node.args[1]) if len(node.args) == 2 else None
    return None


def _masks(scope: Scope, shared: dict[str, Assignment]) -> Iterator[Found]:
    named = [(last(assignment.target), assignment.value) for assignment in scope.assignments]
    named += [entry for settings in scope.settings() for entry in settings.entries.items()]
    for name, value in named:
        sides = _compared(value, ast.NotEq, "ne") if _MASK.match(name) else None
        origin = _pad_origin(sides[1], scope, shared) if sides and are_ids(sides[0]) else None
        if origin is not None:
            yield Found(
                PAD_MASK,
                value,
                f"{name} masks every eos in {last(unwrapped(sides[0])) if sides else ''} with the padding",
                _eos_is_pad(origin),
            )


def _eos_is_pad(origin: Assignment) -> str:
    return f"line {getattr(origin.node, 'lineno', 0)} makes the eos token the pad token"


def _zeros(scope: Scope) -> Iterator[Found]:
    for call in scope.calls:
        if called(call) not in _FILLS or not isinstance(call.func, ast.Attribute):
            continue
        arguments = call.args if dotted(call.func.value) == "torch" else [call.func.value, *call.args]
        if len(arguments) == 3 and number(arguments[2]) == 0 and _are_token_ids(arguments[0]) and _about_attention(arguments[1]):
            yield Found(ZERO_FILL, call, f"{last(unwrapped(arguments[0]))} becomes token 0 wherever the attention mask is 0")


def _are_token_ids(node: ast.expr) -> bool:
    """Ids that are looked up in the embedding: not positions, where 0 is what transformers itself fills in."""
    return are_ids(node) and not last(unwrapped(node)).endswith(("position_ids", "token_type_ids", "segment_ids"))


def _about_attention(mask: ast.expr) -> bool:
    """Whether a mask is the attention mask turned round: ~mask, mask == 0, mask.logical_not()."""
    mask = unwrapped(mask)
    if isinstance(mask, ast.UnaryOp) and isinstance(mask.op, ast.Invert | ast.Not):
        mask = mask.operand
    elif (sides := _compared(mask, ast.Eq, "eq")) is not None:
        mask = sides[0]
    elif called(mask) == "logical_not" and isinstance(mask, ast.Call) and isinstance(mask.func, ast.Attribute):
        mask = mask.func.value
    else:
        return False
    return _MASK.match(last(unwrapped(mask))) is not None


def _collators(scope: Scope, module: Module, shared: dict[str, Assignment]) -> Iterator[Found]:
    for call in scope.calls:
        package = _COLLATORS.get(called(call))
        origin_of_name = module.imported.get((dotted(call.func) or "").split(".")[0], "")
        if package is None or origin_of_name.split(".")[0] != package:
            continue
        tokenizer = keyword(call, "tokenizer") or (call.args[0] if call.args and package == "transformers" else None)
        causal = is_literal(keyword(call, "mlm") or (call.args[1] if len(call.args) > 1 else None), False) or package == "trl"
        if tokenizer is not None and causal and (origin := shared.get(last(tokenizer))) is not None:
            yield Found(
                PAD_LABELS,
                call,
                f"{called(call)} takes the pad token out of the loss, and the pad token is the eos token",
                _eos_is_pad(origin),
            )


def _batches(scope: Scope) -> Iterator[tuple[ast.expr, ast.Call]]:
    """Every name that gets what a tokenizer returns with padding on, with the call; without conversations, which come one at a time."""
    for assignment in scope.assignments:
        call = unwrapped(assignment.value)
        while isinstance(call, ast.Attribute | ast.Subscript):
            call = unwrapped(call.value)
        if isinstance(call, ast.Call) and "tok" in last(call.func).lower() and _pads(call):
            yield assignment.target, call


def _pads(call: ast.Call) -> bool:
    padding = keyword(call, "padding")
    single = call.args and isinstance(call.args[0], ast.Constant | ast.JoinedStr | ast.BinOp)  # a string is no batch
    single = single or is_literal(keyword(call, "return_tensors"), "pd")  # PaddlePaddle's generate() is another one
    single = single or (call.args and isinstance(call.args[0], ast.List) and len(call.args[0].elts) == 1)
    return (is_literal(padding, True) or is_literal(padding, "longest") or is_literal(padding, "max_length")) and not single


def _given(call: ast.Call) -> Iterator[ast.expr]:
    """What a call is given: arguments, keywords, and what is unpacked into them."""
    yield from call.args
    yield from (given.value for given in call.keywords)


def _root(node: ast.expr) -> str | None:
    """The name below attributes and subscripts: batch of batch["input_ids"].to(device)."""
    node = unwrapped(node)
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = unwrapped(node.value)
    return dotted(node)


def _right(scope: Scope) -> Iterator[Found]:
    sides = [assignment for assignment in scope.assignments if last(assignment.target) == "padding_side"]
    for name, call in _batches(scope):
        tokenizer = last(call.func)
        said = [side for side in sides if owner(side.target) == tokenizer and _line(side.node) < _line(call)]
        if not said or not is_literal(said[-1].value, "right"):
            continue
        for generate in scope.calls:
            roots = [_root(given) for given in _given(generate)]
            if called(generate) == "generate" and _line(generate) > _line(call) and dotted(name) in roots:
                message = f"{dotted(name)} is padded on the right: generate() continues the shorter prompts after their padding"
                yield Found(RIGHT_PADDING, generate, message, f"line {_line(said[-1].node)} sets padding_side to right")


def _maskless(scope: Scope) -> Iterator[Found]:
    batches = [(dotted(name), call) for name, call in _batches(scope) if isinstance(name, ast.Name)]
    for generate in scope.calls:
        if called(generate) != "generate" or any(given.arg in (None, "attention_mask", "inputs_embeds") for given in generate.keywords):
            continue
        ids = keyword(generate, "input_ids") or keyword(generate, "inputs") or (generate.args[0] if generate.args else None)
        if ids is None or len(generate.args) > 1 or isinstance(ids, ast.Starred):
            continue
        source = unwrapped(ids)
        if isinstance(source, ast.Name):
            source = unwrapped(scope.value_of(source, generate) or source)
        made = [call for name, call in batches if name == _root(source) and _line(call) < _line(generate)]
        direct = (
            isinstance(source, ast.Attribute | ast.Subscript) and called(source.value) and source.value in [call for _, call in batches]
        )
        if last(source) == "input_ids" and (made or direct):
            line = _line(made[-1] if made else source)
            yield Found(NO_MASK, generate, "a padded batch goes into generate() without its attention_mask", f"line {line} pads the batch")


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))

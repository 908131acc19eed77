"""PYC002, PYC003, PYC006 and PYC011: padding, and the attention masks made from it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from llmdoctor.callsites.encoders import reads_with_an_encoder
from llmdoctor.callsites.module import Module, Scope
from llmdoctor.callsites.names import are_ids, called, dotted, is_literal, keyword, last, number, owner, unwrapped
from llmdoctor.callsites.pads import PAD, compared, is_eos, pad_origin
from llmdoctor.callsites.rules import NO_MASK, PAD_MASK, RIGHT_PADDING, ZERO_FILL
from llmdoctor.callsites.state import TrackedSetting, Write, line_of
from llmdoctor.callsites.types import Pitfall

_MASK = re.compile(r"^_*(\w+_)?att(entio)?n_masks?$")
_SIDE = re.compile(r"^padding_side$")
_TOKENIZERS = re.compile(r"tok|processor", re.IGNORECASE)
_ONE_TEXT = ("str", "Optional[str]", "typing.Optional[str]", "str | None")
_ONE_CHAT = ("messages", "conversation", "chat", "message", "msgs", "msg", "dialog", "history", "")
_BATCH = re.compile(r"batch|chunk|loader|\brange\(", re.IGNORECASE)
_FILLS = ("masked_fill", "masked_fill_")


def find(module: Module) -> Iterator[Pitfall]:
    """Yield what the rules about padding apply to."""
    padded = any(is_eos(assignment.value) and PAD.match(last(assignment.target)) for assignment in module.assignments())
    padded = padded or any(called(call) == "add_special_tokens" for scope in module.scopes for call in scope.calls)
    decoder_only = not reads_with_an_encoder(module)
    pads, sides = TrackedSetting(module, PAD), TrackedSetting(module, _SIDE)
    for scope in module.scopes:
        if padded:
            yield from _masks(scope, pads)
        yield from _zeros(scope)
        if decoder_only:
            yield from _right(scope, sides)
            yield from _maskless(scope)


def _masks(scope: Scope, pads: TrackedSetting) -> Iterator[Pitfall]:
    named = [(last(assignment.target), assignment.value) for assignment in scope.assignments]
    named += [entry for keywords in scope.keywords() for entry in keywords.entries.items()]
    for name, value in named:
        sides = compared(value, ast.NotEq, "ne") if _MASK.match(name) else None
        origin = pad_origin(sides[1], scope, pads) if sides and are_ids(sides[0]) else None
        if origin is not None:
            yield Pitfall(
                PAD_MASK,
                value,
                f"{origin.condition}{name} masks every eos in {last(unwrapped(sides[0])) if sides else ''} with the padding",
                origin.cause,
            )


def _zeros(scope: Scope) -> Iterator[Pitfall]:
    for call in scope.calls:
        if called(call) not in _FILLS or not isinstance(call.func, ast.Attribute):
            continue
        arguments = call.args if dotted(call.func.value) == "torch" else [call.func.value, *call.args]
        if len(arguments) == 3 and number(arguments[2]) == 0 and _are_token_ids(arguments[0]) and _about_attention(arguments[1]):
            yield Pitfall(ZERO_FILL, call, f"{last(unwrapped(arguments[0]))} becomes token 0 wherever the attention mask is 0")


def _are_token_ids(node: ast.expr) -> bool:
    """Return whether these are ids that the embedding looks up. Positions are not: transformers itself fills them with 0."""
    return are_ids(node) and not last(unwrapped(node)).endswith(("position_ids", "token_type_ids", "segment_ids"))


def _about_attention(mask: ast.expr) -> bool:
    """Whether a mask is the attention mask turned round: ~mask, mask == 0, mask.logical_not()."""
    mask = unwrapped(mask)
    if isinstance(mask, ast.UnaryOp) and isinstance(mask.op, ast.Invert | ast.Not):
        mask = mask.operand
    elif (sides := compared(mask, ast.Eq, "eq")) is not None:
        mask = sides[0]
    elif called(mask) == "logical_not" and isinstance(mask, ast.Call) and isinstance(mask.func, ast.Attribute):
        mask = mask.func.value
    else:
        return False
    return _MASK.match(last(unwrapped(mask))) is not None


def _batches(scope: Scope) -> Iterator[tuple[set[str], ast.Call]]:
    """Yield every call of a tokenizer or processor with padding on, and the names that get what it returns; without single texts."""
    names: dict[int, set[str]] = {}
    for assignment in scope.assignments:
        value, name = assignment.value, dotted(assignment.target)
        if isinstance(value, ast.DictComp):  # {key: value.cuda() for key, value in tokenizer(...).items()}
            value = value.generators[0].iter
        if name is not None:
            names.setdefault(id(_maker(value)), set()).add(name)
    for call in scope.calls:
        if _tokenizes(call) and _pads(call) and not _is_single(call, scope) and not _for_an_encoder(call, scope):
            yield names.get(id(call), set()), call


def _maker(node: ast.expr) -> ast.expr:
    """Return the call below attributes, subscripts and .items(): tokenizer(...) of tokenizer(...)["input_ids"].to(device)."""
    node = unwrapped(node)
    while isinstance(node, ast.Attribute | ast.Subscript) or (called(node) == "items" and isinstance(node, ast.Call)):
        node = unwrapped(node.value if isinstance(node, ast.Attribute | ast.Subscript) else node.func)
    return node


def _tokenizes(call: ast.Call) -> bool:
    """Return whether a tokenizer or processor is called, or applies its template to something that is not called one conversation."""
    if called(call) == "apply_chat_template":
        return _TOKENIZERS.search(owner(call.func)) is not None and bool(call.args) and last(call.args[0]) not in _ONE_CHAT
    return _TOKENIZERS.search(last(call.func)) is not None


def _pads(call: ast.Call) -> bool:
    padding = keyword(call, "padding")
    paddle = is_literal(keyword(call, "return_tensors"), "pd")  # PaddlePaddle's generate() is another one
    return (is_literal(padding, True) or is_literal(padding, "longest") or is_literal(padding, "max_length")) and not paddle


def _is_single(call: ast.Call, scope: Scope) -> bool:
    """Whether one text is tokenized: a string, a list of one, a parameter that is a str, the item of a loop that is not called a batch."""
    text = keyword(call, "text") or (call.args[0] if call.args else None)
    if isinstance(text, ast.Name):
        annotation = scope.parameters().get(text.id)
        if annotation is not None and ast.unparse(annotation).strip("'\"") in _ONE_TEXT:
            return True
        for assignment in scope.assignments:
            if assignment.iterated and text.id in _names(assignment.target):
                return not _BATCH.search(f"{text.id} {ast.unparse(assignment.value)}")
        text = scope.value_of(text, call) or text
    if isinstance(text, ast.List):
        return len(text.elts) == 1 and not isinstance(text.elts[0], ast.Starred)
    return isinstance(text, ast.Constant | ast.JoinedStr | ast.BinOp)


def _names(target: ast.expr) -> set[str]:
    return {part.id for part in ast.walk(target) if isinstance(part, ast.Name)}


def _for_an_encoder(node: ast.AST, scope: Scope) -> bool:
    """Return whether a node is inside an `if` that asks whether the model is an encoder-decoder."""
    tests = [branch.test for branch in scope.branches if line_of(branch) <= line_of(node) <= (branch.end_lineno or 0)]
    return any("is_encoder_decoder" in ast.unparse(test) for test in tests)


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


def _right(scope: Scope, sides: TrackedSetting) -> Iterator[Pitfall]:
    for names, call in _batches(scope):
        generates = [generate for generate in scope.calls if called(generate) == "generate" and _gets(generate, names, call)]
        side = _side(_tokenizer(call), scope, sides, call) if generates else None
        if side is None or not is_literal(side.value, "right") or _for_an_encoder(side.node, side.scope):
            continue
        for generate in generates:
            what = min(names, default="the batch")
            message = f"{what} is padded on the right: generate() continues the shorter prompts after their padding"
            yield Pitfall(RIGHT_PADDING, generate, message, f"line {line_of(side.node)} sets padding_side to right")


def _gets(generate: ast.Call, names: set[str], call: ast.Call) -> bool:
    """Return whether generate() is given the batch that `call` makes, by one of its names or in place."""
    if any(_maker(given) is call for given in _given(generate)):
        return True
    return line_of(generate) > line_of(call) and not names.isdisjoint(root for given in _given(generate) if (root := _root(given)))


def _tokenizer(call: ast.Call) -> str | None:
    """Return the name of the tokenizer that a call belongs to: tok of tok(...), and of tok.apply_chat_template(...)."""
    method = called(call) == "apply_chat_template" and isinstance(call.func, ast.Attribute)
    return dotted(call.func.value if method and isinstance(call.func, ast.Attribute) else call.func)


def _side(tokenizer: str | None, scope: Scope, sides: TrackedSetting, call: ast.Call) -> Write | None:
    """Return the padding_side that holds for the call: its own argument, else the tokenizer's, else the one of a processor's tokenizer."""
    if (said := keyword(call, "padding_side")) is not None:
        return Write(call, scope, said)
    if tokenizer is None:
        return None
    return sides.last(f"{tokenizer}.tokenizer", scope, call) or sides.last(tokenizer, scope, call)


def _maskless(scope: Scope) -> Iterator[Pitfall]:
    batches = list(_batches(scope))
    for generate in scope.calls:
        if called(generate) != "generate" or any(given.arg in (None, "attention_mask", "inputs_embeds") for given in generate.keywords):
            continue
        ids = keyword(generate, "input_ids") or keyword(generate, "inputs") or (generate.args[0] if generate.args else None)
        if ids is None or len(generate.args) > 1 or isinstance(ids, ast.Starred):
            continue
        source = unwrapped(ids)
        if isinstance(source, ast.Name):
            source = unwrapped(scope.value_of(source, generate) or source)
        made = [call for names, call in batches if _root(source) in names and line_of(call) < line_of(generate)]
        direct = [call for _, call in batches if _maker(source) is call]
        if last(source) == "input_ids" and (made or direct):
            line = line_of((made or direct)[-1])
            yield Pitfall(
                NO_MASK, generate, "a padded batch goes into generate() without its attention_mask", f"line {line} pads the batch"
            )

"""What a function of the user makes: a model that is run as it is built, or the pattern of a mask_mod."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask.intervals import Visible
from llmdoctor.mask.types import BLOCK, BackendPlan, ForwardInputs, KernelArguments, LayerMask, MaskObject

HEADS, PROBED = 8, 512  # heads and tokens over which a mask_mod is asked whether it looks at the head
MAX_PAIRS = 2**26  # of one mask_mod that is evaluated pair by pair


def made_by(reference: str, inputs: ForwardInputs) -> tuple[BackendPlan, dict[str, Any] | None]:
    """Return what the layers of the function's model receive, with the model's configuration; of a mask_mod its pattern, with None.

    Raises QuestionError if there is no such function or it cannot be called.
    """
    from llmdoctor.mask.live import build, run

    build.need("torch", "transformers")
    build.quiet()
    function = build.function_of(reference)
    if _is_mask_mod(function):
        return _pattern(reference, function, inputs), None
    made = build.called(reference, function)
    inner = getattr(made, "mask_mod", made)  # a BlockMask has the function that it was made of
    if _is_mask_mod(inner):
        return _pattern(reference, inner, inputs), None
    model = build.as_model(reference, made)
    name = str(model.config._attn_implementation)
    return run.attempt(model, inputs, name), {**model.config.to_dict(), "architectures": [type(model).__name__]}


def _is_mask_mod(value: Any) -> bool:
    """Return whether `value` is a function of batch, head, query and key."""
    if not callable(value) or inspect.isclass(value) or hasattr(value, "parameters"):
        return False
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return False
    return sum(one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in parameters) == 4


def _pattern(reference: str, mask_mod: Callable[..., Any], inputs: ForwardInputs) -> BackendPlan:
    """Return the pairs that a mask_mod shows to head 0, evaluated as flex_attention does, and the bytes of its BlockMask.

    The plan is not exact if other heads see other pairs.
    """
    from torch.nn.attention.flex_attention import create_mask

    from llmdoctor.mask.live.build import words_of

    batch, length = inputs.batch, inputs.q_len
    if batch * length * length > MAX_PAIRS:
        raise QuestionError(f"{reference}: {batch} x {length} x {length} pairs, at most {MAX_PAIRS:,} are evaluated: say a smaller --shape")
    try:
        sees = np.asarray(create_mask(mask_mod, batch, 1, length, length, device="cpu")[:, 0].numpy(), np.bool_)
        alike = _alike_in_heads(mask_mod, batch, length)
    except Exception as error:  # noqa: BLE001 the caller's own code can raise anything
        raise QuestionError(f"{reference}: over {batch} x {length} tokens it raises {words_of(error)}") from None
    none = np.zeros((batch, length), np.int64)
    visible = Visible(length, none, none, dense=sees)
    blocks = -(-length // BLOCK)
    size = 16 * batch * (blocks + blocks * blocks)  # four int32 tensors of counts and four of indices, as create_block_mask makes
    made = MaskObject("block_mask", (batch, 1, length, length), None, size, size)
    group = LayerMask(
        layers=(), type="mask_mod", backend="flex_attention", q_len=length, kv_len=length, q_offset=0, formula=reference, object=made,
        kernel=KernelArguments(False), visible=visible, count=visible.count(), total=batch * length * length,
        exact=alike, doubt="" if alike else "the mask_mod shows other pairs to other heads, and this is head 0",
    )  # fmt: skip
    return BackendPlan("flex_attention", (group,))


def _alike_in_heads(mask_mod: Callable[..., Any], batch: int, length: int) -> bool:
    """Return whether the first heads see the same pairs; a function that fails at a head that it has not is alike in those before."""
    import torch
    from torch.nn.attention.flex_attention import create_mask

    size = min(length, PROBED)
    rows = min(batch, max(1, PROBED**2 // (size * size)))
    try:
        sees = create_mask(mask_mod, rows, HEADS, size, size, device="cpu")
    except (IndexError, RuntimeError):
        return True
    return bool(torch.equal(sees, sees[:, :1].expand_as(sees)))

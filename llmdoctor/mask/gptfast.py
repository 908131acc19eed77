"""gpt-fast's static placeholder: a tril of max_seq_length made once, of which each call takes rows by input_pos.

meta-pytorch/gpt-fast model.py: Transformer.setup_caches makes `torch.tril(torch.ones(max_seq_length, max_seq_length, dtype=torch.bool))`,
forward() takes `self.causal_mask[None, None, input_pos]`. Training needs none of it: is_causal says the same.
"""

from __future__ import annotations

import numpy as np

from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.intervals import Visible
from llmdoctor.mask.types import GPT_FAST, BackendPlan, ForwardInputs, KernelArguments, LayerMask, MaskObject


def max_seq_length(inputs: ForwardInputs) -> int:
    """The placeholder's length: --cache static:N, else the tokens rounded up to a multiple of 8 (find_multiple in setup_caches)."""
    needed = inputs.cache.size if inputs.cache.kind == "static" else inputs.past + inputs.q_len
    return -(-needed // 8) * 8


def plan_gpt_fast(arch: Architecture, inputs: ForwardInputs) -> BackendPlan:
    """Every layer gets the same rows of the same tril, whatever is padded: gpt-fast has no padding."""
    if inputs.batch > 1 and inputs.mask_2d is not None and not bool((inputs.mask_2d != 0).all()):
        return BackendPlan(GPT_FAST, error="gpt-fast has no padding: its mask is the causal one, whatever the 2-D mask says")
    size, q_len = max_seq_length(inputs), inputs.q_len
    at = np.arange(q_len, dtype=np.int64)[None, :] + inputs.past
    visible = Visible(size, np.zeros_like(at), at + 1, repeat=inputs.batch)
    made = MaskObject("tensor", (1, 1, q_len, size), "bool", q_len * size, q_len * size)
    layers = tuple(layer.index for layer in arch.layers if layer.pattern is not None)
    if not layers:
        return BackendPlan(GPT_FAST, error="no attention layers")
    group = LayerMask(
        layers=layers,
        type="full_attention",
        backend=GPT_FAST,
        q_len=q_len,
        kv_len=size,
        q_offset=inputs.past,
        formula="tril[input_pos]",
        object=made,
        kernel=KernelArguments(False),
        visible=visible,
        skip_reason=None,
        exact=True,
        count=visible.count(),
        total=inputs.batch * q_len * size,
    )
    note = (
        f"gpt-fast keeps a tril of {size} x {size} bool ({size * size:,} bytes), and each call takes {q_len} of its rows; "
        f"in training none of it is needed: is_causal=True masks the same pairs with 0 bytes"
    )
    return BackendPlan(GPT_FAST, (group,), notes=(note,))

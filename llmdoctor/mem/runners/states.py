"""What an optimizer holds and what its step needs for a moment, for parameters one by one or for one flat tensor."""

from __future__ import annotations

from collections.abc import Sequence

from llmdoctor.mem.ledger import Ledger
from llmdoctor.mem.optimizers import state_keys
from llmdoctor.mem.settings import Optimizer
from llmdoctor.mem.weights import WIDTHS, Weight

BNB_BLOCK = 256
BNB_SMALL = 4096
BNB_PAGED = 100_000
FP32 = 4


def make_states(ledger: Ledger, optimizer: Optimizer, tensors: Sequence[tuple[str, int, str]]) -> None:
    """States of (name, elements, dtype), created at the first step. A fused step's counter lies on the device (torch/optim/adam.py:211)."""
    for name, numel, dtype in tensors:
        if optimizer.how == "fused" and optimizer.kind == "adamw":
            ledger.add(("state", "step", name), 4, "optimizer_state.step")
        for key in state_keys(optimizer):
            ledger.add(("state", key, name), numel * WIDTHS[dtype], f"optimizer_state.{key}")


def step_scratch(ledger: Ledger, optimizer: Optimizer, tensors: Sequence[tuple[str, int, str]]) -> None:
    """What the step allocates and frees. foreach: the denominators of the whole group (torch/optim/adam.py:791, _multi_tensor_adam; rmsprop
    alike), with adagrad a numerator too (adagrad.py, _multi_tensor_adagrad), with SGD the decayed gradients (sgd.py, _multi_tensor_sgd). A loop:
    two of one tensor (adam.py:547), one with SGD. fused: nothing.
    """
    copies = {"adamw": 1, "rmsprop": 1, "adagrad": 2, "sgd": int(optimizer.decay)}.get(optimizer.kind, 0)
    if optimizer.how == "foreach":
        for name, numel, dtype in tensors:
            for copy in range(copies):
                ledger.add(("denominator", name, copy), numel * WIDTHS[dtype], "temporaries")
        for name, _, _ in tensors:
            for copy in range(copies):
                ledger.drop(("denominator", name, copy))
    elif optimizer.how == "loop" and copies:
        copies = 1 if optimizer.kind == "sgd" else 2
        for _, numel, dtype in tensors:
            for copy in range(copies):
                ledger.add(("denominator", copy), numel * WIDTHS[dtype], "temporaries")
            for copy in range(copies):
                ledger.drop(("denominator", copy))


def make_adafactor(ledger: Ledger, weight: Weight) -> None:
    """Row and column sums in fp32, a full second moment for vectors (transformers/optimization.py, Adafactor.step)."""
    if len(weight.shape) > 1:
        ledger.add(("state", "row", weight.name), weight.numel // weight.shape[-1] * FP32, "optimizer_state.exp_avg_sq_row")
        columns = weight.numel // weight.shape[-2] * FP32
        ledger.add(("state", "col", weight.name), columns, "optimizer_state.exp_avg_sq_col")
    else:
        ledger.add(("state", "sq", weight.name), weight.numel * FP32, "optimizer_state.exp_avg_sq")
    ledger.add(("state", "rms", weight.name), FP32, "optimizer_state.RMS")


def adafactor_scratch(ledger: Ledger, weight: Weight) -> None:
    """One parameter's step: fp32 copies of a 16-bit gradient and weight, the update, and one more of it for a moment."""
    copies = 4 if weight.dtype != "float32" else 2
    for number in range(copies):
        ledger.add(("adafactor", number), weight.numel * FP32, "temporaries")
    for number in range(copies):
        ledger.drop(("adafactor", number))


def make_bitsandbytes(ledger: Ledger, optimizer: Optimizer, weight: Weight) -> None:
    """States of bitsandbytes (0.50.2, optim/optimizer.py, init_state and get_state_buffer).

    With 8 bits one byte per element and an fp32 maximum per block of 256; fp32 for tensors under 4096 elements and for embeddings (the
    Trainer asks for it, trainer.py:1335). Paged states of at least 100,000 elements lie in managed memory, outside the allocator.
    """
    full = optimizer.bits == 32 or weight.embedding or weight.numel < BNB_SMALL
    for number, (key, times) in enumerate(optimizer.states, 1):
        size = times * weight.numel * (FP32 if full else 1)
        if optimizer.paged and weight.numel >= BNB_PAGED:
            ledger.on_host(f"optimizer_state.{key}", size)
        else:
            ledger.add(("state", key, weight.name), size, f"optimizer_state.{key}")
        if not full:
            blocks = times * -(-weight.numel // BNB_BLOCK)
            ledger.add(("state", f"absmax{number}", weight.name), blocks * FP32, f"optimizer_state.absmax{number}")

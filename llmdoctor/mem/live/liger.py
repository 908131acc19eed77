"""Liger's kernels on fake tensors: the fused loss, RMSNorm and gated MLP, as they keep and allocate memory, without Triton.

Source: liger-kernel 0.8.5, ops/fused_linear_cross_entropy.py, ops/rms_norm.py, ops/swiglu.py, transformers/model/loss_utils.py.
"""

from __future__ import annotations

from typing import Any

from llmdoctor.core.errors import QuestionError

# Model types whose patch in Liger is this loss, this norm and this gated MLP (liger-kernel 0.8.5, transformers/monkey_patch.py).
MODELLED = ("llama", "mistral", "ministral", "qwen2", "qwen2_5_vl", "qwen2_vl", "qwen3", "smollm3")
# Other types that have a patch (MODEL_TYPE_TO_APPLY_LIGER_FN), with other norms, MLPs, experts or without the fused loss.
PATCHED = frozenset(
    "deepseek_v2 deepseek_v3 deepseek_v4 exaone4 falcon_h1 gemma gemma2 gemma3 gemma3_text gemma4 gemma4_text glm4 glm4v glm4v_moe gpt_oss granite "
    "hunyuan_v1_dense hunyuan_v1_moe internvl llama4 llama4_text llava mixtral mllama mllama_text_model muse_glimmer nemotron olmo2 olmo3 paligemma "
    "phi3 pixtral qwen2_5_vl_text qwen2_vl_text qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next qwen3_vl qwen3_vl_moe "
    "qwen3_vl_moe_text qwen3_vl_text smolvlm".split()
)


def check_type(kind: str) -> None:
    """Raise QuestionError if Liger's kernels for a model type are not modelled, or if there are none: the Trainer leaves such a model as it is."""
    if kind in MODELLED:
        return
    what = "are not modelled" if kind in PATCHED else "do not exist (liger-kernel 0.8.5), so that the Trainer leaves the model as it is"
    raise QuestionError(f"Liger's kernels for {kind} {what}: --without use_liger_kernel answers without them")


def fuse_loss(model: Any) -> bool:
    """Compute the loss of a causal language model from hidden states, chunk by chunk. Return False if the model has no output layer."""
    from torch import nn

    output = model.get_output_embeddings()
    if output is None or not isinstance(output, nn.Linear):
        return False
    fused = _fused_loss()

    class HeadInput(nn.Module):  # type: ignore[misc]
        """The output layer without its product: the loss takes the hidden states."""

        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = output.weight, output.bias

        def forward(self, states: Any) -> Any:
            return states

    def loss(logits: Any, labels: Any, **_: Any) -> Any:
        states = logits.view(-1, logits.shape[-1])
        return fused(states, layer.weight, nn.functional.pad(labels, (0, 1), value=-100)[..., 1:].contiguous().view(-1))

    layer = HeadInput()
    model.set_output_embeddings(layer)
    model.loss_function = loss
    return True


def fuse_layers(model: Any) -> None:
    """Replace RMS norms and gated MLPs by modules that keep what Liger's keep."""
    norm, product = _norm(), _gated()
    for module in model.modules():
        kind = type(module)
        if kind.__name__.endswith("RMSNorm") and hasattr(module, "weight"):
            _call(module, lambda self, x: norm(x, self.weight))
        elif all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj")) and _is_silu(getattr(module, "act_fn", None)):
            _call(module, lambda self, x: self.down_proj(product(self.gate_proj(x), self.up_proj(x))))


def _is_silu(activation: Any) -> bool:
    return "silu" in type(activation).__name__.lower()


def _call(module: Any, forward: Any) -> None:
    """Give `module` another forward, by a subclass of its class, so that every attribute stays what it is."""
    module.__class__ = type(type(module).__name__, (type(module),), {"forward": forward})


def _fused_loss() -> Any:
    import torch

    class FusedLoss(torch.autograd.Function):  # type: ignore[misc]
        """Holds the gradients of hidden states and output weight from the forward on; logits exist for one chunk at a time."""

        @staticmethod
        def forward(ctx: Any, states: Any, weight: Any, _labels: Any) -> Any:
            rows, size = states.shape
            vocabulary = weight.shape[0]
            parts = -(-vocabulary // size)
            chunk = min(rows, 1 << (-(-rows // parts) - 1).bit_length())
            grad_states = torch.empty_like(states)
            grad_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
            losses = torch.empty(rows, dtype=torch.float32)
            for start in range(0, rows, chunk):
                length = min(chunk, rows - start)
                logits = torch.empty(length, vocabulary, dtype=states.dtype)
                del logits
            ctx.save_for_backward(grad_states, grad_weight)
            return losses.sum()

        @staticmethod
        def backward(ctx: Any, _grad: Any) -> Any:
            return (*ctx.saved_tensors, None)

    return FusedLoss.apply


def _norm() -> Any:
    import torch

    class Norm(torch.autograd.Function):  # type: ignore[misc]
        """Keeps its input and one float32 per row; the gradient of the input takes the place of the output's."""

        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any) -> Any:
            out = torch.empty_like(x)
            ctx.save_for_backward(x, weight, torch.empty(x.numel() // x.shape[-1], dtype=torch.float32))
            return out

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            _, weight, _ = ctx.saved_tensors
            return grad, torch.empty_like(weight) if ctx.needs_input_grad[1] else None

    return Norm.apply


def _gated() -> Any:
    import torch

    class Gated(torch.autograd.Function):  # type: ignore[misc]
        """Keeps its two inputs, which the backward overwrites with their gradients."""

        @staticmethod
        def forward(ctx: Any, gate: Any, up: Any) -> Any:
            ctx.save_for_backward(gate, up)
            return torch.empty_like(gate)

        @staticmethod
        def backward(ctx: Any, _grad: Any) -> Any:
            gate, up = ctx.saved_tensors
            return gate.view(gate.shape), up.view(up.shape)

    return Gated.apply

"""What scaled_dot_product_attention allocates on a CUDA device: `python conformance/gpu_sdpa.py > docs/mem-sdpa.txt` on a GPU.

For each call: the kernel that torch chooses, and in bytes what is held after the forward (output included), the largest moment of the
forward, the largest moment of the backward above what was held before it, and what is held after it (gradients). llmdoctor/mem/live/cuda.py
emulates these numbers.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

BACKENDS = {-1: "error", 0: "math", 1: "flash", 2: "efficient", 3: "cudnn", 4: "overrideable"}
# name: (batch, query heads, key heads, tokens, head size, dtype, mask, options)
CALLS: dict[str, tuple[int, int, int, int, int, str, str, dict[str, Any]]] = {
    "plain causal": (2, 16, 16, 1024, 64, "bfloat16", "none", {"is_causal": True}),
    "plain": (2, 16, 16, 1024, 64, "bfloat16", "none", {}),
    "causal 128": (2, 16, 16, 1024, 128, "bfloat16", "none", {"is_causal": True}),
    "causal 256": (2, 4, 4, 1024, 256, "bfloat16", "none", {"is_causal": True}),
    "causal 512": (2, 4, 4, 1024, 512, "bfloat16", "none", {"is_causal": True}),
    "groups": (2, 16, 4, 1024, 128, "bfloat16", "none", {"is_causal": True, "enable_gqa": True}),
    "broadcast heads": (2, 16, 1, 1024, 64, "bfloat16", "none", {"is_causal": True}),
    "broadcast heads, mask": (2, 16, 1, 1024, 64, "bfloat16", "bool batch", {}),
    "dropout": (2, 16, 16, 1024, 64, "bfloat16", "none", {"is_causal": True, "dropout_p": 0.1}),
    "bool mask": (2, 16, 16, 1024, 64, "bfloat16", "bool batch", {}),
    "bool mask of one": (2, 16, 16, 1024, 64, "bfloat16", "bool one", {}),
    "bool mask, odd": (2, 16, 16, 1001, 64, "bfloat16", "bool batch", {}),
    "bool mask 96": (2, 32, 32, 1024, 96, "bfloat16", "bool batch", {}),
    "bool mask 128": (2, 16, 16, 1024, 128, "bfloat16", "bool batch", {}),
    "bool mask 256": (2, 4, 4, 1024, 256, "bfloat16", "bool batch", {}),
    "bool mask, dropout": (2, 16, 16, 1024, 64, "bfloat16", "bool batch", {"dropout_p": 0.1}),
    "bool mask, groups": (2, 16, 4, 1024, 128, "bfloat16", "bool batch", {"enable_gqa": True}),
    "float mask": (2, 16, 16, 1024, 64, "bfloat16", "float batch", {}),
    "bias of heads": (2, 16, 16, 1024, 64, "bfloat16", "float heads", {}),
    "trained bias": (2, 16, 16, 1024, 64, "bfloat16", "float heads grad", {}),
    "trained bias of batch": (2, 16, 16, 1024, 64, "bfloat16", "float all grad", {}),
    "trained bias, odd": (2, 16, 16, 1001, 64, "bfloat16", "float heads grad", {}),
    "fp32 causal": (2, 16, 16, 1024, 64, "float32", "none", {"is_causal": True}),
    "fp32 bool mask": (2, 16, 16, 1024, 64, "float32", "bool batch", {}),
    "fp32 groups": (2, 16, 4, 1024, 64, "float32", "none", {"is_causal": True, "enable_gqa": True}),
    "fp16 bool mask": (2, 16, 16, 1024, 64, "float16", "bool batch", {}),
}


def tensors(call: tuple[int, int, int, int, int, str, str, dict[str, Any]], device: str) -> list[Any]:
    """Return query, key and value [batch, heads, tokens, size], and the mask or None."""
    batch, heads, groups, length, size, dtype, mask, _ = call
    kind = getattr(torch, dtype)

    def made(count: int) -> Any:
        return torch.randn(batch, length, count, size, dtype=kind, device=device).transpose(1, 2).requires_grad_()

    shape = {"one": (1, 1), "batch": (batch, 1), "heads": (1, heads), "all": (batch, heads)}[[*mask.split(), "one"][1]]
    bias = None
    if mask.startswith("bool"):
        bias = torch.ones(*shape, length, length, dtype=torch.bool, device=device).tril()
    elif mask.startswith("float"):
        bias = torch.zeros(*shape, length, length, dtype=kind, device=device).requires_grad_(mask.endswith("grad"))
    return [made(heads), made(groups), made(groups), bias]


def measured(call: tuple[int, int, int, int, int, str, str, dict[str, Any]]) -> tuple[str, int, int, int, int]:
    """Return the kernel and the four numbers of one call on the GPU."""
    query, key, value, bias = tensors(call, "cuda")
    options = call[-1]
    chosen = torch._fused_sdp_choice(query, key, value, bias, options.get("dropout_p", 0.0), options.get("is_causal", False),
                                     enable_gqa=options.get("enable_gqa", False))  # fmt: skip
    numbers: list[int] = []
    for _ in range(2):  # the first call makes workspaces
        for tensor in (query, key, value, bias):
            if tensor is not None:
                tensor.grad = None
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        out = scaled_dot_product_attention(query, key, value, bias, **options)
        held = torch.cuda.memory_allocated()
        forward = torch.cuda.max_memory_allocated()
        gradient = torch.ones_like(out)
        start = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        out.backward(gradient)
        numbers = [held - before, forward - before, torch.cuda.max_memory_allocated() - start, torch.cuda.memory_allocated() - start]
        del out, gradient
    return (BACKENDS[chosen], *numbers)


def main() -> int:
    """Print one line per call."""
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, cuDNN {torch.backends.cudnn.version()}")
    print(f"{'call':24s} {'kernel':10s} {'held':>12s} {'forward':>12s} {'backward':>12s} {'after':>12s}")
    for name, call in CALLS.items():
        try:
            kernel, *numbers = measured(call)
        except RuntimeError as error:
            print(f"{name:24s} {str(error)[:80]}")
            continue
        print(f"{name:24s} {kernel:10s} " + " ".join(f"{number:12,d}" for number in numbers))
    return 0


if __name__ == "__main__":
    sys.exit(main())

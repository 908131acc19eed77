"""bitsandbytes' linear layers on a meta model: what they hold, and what their products allocate, without bitsandbytes.

Source: bitsandbytes 0.50.2, nn/modules.py, autograd/_functions.py (MatMul4Bit, MatMul8bitLt), backends/cuda/ops.py and backends/default/ops.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmdoctor.mem.workload import Quantization

BLOCK, NESTED = 64, 256  # elements of a 4-bit scale, scales of a nested scale
LARGE = 1536  # rows above which a 4-bit weight is dequantized whole for a product (_gemm_4bit_custom_max_m)


def quantize(model: Any, quantization: Quantization) -> None:
    """Replace the linear layers of a meta model as transformers does; the output layer stays (quantizers/base.py, get_modules_to_not_convert).

    With `prepared`, every other weight becomes float32 and nothing is trained (peft 0.21, utils/other.py, prepare_model_for_kbit_training).
    """
    import torch

    kind = _four_bit() if quantization.bits == 4 else _eight_bit()
    output = model.get_output_embeddings()
    kept = {id(output)} if output is not None else {id(module) for name, module in model.named_modules() if name in ("score", "classifier")}
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and id(module) not in kept:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, kind(module, quantization))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if quantization.prepared and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def _four_bit() -> Any:
    import torch
    from torch import nn

    class MatMul4Bit(torch.autograd.Function):  # type: ignore[misc]
        """Keeps the quantized weight alone; dequantizes it whole for a large product and for the backward."""

        @staticmethod
        def forward(ctx: Any, x: Any, packed: Any, shape: Any, double: bool, bias: Any) -> Any:
            ctx.shape, ctx.packed, ctx.double = shape, packed, double
            if x.numel() // x.shape[-1] <= LARGE:
                return torch.empty(*x.shape[:-1], shape[0], dtype=x.dtype)
            return nn.functional.linear(x, _dequantized(shape, x.dtype, double), bias)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return torch.matmul(grad, _dequantized(ctx.shape, grad.dtype, ctx.double)), None, None, None, None

    def _dequantized(shape: Any, dtype: Any, double: bool) -> Any:
        scales = [torch.empty(shape[0] * shape[1] // BLOCK, dtype=torch.float32) for _ in range(2 if double else 0)]
        weight = torch.empty(shape, dtype=dtype)
        del scales
        return weight

    class Linear4bit(nn.Module):  # type: ignore[misc]
        """x in the dtype of the products, times the dequantized weight; the result in the dtype of x."""

        def __init__(self, base: Any, quantization: Quantization) -> None:
            super().__init__()
            self.in_features, self.out_features = base.in_features, base.out_features
            self.compute, self.double = getattr(torch, quantization.compute), quantization.double
            blocks = -(-base.weight.numel() // BLOCK)
            with torch.device("meta"):
                self.weight = nn.Parameter(torch.empty((base.weight.numel() + 1) // 2, 1, dtype=torch.uint8), requires_grad=False)
                self.register_buffer("absmax", torch.empty(blocks, dtype=torch.uint8 if self.double else torch.float32))
                self.register_buffer("code", torch.empty(16, dtype=torch.float32))
                if self.double:
                    self.register_buffer("nested_absmax", torch.empty(-(-blocks // NESTED), dtype=torch.float32))
                    self.register_buffer("nested_code", torch.empty(256, dtype=torch.float32))
                    self.register_buffer("offset", torch.empty((), dtype=torch.float32))
            self.bias = base.bias

        def forward(self, x: Any) -> Any:
            given = x.dtype
            bias = None if self.bias is None else self.bias.to(self.compute)
            out = MatMul4Bit.apply(x.to(self.compute), self.weight, (self.out_features, self.in_features), self.double, bias)
            return out.to(given)

    Linear4bit.stands_for = 2
    return Linear4bit


def _eight_bit() -> Any:
    import torch
    from torch import nn

    class MatMul8bit(torch.autograd.Function):  # type: ignore[misc]
        """Keeps its input as an attribute, which checkpointing does not see; the product is int32, then float16, then the dtype of x."""

        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, scales: Any, bias: Any) -> Any:
            rows = x.reshape(-1, x.shape[-1])
            half = rows.to(torch.float16)
            statistics = torch.empty(rows.shape[0], dtype=torch.float32)
            quantized = torch.empty(rows.shape, dtype=torch.int8)
            outliers = half.abs()
            outliers = outliers >= 1
            del half, outliers
            product = torch.empty(rows.shape[0], weight.shape[0], dtype=torch.int32)
            out = torch.empty(product.shape, dtype=torch.float16)
            if bias is not None:
                out.add_(bias)
            out = out.to(x.dtype)
            del product, quantized, statistics
            ctx.x, ctx.weight, ctx.scales, ctx.shape = rows, weight, scales, x.shape
            return out.reshape(*x.shape[:-1], weight.shape[0])

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            dtype = ctx.x.dtype
            rows = grad.reshape(-1, grad.shape[-1]).contiguous().to(dtype)
            weight = torch.empty(ctx.weight.shape, dtype=dtype)
            weight = weight.mul_(ctx.scales.unsqueeze(1).mul(1.0 / 127.0))
            return torch.matmul(rows, weight).view(ctx.shape), None, None, None

    class Linear8bit(nn.Module):  # type: ignore[misc]
        """Weights in int8, one float32 scale per row."""

        def __init__(self, base: Any, _quantization: Quantization) -> None:
            super().__init__()
            self.in_features, self.out_features = base.in_features, base.out_features
            with torch.device("meta"):
                self.weight = nn.Parameter(torch.empty(base.weight.shape, dtype=torch.int8), requires_grad=False)
                self.register_buffer("scales", torch.empty(base.weight.shape[0], dtype=torch.float32))
            self.bias = base.bias

        def forward(self, x: Any) -> Any:
            return MatMul8bit.apply(x, self.weight, self.scales, self.bias)

    Linear8bit.stands_for = 1
    return Linear8bit

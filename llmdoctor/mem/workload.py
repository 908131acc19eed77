"""What runs: the model's precision and the shape of one micro step. Everything that a trace depends on, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters on the linear layers whose last name is one of `targets` (peft: suffix match)."""

    rank: int
    targets: tuple[str, ...] = LORA_TARGETS
    dropout: float = 0.0
    bias: str = "none"
    float32: bool = True  # peft's autocast_adapter_dtype; DeepSpeed casts them to the model's dtype


@dataclass(frozen=True, slots=True)
class Workload:
    """One micro step. `trainable` are patterns of parameter names (empty: all), `image` is (width, height) in pixels."""

    batch: int = 1
    seq_len: int = 512
    dtype: str = "bfloat16"
    autocast: str | None = None
    attention: str | None = None
    checkpointing: bool = False
    image: tuple[int, int] | None = None
    pixel_dtype: str = "float32"
    trainable: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    lora: Lora | None = None
    use_cache: bool | None = None
    float_outputs: bool = False

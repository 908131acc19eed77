"""What runs: the model's precision and the shape of one micro step. Everything that a trace depends on, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

ALL_LINEAR = "all-linear"
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters.

    `targets` is what PEFT's target_modules takes: names (the ends of module names), "all-linear", a regular expression for whole names in a
    tuple of one with `pattern`, or nothing for PEFT's own choice for the model type. `float32`: PEFT makes the adapters of a 16-bit model in
    float32 (autocast_adapter_dtype); DeepSpeed casts them to the model's dtype. `saved` are PEFT's modules_to_save, the ends of names of modules
    of which a copy is trained in full. `dora`: a weight-decomposed adapter, with a magnitude for each output.
    """

    rank: int
    targets: tuple[str, ...] = (ALL_LINEAR,)
    pattern: bool = False
    dropout: float = 0.0
    float32: bool = True
    saved: tuple[str, ...] = ()
    dora: bool = False


@dataclass(frozen=True, slots=True)
class Quantization:
    """Weights that bitsandbytes quantizes: 4 or 8 `bits`, `double`: the scales of 4-bit weights are quantized too.

    `prepared`: prepare_model_for_kbit_training of PEFT has converted every other weight to float32. `compute` is the dtype of the products.
    """

    bits: int
    double: bool = False
    prepared: bool = True
    compute: str = "bfloat16"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation between training steps: `batch` sequences on each device at once.

    `outputs`: the logits of each batch are returned, and stay on the device if metrics are computed from them. `generates`: text is
    generated too.
    """

    batch: int
    outputs: bool = True
    generates: bool = False


PAIRED = ("dpo", "reward")  # objectives whose examples are two sequences, the chosen and the rejected one
COMPARING = ("dpo", "kto")  # those that compare log-probabilities with a reference model's
PREFERENCES = (*PAIRED, "kto")  # those whose trainer switches dropout off and hands the model no labels


@dataclass(frozen=True, slots=True)
class Workload:
    """One micro step. `trainable` are patterns of parameter names (empty: all), `image` is (width, height) in pixels.

    `loss` is None for the model's own loss, "fused" for one that is computed from hidden states in chunks, "liger" for all of Liger's kernels.
    `objective` is None for transformers' Trainer, else "sft", "dpo", "kto" or "reward" for TRL's trainer of that name. `reference` is the dtype of a
    reference model beside the trained one, `compares` reports whether each step computes log-probabilities of the reference. `evaluation`: a
    batch of the evaluation, without gradients. `lengths` are those of the sequences, which are padded on the right to `seq_len`; `packed`
    those of the documents in each sequence, which do not see each other; `flat`: the sequences of the batch are one row. `units` are the classes of the
    layers that FSDP gathers one by one, empty for those that the model names, None without FSDP.
    """

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
    quantization: Quantization | None = None
    loss: str | None = None
    use_cache: bool | None = None
    float_outputs: bool = False
    objective: str | None = None
    reference: str | None = None
    compares: bool = False
    evaluation: bool = False
    lengths: tuple[int, ...] = ()
    packed: tuple[int, ...] = ()
    flat: bool = False
    units: tuple[str, ...] | None = None

    @property
    def sequences(self) -> int:
        """Return the sequences of a micro step: two for each example of a preference."""
        return self.batch * (2 if self.objective in PAIRED else 1)

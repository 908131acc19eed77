"""The real model of a measured case: random weights, quantized or not, with PEFT's own adapters and frozen parts."""

from __future__ import annotations

import gc
import tempfile
from typing import TYPE_CHECKING, Any

from llmdoctor.core.errors import QuestionError

if TYPE_CHECKING:
    from llmdoctor.mem.workload import Quantization, Workload


def real_model(path: str, workload: Workload, device: Any) -> Any:
    """Return the model of the directory `path` with random weights on `device`, with the frozen parts and the adapters of `workload`.

    Raises QuestionError if the model, its quantization or its adapters need a package or a device that is not here.
    """
    import torch

    from llmdoctor.mem.live.build import freeze, read_config
    from llmdoctor.mem.live.trace import enable_checkpointing
    from llmdoctor.modeldir.live.classes import class_of, dtype_argument

    config = read_config(path)
    make = class_of(config)
    with device:
        model = make._from_config(config, **dtype_argument(getattr(torch, workload.dtype)), attn_implementation=workload.attention)
    if workload.quantization is not None:
        model = _quantized(model, workload.quantization, workload.attention, device)
    if workload.lora is not None:
        from llmdoctor.mem.live.lora import add_real_adapters

        model = add_real_adapters(model, workload.lora)
    freeze(model, workload)
    if workload.use_cache is not None:
        model.config.use_cache = workload.use_cache
    if workload.checkpointing:
        enable_checkpointing(model)
    return model.train()


def _quantized(model: Any, quantization: Quantization, attention: str | None, device: Any) -> Any:
    """Return the model as from_pretrained quantizes a checkpoint of it; the checkpoint is written and deleted here."""
    import torch

    from llmdoctor.modeldir.live.classes import dtype_argument

    if device.type != "cuda":
        raise QuestionError("quantized weights are measured on CUDA devices only")
    try:
        from peft import prepare_model_for_kbit_training
        from transformers import BitsAndBytesConfig
    except ImportError:
        raise QuestionError("a real run with quantized weights needs peft, which is not installed here") from None
    make, dtype = type(model), model.dtype
    settings = (
        BitsAndBytesConfig(load_in_8bit=True)
        if quantization.bits == 8
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=quantization.double,
            bnb_4bit_compute_dtype=getattr(torch, quantization.compute),
        )
    )
    with tempfile.TemporaryDirectory(prefix="llmdoctor-mem-") as folder:
        model.save_pretrained(folder)
        del model
        gc.collect()
        torch.cuda.empty_cache()
        loaded = make.from_pretrained(
            folder, quantization_config=settings, **dtype_argument(dtype), device_map={"": device.index}, attn_implementation=attention
        )
    if not quantization.prepared:
        return loaded
    # The Trainer's way of checkpointing is switched on afterwards, as for any other model.
    return prepare_model_for_kbit_training(loaded, use_gradient_checkpointing=False)

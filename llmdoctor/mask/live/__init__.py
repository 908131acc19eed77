"""Masks seen in real forwards: the only place of the mask job that imports torch and transformers, inside functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmdoctor.mask.types import Inputs, Plan

if TYPE_CHECKING:
    from llmdoctor.mask.live.differential import Failed, Measure


def observe(directory: str, inputs: Inputs, backends: tuple[str, ...], dtype: str, weights: bool) -> tuple[list[Plan], list[str]]:
    """What the layers of the directory's model really receive, one Plan a backend, and notes on how the model was made."""
    from llmdoctor.mask.live import build, patches, run

    build.need("torch", "transformers")
    build.quiet()
    config, was_narrowed = (None, False) if weights else build.narrowed(build.config_of(directory))
    plans: list[Plan] = []
    for backend in backends:
        try:
            model = build.load(directory, backend, dtype) if weights else build.build(config, backend, dtype)
        except (ValueError, ImportError) as error:
            plans.append(Plan(backend, error=f"{type(error).__name__}: {str(error).splitlines()[0]}"))
            continue
        plans.append(run.attempt(model, inputs, backend))
    notes = ["weights: " + ("the directory's own" if weights else "random" + (", widths narrowed" if was_narrowed else ""))]
    if "flash_attention_2" in backends and not patches.has_flash_attn():
        notes.append("flash_attention_2: the library's own path over a CPU reference kernel, because flash-attn is not installed here")
    return plans, notes


def measure_model(
    source: str, is_function: bool, inputs: Inputs, backends: tuple[str, ...], weights: bool
) -> tuple[list[Measure], list[Failed], list[tuple[str, str]]]:
    """The differential tests of one set of inputs under each backend, those that failed, and backends that could not be built, with the reason."""
    from llmdoctor.mask.live import build, patches
    from llmdoctor.mask.live.differential import measure

    build.need("torch", "transformers")
    build.quiet()
    import torch

    found: list[Measure] = []
    failed: list[Failed] = []
    missed: list[tuple[str, str]] = []
    config = None if is_function or weights else build.narrowed(build.config_of(source))[0]
    for backend in backends if not is_function else ("as built",):
        # the real kernel wants half precision; the reference kernel takes float32, but not every model's path to it does (gpt2)
        half = backend == "flash_attention_2" and patches.has_flash_attn()
        dtype = "bfloat16" if half else "float32"
        try:
            if is_function:
                model = build.from_function(source)
            else:
                model = build.load(source, backend, dtype) if weights else build.build(config, backend, dtype)
        except (ValueError, ImportError) as error:
            missed.append((backend, f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"))
            continue
        found += _no_mask_function(model, backend)
        measured, left_out = measure(model, inputs, str(model.config._attn_implementation), _is_causal(model))
        if left_out and not measured and backend == "flash_attention_2" and not half and not is_function:
            model = model.to(torch.bfloat16)
            measured, left_out = measure(model, inputs, str(model.config._attn_implementation), _is_causal(model))
        found += measured
        failed += left_out
    return found, failed, missed


def _is_causal(model: Any) -> bool:
    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        return True
    names = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ForImageTextToText")
    return getattr(config, "is_causal", True) and any(part in type(model).__name__ for part in names)


def _no_mask_function(model: Any, backend: str) -> list[Measure]:
    """An attention function without a mask function of its name (transformers: no mask is made at all)."""
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    from llmdoctor.mask.live.differential import Measure as Made

    name = model.config.get_text_config()._attn_implementation
    if name == "eager" or name not in AttentionInterface._global_mapping or name in AttentionMaskInterface._global_mapping:
        return []
    text = f"{name} is registered as an attention function and not as a mask function: no layer gets a mask"
    return [Made("a mask function", str(name or backend), "MSK010", 1.0, 0.0, 0, (0, 0), text)]

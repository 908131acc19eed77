"""Masks seen in real forwards: the only place of the mask job that imports torch and transformers, inside functions."""

from __future__ import annotations

from llmdoctor.mask.model import Inputs, Plan


def observe(directory: str, inputs: Inputs, backends: tuple[str, ...], dtype: str, weights: bool) -> tuple[list[Plan], list[str]]:
    """What the layers of the directory's model really receive, one Plan a backend, and notes on how the model was made."""
    from llmdoctor.mask.live import build, patches, run

    build.need("torch", "transformers")
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

"""Masks seen in real forwards: the only place of the mask job that imports torch and transformers, inside functions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.types import BackendPlan, ForwardInputs

if TYPE_CHECKING:
    from llmdoctor.mask.live.differential import FailedTest, Measurement
    from llmdoctor.mask.live.narrow import Narrowed
    from llmdoctor.mask.meant import Design


def observe(
    directory: str, inputs: ForwardInputs, backends: tuple[str, ...], dtype: str, weights: bool
) -> tuple[list[BackendPlan], list[str]]:
    """What the layers of the directory's model really receive, one BackendPlan a backend, and notes on how the model was made."""
    from llmdoctor.mask.live import build, patches, run

    build.need("torch", "transformers")
    build.quiet()
    plans: list[BackendPlan] = []
    try:
        small = None if weights else _small(directory)
    except build.LibraryRefusal as error:
        return [BackendPlan(backend, error=str(error)) for backend in backends], []
    inputs = inputs if small is None else replace(inputs, input_ids=small.ids(inputs.input_ids), decoder_ids=small.ids(inputs.decoder_ids))
    for backend in backends:
        try:
            model = build.load(directory, backend, dtype) if small is None else build.build(small.config, backend, dtype)
        except ValueError as error:
            plans.append(BackendPlan(backend, error=f"{type(error).__name__}: {str(error).splitlines()[0]}"))
            continue
        made = run.attempt(model, inputs, backend)
        if made.error is not None and backend == "flash_attention_2" and dtype == "float32":  # not every path to that kernel takes float32
            made = run.attempt(model.bfloat16(), inputs, backend)
        plans.append(made)
    notes = ["weights: " + ("the directory's own" if weights else "random" + (f", {small.cut}" if small is not None and small.cut else ""))]
    if "flash_attention_2" in backends and not patches.has_flash_attn():
        notes.append("flash_attention_2: the library's own path over a CPU reference kernel, because flash-attn is not installed here")
    return plans, notes


def measure_model(
    source: str, inputs: ForwardInputs, backends: tuple[str, ...], *, is_function: bool, weights: bool, arch: Architecture | None
) -> tuple[list[Measurement], list[FailedTest], list[tuple[str, str]]]:
    """Return the results of the tests under each backend, the tests that raised, and backends that could not be built, with the reason.

    A change that may repair a failed test is applied and measured; the first that passes is the fix.
    """
    from llmdoctor.mask.joining import BUILD
    from llmdoctor.mask.live import build
    from llmdoctor.mask.live.differential import FailedTest
    from llmdoctor.mask.meant import design_of

    build.need("torch", "transformers")
    build.quiet()
    found: list[Measurement] = []
    failed: list[FailedTest] = []
    missed: list[tuple[str, str]] = []
    try:
        small = None if is_function or weights else _small(source)
    except build.LibraryRefusal as error:
        return [], [FailedTest(backend, BUILD, str(error), True) for backend in backends], []
    inputs = inputs if small is None else replace(inputs, input_ids=small.ids(inputs.input_ids), decoder_ids=small.ids(inputs.decoder_ids))
    if inputs.mask_4d is not None and inputs.mask_4d.dtype.kind == "f":  # the tests run in float32, and what the mask shows is the same
        inputs = replace(inputs, attention_mask=inputs.mask_4d.astype(np.float32), mask_dtype="")
    models = _Models(source, None if small is None else small.config, is_function=is_function)
    design = design_of(arch, inputs)
    for backend in backends if not is_function else ("as built",):
        try:
            model = models.of(backend)
        except ValueError as error:
            missed.append((backend, build.words_of(error)))
            continue
        found += _no_mask_function(model, backend)
        measured, left_out = _tests(models, backend, inputs, design)
        mrope = arch is not None and arch.mrope
        found += [one if one.passed else _repaired(models, one, inputs, backend, arch, mrope=mrope) for one in measured]
        failed += left_out
    return found, failed, missed


def _small(directory: str) -> Narrowed:
    """Return the directory's configuration, narrowed if its model would be large.

    Raises LibraryRefusal in the library's words if its class refuses it, QuestionError if a package that it needs is not installed or no cut of a
    large model can be run.
    """
    from llmdoctor.mask.live import build
    from llmdoctor.mask.live.narrow import NoCut, narrowed

    config = build.config_of(directory)
    try:
        return narrowed(config)
    except ImportError as error:
        raise QuestionError(f"{directory}: {build.words_of(error)}") from None
    except NoCut as error:
        if "pixel_values" in str(error):
            raise QuestionError(f"{directory}: a forward of its class needs an image, and none is made here: {error}") from None
        raise QuestionError(f"{directory}: its model is too large to run, and no smaller one of its class could be run: {error}") from None
    except QuestionError:
        raise
    except Exception as error:  # noqa: BLE001 a class may refuse its own configuration with anything
        raise build.LibraryRefusal(f"transformers refuses to build the model: {build.words_of(error)}") from None


class _Models:
    """The model under each backend, built once."""

    def __init__(self, source: str, config: Any, *, is_function: bool) -> None:
        self.source, self.config, self.is_function = source, config, is_function
        self.built: dict[str, Any] = {}

    def of(self, backend: str) -> Any:
        """Return the model; raises what the library raises if its class does not support `backend`."""
        from llmdoctor.mask.live import build, patches

        if backend not in self.built:
            # the real kernel wants half precision; the reference kernel takes float32, but not every model's path to it does (gpt2)
            half = backend == "flash_attention_2" and patches.has_flash_attn()
            dtype = "bfloat16" if half else "float32"
            if self.is_function:
                self.built[backend] = build.from_function(self.source)
            elif self.config is None:
                self.built[backend] = build.load(self.source, backend, dtype)
            else:
                self.built[backend] = build.build(self.config, backend, dtype)
        return self.built[backend]


def _tests(models: _Models, backend: str, inputs: ForwardInputs, design: Design) -> tuple[list[Measurement], list[FailedTest]]:
    """Run every test; a path to flash-attention that does not take float32 is run in bfloat16."""
    import torch

    from llmdoctor.mask.live.differential import measure

    model = models.of(backend)
    name = str(model.config._attn_implementation)
    measured, left_out = measure(model, inputs, name, design, causal=_is_causal(model))
    if left_out and not measured and backend == "flash_attention_2" and model.dtype == torch.float32:
        model = models.built[backend] = model.to(torch.bfloat16)
        measured, left_out = measure(model, inputs, name, design, causal=_is_causal(model))
    return measured, left_out


def _repaired(
    models: _Models, one: Measurement, inputs: ForwardInputs, backend: str, arch: Architecture | None, *, mrope: bool
) -> Measurement:
    """Return a failed test with the first change that makes all tests pass, or with those that did not help."""
    from llmdoctor.mask.meant import design_of
    from llmdoctor.mask.remedies import remedies

    tried: list[str] = []
    for remedy in remedies(inputs, backend, mrope=mrope):
        if remedy.backend is not None and models.is_function:
            continue
        try:
            measured, raised = _tests(models, remedy.backend or backend, remedy.inputs, design_of(arch, remedy.inputs))
        except (ValueError, ImportError):
            continue  # the class does not support that backend
        tried.append(remedy.text)
        if measured and not raised and all(each.passed for each in measured):
            value = max(each.value for each in measured)
            return replace(one, fix=remedy.text, fix_measured=value, tried=tuple(tried))
    if not tried:
        return one
    return replace(one, fix=f"none found. Tried without success: {'; '.join(tried)}", tried=tuple(tried))


def _is_causal(model: Any) -> bool:
    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        return True
    names = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ForImageTextToText")
    return getattr(config, "is_causal", True) and any(part in type(model).__name__ for part in names)


def _no_mask_function(model: Any, backend: str) -> list[Measurement]:
    """An attention function without a mask function of its name (transformers: no mask is made at all)."""
    try:
        from transformers.masking_utils import AttentionMaskInterface
        from transformers.modeling_utils import AttentionInterface
    except ImportError:
        return []  # before 4.53 the modeling files make their masks whatever the attention function
    from llmdoctor.mask.live.differential import Measurement

    name = model.config.get_text_config()._attn_implementation
    if name == "eager" or name not in AttentionInterface._global_mapping or name in AttentionMaskInterface._global_mapping:
        return []
    text = f"{name} is registered as an attention function and not as a mask function: no layer gets a mask"
    return [
        Measurement(
            name="a mask function", backend=str(name or backend), code="MSK010", value=1.0, threshold=0.0, row=0, span=(0, 0), text=text
        )
    ]

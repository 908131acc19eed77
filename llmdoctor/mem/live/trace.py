"""A real trace of the model's own code: forward, loss and backward on fake tensors, a few layers of each stack."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.live.build import meta_model, read_config, reference_model, shorten, to_fake, weights_of
from llmdoctor.mem.live.inputs import make_inputs
from llmdoctor.mem.live.lora import without_adapters
from llmdoctor.mem.live.recorder import StorageRecorder, recording
from llmdoctor.mem.live.units import mark_calls, places_of, units_of
from llmdoctor.mem.timeline import NotAlike, Segment, Stack, Traced, expand

if TYPE_CHECKING:
    from llmdoctor.mem.workload import Workload

_KINDS = (("norm", "norm"), ("ln_", "norm"), ("attn", "attention"), ("attention", "attention"), ("mlp", "mlp"), ("expert", "mlp"))


def trace(path: str, workload: Workload) -> Traced:
    """Return one traced micro step: a few layers of each stack, repeated; the whole model if its layers differ.

    Raises QuestionError if transformers does not know the model or its code fails.
    """
    try:
        return _trace(path, workload, short=True)
    except NotAlike:
        return _trace(path, workload, short=False)


def _trace(path: str, workload: Workload, *, short: bool) -> Traced:
    config = read_config(path)
    model = meta_model(config, workload)
    _check_inputs(model)
    _check_positions(model, workload)
    weights = weights_of(model)
    buffers = tuple(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    reference = reference_model(config, workload)
    known = () if reference is None else weights_of(reference)
    units = {} if workload.units is None else units_of(model, workload.units)
    stacks = shorten(model) if short else []
    if reference is not None and short:
        shorten(reference)
    fake = to_fake([model] if reference is None else [model, reference])
    if workload.evaluation:
        model.eval()
    elif workload.checkpointing:
        enable_checkpointing(model)
        if workload.lora is not None:
            model.enable_input_require_grads()
    if workload.loss is not None:
        _fuse(model, workload.loss)
    recorder = StorageRecorder()
    segments = _record(_TracedModels(model, reference, units), config, stacks=stacks, workload=workload, fake=fake, recorder=recorder)
    described = ", ".join(f"{stack.traced} of {stack.layers} {stack.name}" for stack in stacks) or "every layer"
    return Traced(weights, buffers, tuple(expand(segments, stacks)), described, reference=known, units=units)


@dataclass(frozen=True, slots=True)
class _TracedModels:
    """The model that is trained with its units of FSDP, and the reference model if it is another one."""

    trained: Any
    reference: Any | None
    units: Mapping[str, tuple[str, ...]]

    @property
    def all(self) -> tuple[Any, ...]:
        return (self.trained,) if self.reference is None else (self.trained, self.reference)


def _fuse(model: Any, loss: str) -> None:
    """Replace the loss, and for all of Liger's kernels the norms and MLPs too. Raises QuestionError if the model is not one of those modelled."""
    from llmdoctor.mem.live.liger import check_type, fuse_layers, fuse_loss

    if loss == "liger":
        check_type(str(model.config.model_type))
    if not fuse_loss(model):
        raise QuestionError(f"{type(model).__name__}: a fused loss needs a linear output layer, which this model does not have")
    if loss == "liger":
        fuse_layers(model)


def _check_inputs(model: Any) -> None:
    """Raise QuestionError for a model of sounds or images alone: its batches are not modelled."""
    if model.main_input_name != "input_ids":
        raise QuestionError(f"{type(model).__name__} takes {model.main_input_name}, not tokens, and its batches are not modelled")


def _check_positions(model: Any, workload: Workload) -> None:
    """A table of learned positions has a row for each token; OPT's and BART's have two more."""
    import torch

    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, torch.nn.Embedding) and ("position" in last or last == "wpe") and "vis" not in name:
            rows = module.num_embeddings - (getattr(module, "offset", 0) or 0)
            if workload.seq_len > rows and "relative" not in last:
                raise QuestionError(f"--seq-len {workload.seq_len}: the model has learned {rows} positions ({name}), and no more")


def _record(
    models: _TracedModels, config: Any, *, stacks: list[Stack], workload: Workload, fake: Any, recorder: StorageRecorder
) -> list[Segment]:
    model = models.trained
    for tensor in [tensor for one in models.all for tensor in (*one.parameters(), *one.buffers())]:
        recorder.static.add(tensor.untyped_storage()._cdata)
    inputs = make_inputs(model, config, workload, fake)
    known = inspect.signature(type(model).forward).parameters
    inputs = {name: tensor for name, tensor in inputs.items() if name in known}
    with _marked(models, stacks, recorder), recording(recorder, fake):
        recorder.mark("p", "evaluation" if workload.evaluation else "forward")
        _see_inputs(inputs, recorder)
        _step(models, inputs, workload, recorder)
    return recorder.finish()


def _see_inputs(inputs: dict[str, Any], recorder: StorageRecorder) -> None:
    """Record the inputs, in a function of its own so that no variable keeps the last one alive."""
    for tensor in inputs.values():
        recorder.see(tensor, "inputs")


def _step(models: _TracedModels, inputs: dict[str, Any], workload: Workload, recorder: StorageRecorder) -> None:
    import torch

    try:
        with torch.no_grad() if workload.evaluation else nullcontext():
            loss = _loss(models, inputs, workload, recorder)
    except QuestionError:
        raise
    except Exception as error:
        text, name = " ".join(str(error).split())[:300], type(models.trained).__name__
        raise QuestionError(f"{name}: its forward fails on fake tensors: {type(error).__name__}: {text}") from error
    recorder.segment(None)
    if workload.evaluation:
        inputs.clear()
        return
    recorder.mark("p", "backward")
    recorder.backward = True
    if loss.requires_grad:
        # loss.backward() is itself a torch function: it would leave the function mode, and a checkpointed layer would run otherwise again.
        engine: Any = torch.autograd.Variable._execution_engine
        engine.run_backward((loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True)
    recorder.segment(None)
    recorder.mark("p", "step")
    inputs.clear()


def _loss(models: _TracedModels, inputs: dict[str, Any], workload: Workload, recorder: StorageRecorder) -> Any:
    """Return the loss, as the trainer of the workload computes it."""
    from llmdoctor.mem.live import objectives

    def call(given: dict[str, Any]) -> Any:
        return _outputs(models.trained, given, workload)

    def reference(given: dict[str, Any]) -> Any:
        recorder.segment(None)
        recorder.part = "reference"
        try:
            with nullcontext() if models.reference is not None else without_adapters(models.trained):
                return _outputs(models.reference or models.trained, given, workload)
        finally:
            recorder.segment(None)
            recorder.part = "forward"

    if workload.objective == "sft" and workload.loss is None:
        return objectives.supervised(call, inputs)
    if workload.objective == "dpo":
        return objectives.preference(call, inputs, reference if workload.compares else None)
    if workload.objective == "kto":
        return objectives.unpaired(call, inputs, reference if workload.compares else None)
    if workload.objective == "reward":
        return objectives.reward(call, inputs)
    outputs = call(inputs)
    if "loss" not in outputs:
        raise QuestionError(
            f"{type(models.trained).__name__} computes no loss by itself: training it (sentence-transformers, for example) is not modelled"
        )
    return outputs["loss"]


def _outputs(model: Any, inputs: dict[str, Any], workload: Workload) -> Any:
    """Return the model's outputs. Under autocast accelerate turns them into fp32 copies (utils/operations.py, ConvertOutputsToFp32)."""
    import torch

    dtype = workload.autocast
    context = nullcontext() if dtype is None else torch.autocast("cpu", dtype=getattr(torch, dtype))
    with context:
        outputs = model(**inputs)
    return {name: _float(value) for name, value in outputs.items()} if workload.float_outputs else outputs


def _float(value: Any) -> Any:
    import torch

    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


@contextmanager
def _marked(models: _TracedModels, stacks: list[Stack], recorder: StorageRecorder) -> Iterator[None]:
    """Install hooks that record which layer and which kind of module runs, and when a parameter's gradient is complete."""
    import torch
    from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

    kinds = _Kinds(models, recorder)
    recorder.kind = kinds.current
    handles = [
        register_module_forward_pre_hook(kinds.enter),
        register_module_forward_hook(kinds.leave, always_call=True),
    ]
    for module, place in places_of(models.all, stacks, models.units):
        mark_calls(module, place, recorder)
    for name, parameter in models.trained.named_parameters():
        if parameter.requires_grad:
            handles.append(parameter.register_post_accumulate_grad_hook(_arrival(name, recorder)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    del torch


def _arrival(name: str, recorder: StorageRecorder) -> Callable[[Any], None]:
    def arrived(parameter: Any) -> None:
        recorder.mark("g", name, recorder.place(parameter.grad))
        parameter.grad = None

    return arrived


class _Kinds:
    """The kind of the module that runs, by the names on the way to it; what follows the output layer is the loss."""

    def __init__(self, models: _TracedModels, recorder: StorageRecorder) -> None:
        self.recorder = recorder
        self.kinds: dict[int, str | None] = {}
        self.outputs: set[int] = set()
        for model in models.all:
            self.kinds |= {id(module): _kind(name) for name, module in model.named_modules()}
            self.kinds[id(model.get_input_embeddings())] = "embedding"
            output = model.get_output_embeddings()
            if output is not None:
                self.kinds[id(output)] = "logits"
                self.outputs.add(id(output))
        self.stack: list[str | None] = []
        self.default = "other"

    def enter(self, module: Any, _args: Any) -> None:
        """A module's forward begins."""
        self.stack.append(self.kinds.get(id(module)) or (self.stack[-1] if self.stack else None))

    def leave(self, module: Any, _args: Any, _out: Any) -> None:
        """A module's forward ends."""
        if self.stack:
            self.stack.pop()
        if id(module) in self.outputs:
            self.default = "logits"

    def current(self) -> str:
        """The kind of what is allocated now."""
        if self.recorder.backward and not self.stack:
            return "temporaries"
        return (self.stack[-1] if self.stack else None) or self.default


def _kind(name: str) -> str | None:
    last = name.rpartition(".")[2].lower()
    return next((kind for part, kind in _KINDS if part in last), None)


def enable_checkpointing(model: Any) -> None:
    """As the Trainer's gradient_checkpointing=True does; the method's name changed in transformers 5."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()

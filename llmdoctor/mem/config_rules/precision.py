"""Which dtypes a DeepSpeed config asks for, and where two settings ask for two of them. Lines are deepspeed 0.19.8's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmdoctor.configs.deepspeed_releases import DeepSpeedRelease
from llmdoctor.configs.view import Config, is_on, offloads, stage_of
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.mem.config_rules.rules import PRECISION, REFUSED

# runtime/config.py:148 (DtypeEnum)
_DTYPES = {
    **dict.fromkeys(("torch.float16", "fp16", "float16", "half"), "fp16"),
    **dict.fromkeys(("torch.float32", "fp32", "float32", "float"), "fp32"),
    **dict.fromkeys(("torch.bfloat16", "bf16", "bfloat16"), "bf16"),
    **dict.fromkeys(("torch.int8", "int8"), "int8"),
}
_NAMED = (
    (("torch_autocast", "dtype"), "deepspeed/runtime/config.py:190 (get_torch_autocast_dtype)"),
    (("data_types", "grad_accum_dtype"), "deepspeed/runtime/engine.py:1809"),
    (("data_types", "param_dtype"), "deepspeed/runtime/engine.py:1826"),
)


def precision(config: Config, release: DeepSpeedRelease) -> Iterator[Finding]:
    """What is wrong with the precisions that a DeepSpeed config asks for."""
    half = [name for name in ("bf16", "fp16") if is_on(config.get(name, "enabled"))]
    if len(half) == 2:
        line = config.line("bf16", "enabled")
        message = f"fp16.enabled and bf16.enabled{f' (line {line})' if line else ''} are both true: DeepSpeed asserts that they are not"
        cause = "deepspeed/runtime/config.py:511: bfloat16 and fp16 modes cannot be simultaneously enabled"
        yield config.found(PRECISION, message, "fp16", "enabled", cause=cause, fix='"fp16": {"enabled": false}')
    if half and is_on(config.get("torch_autocast", "enabled")) and "torch_autocast" in release.top:
        yield config.found(
            PRECISION,
            f"torch_autocast is enabled beside {half[0]}: the weights are 16 bit already, autocast over them keeps nothing in fp32",
            "torch_autocast",
            "enabled",
            cause="deepspeed/runtime/engine.py:669 starts autocast whatever bf16 and fp16 are",
            fix=f'remove "torch_autocast", or set {half[0]}.enabled to false',
            severity=Severity.WARNING,
        )
    yield from _masters(config, release)
    fp16 = config.section("fp16")
    dynamic = release.sections["fp16",]["loss_scale_window"] == "int!"
    if fp16 is not None and "fp16" in half and dynamic and fp16.value.get("loss_scale", 0) in (0, "0", "auto"):
        for key in ("loss_scale_window", "min_loss_scale"):
            number = fp16.value.get(key, 1)
            if isinstance(number, int | float) and not isinstance(number, bool) and number <= 0:
                message = f"fp16.{key} is {number}, and dynamic loss scaling needs one above 0: DeepSpeed raises ValidationError"
                yield fp16.found(REFUSED, message, key, cause="deepspeed/runtime/precision_config.py:193", fix=f'remove "{key}"')


def _masters(config: Config, release: DeepSpeedRelease) -> Iterator[Finding]:
    """Low-precision master weights (runtime/config.py:702 to :714, zero/stage_1_and_2.py:331)."""
    bf16 = release.sections["bf16",]
    masters, states = (
        is_on(config.get("bf16", name)) and name in bf16 for name in ("bf16_master_weights_and_grads", "bf16_optimizer_states")
    )
    reads = ("fp16",) in release.validated or is_on(config.get("fp16", "enabled"))
    old = is_on(config.get("fp16", "fp16_master_weights_and_grads")) and reads
    zero = config.section("zero_optimization")
    stage = 0 if zero is None else stage_of(zero)
    if states and not masters:
        fix = '"bf16_master_weights_and_grads": true beside it'
        cause = "deepspeed/runtime/config.py:714"
        message = "bf16_optimizer_states without bf16_master_weights_and_grads: DeepSpeed asserts both"
        yield config.found(REFUSED, message, "bf16", "bf16_optimizer_states", cause=cause, fix=fix)
    for on, place in ((masters, ("bf16", "bf16_master_weights_and_grads")), (old, ("fp16", "fp16_master_weights_and_grads"))):
        if on and stage is not None and stage not in release.master_stages:
            stages = "stage 1, 2 or 3" if len(release.master_stages) > 1 else "stage 2"
            message = f"{place[1]} needs ZeRO {stages}, this is stage {stage}: {release.title} asserts it"
            yield config.found(REFUSED, message, *place, cause="deepspeed/runtime/config.py:703", fix='"zero_optimization": {"stage": 2}')
        elif on and (old or not states) and stage in (1, 2) and not offloads(zero, "offload_optimizer"):
            message = f"{place[1]} with fp32 optimizer states needs offload_optimizer on cpu: DeepSpeed asserts it"
            cause = "deepspeed/runtime/zero/stage_1_and_2.py:331 (_enforce_cpu_offload)"
            yield config.found(REFUSED, message, *place, cause=cause, fix='"bf16_optimizer_states": true, or offload_optimizer to cpu')


def data_types(config: Config) -> Iterator[Finding]:
    """Names of dtypes that there are not, and those that contradict bf16 and fp16 (engine.py:1812, :2323)."""
    for place, cause in _NAMED:
        name = config.get(*place)
        if name is not None and name != "auto" and (not isinstance(name, str) or name not in _DTYPES):
            message = f"{'.'.join(place)} is {str(name)[:40]!r}, no dtype that DeepSpeed knows: it raises ValueError"
            yield config.found(REFUSED, message, *place, cause=cause, fix='"bf16", "fp16" or "fp32"')
    name = config.get("communication_data_type")
    if name is not None and (not isinstance(name, str) or name.lower() not in ("fp16", "bf16", "fp32")):
        message = f"communication_data_type is {str(name)[:40]!r}, expected fp16, bf16 or fp32: DeepSpeed raises ValueError"
        yield config.found(
            REFUSED, message, "communication_data_type", cause="deepspeed/runtime/config.py:229", fix='"bf16", "fp16" or "fp32"'
        )
    modes = {name: config.get(name, "enabled") for name in ("fp16", "bf16")}
    if "auto" in modes.values():
        return  # whoever fills it in decides
    model = next((name for name, value in modes.items() if is_on(value)), "fp32")
    declared = _dtype(config.get("data_types", "param_dtype"))
    if declared is not None and declared != model:
        message = f"data_types.param_dtype is {declared}, and bf16 and fp16 make the model {model}: DeepSpeed asserts that they agree"
        yield config.found(
            PRECISION, message, "data_types", "param_dtype", cause="deepspeed/runtime/engine.py:1827", fix=f'"param_dtype": "{model}"'
        )
    zero = config.section("zero_optimization")
    gathered = _dtype(config.get("data_types", "grad_accum_dtype"))
    if gathered is not None and gathered != model and (0 if zero is None else stage_of(zero)) == 0:
        message = (
            f"grad_accum_dtype {gathered} with a model in {model} at ZeRO stage 0: DeepSpeed raises NotImplementedError (unsupported mix)"
        )
        yield config.found(
            PRECISION, message, "data_types", "grad_accum_dtype", cause="deepspeed/runtime/engine.py:2323", fix='"stage": 1, or remove it'
        )


def _dtype(name: Any) -> str | None:
    return _DTYPES.get(name) if isinstance(name, str) else None

"""The rules over a DeepSpeed config: what 0.19.8 refuses, ignores, drops or warns of. Lines are deepspeed 0.19.8's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from llmdoctor.core.diagnostic import Diagnostic, Severity
from llmdoctor.core.edit import Edit
from llmdoctor.mem.check import schema
from llmdoctor.mem.check.config import Config, autos, is_off, is_on, meant
from llmdoctor.mem.check.rules import AUTO, BUCKETS, DEAD, DEPRECATED, PRECISION, REFUSED, UNKNOWN, UNPINNED
from llmdoctor.modeldir.jsonfile import JsonFile
from llmdoctor.modeldir.neighbours import Neighbours

ZERO = "zero_optimization"
_BATCH = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
_NO_EDITS: tuple[Edit, ...] = ()
_PART = 8  # buckets are worth a word from an eighth of the device on
# Where the Trainer (transformers 5.23, integrations/deepspeed.py:117) or accelerate (1.15, accelerator.py:2223, utils/dataclasses.py:1280) fill in.
FILLED = frozenset(
    {
        *((name,) for name in (*_BATCH, "gradient_clipping", "steps_per_print")),
        *((name, "enabled") for name in ("bf16", "fp16")),
        *(("optimizer", "params", name) for name in ("lr", "betas", "eps", "weight_decay")),
        *(("scheduler", "params", name) for name in ("warmup_min_lr", "warmup_max_lr", "total_num_steps", "warmup_num_steps")),
        *((ZERO, name) for name in ("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold", "stage")),
        *((ZERO, "stage3_gather_16bit_weights_on_model_save"),),
        *((ZERO, section, name) for section in ("offload_optimizer", "offload_param") for name in ("device", "nvme_path")),
    }
)


def check_deepspeed(file: JsonFile, neighbours: Neighbours) -> tuple[Diagnostic, ...]:
    """The findings in a DeepSpeed config file."""
    return tuple(deepspeed_findings(Config(file, file.value), neighbours.settings.gpu_memory))


def deepspeed_findings(config: Config, gpu_memory: int | None) -> Iterator[Diagnostic]:
    """The findings in a DeepSpeed config, wherever it stands."""
    for problem in config.file.problems:
        if problem.code == "DIR002" and problem.location is not None:
            keys = (problem.location.pointer or "").split("/")[1:]
            yield config.found(
                REFUSED, f"{problem.message.split(': ', 1)[-1]}; DeepSpeed raises ValueError", *keys, fix="keep one of the two"
            )
    yield from _removed(config)
    yield from _sections(config)
    yield from _precision(config)
    yield from _batches(config)
    yield from _unfilled(config)
    yield from _unknown(config)
    zero = config.section(ZERO)
    if zero is not None:
        yield from _deprecated(zero)
        yield from _stage(zero, _stage_of(zero))
        yield from _unpinned(zero)
        yield from _buckets(config, zero, gpu_memory)


# --- what is refused -----------------------------------------------------------------------------------------------------------------


def _removed(config: Config) -> Iterator[Diagnostic]:
    for key in schema.REMOVED.keys() & config.value.keys():
        cause = "deepspeed/runtime/config.py:133 (_reject_removed_config_keys); releases before 0.19 took it"
        yield config.found(
            REFUSED, f'"{key}" was removed: DeepSpeed 0.19.8 raises DeepSpeedConfigError', key, cause=cause, fix=schema.REMOVED[key]
        )
    zero = config.section(ZERO)
    for key in schema.REMOVED_ZERO if zero is not None else ():
        if zero is not None and key in zero.value:
            cause = "deepspeed/runtime/config.py:133 (_reject_removed_config_keys)"
            yield zero.found(
                REFUSED, f'"{key}" was removed: DeepSpeed 0.19.8 raises DeepSpeedConfigError', key, cause=cause, fix="remove it"
            )


def _sections(config: Config) -> Iterator[Diagnostic]:
    """Keys and types inside the sections that pydantic models read; all of them forbid what they do not know (config_utils.py:110)."""
    for place, fields in schema.SECTIONS.items():
        value = config.get(*place)
        if isinstance(value, Mapping):
            yield from _fields(config, place, value, fields)
        elif value is not None and value != "auto" and not (place == (ZERO,) and isinstance(value, bool)) and len(place) == 1:
            yield config.found(REFUSED, f'"{place[0]}" is {value!r}, expected an object', *place, fix=f'"{place[0]}": {{...}}')


def _fields(config: Config, place: tuple[str, ...], value: Mapping[str, Any], fields: Mapping[str, str]) -> Iterator[Diagnostic]:
    where = f"deepspeed/{'runtime/zero/offload_config.py' if len(place) == 2 else schema.FILE_OF[place[0]]}"
    for key, item in value.items():
        if key not in fields:
            if item == "auto" or (place == (ZERO,) and key in schema.REMOVED_ZERO):
                continue  # dropped before the model looks, or told already
            message = f'"{place[-1]}" has no "{key}"{meant(key, fields)}; DeepSpeed raises ValidationError (extra inputs are not permitted)'
            yield config.found(REFUSED, message, *place, key, cause=where, fix="correct the name or remove it")
            continue
        expected = schema.refusal(item, fields[key])
        if expected is not None:
            message = f'"{key}" is {_short(item)}, expected {expected}; DeepSpeed raises ValidationError'
            fix, edits = f"write {expected}", _NO_EDITS
            if expected.startswith("a whole") and _is_scientific(item):
                fix, edits = f'"{key}": {int(float(item))}', config.edit(*place, key, value=int(float(item)), safe=True)
            yield config.found(REFUSED, message, *place, key, cause=where, fix=fix, edits=edits)


def _batches(config: Config) -> Iterator[Diagnostic]:
    """What runtime/config.py:590 to :690 asserts, for any number of devices."""
    total, micro, steps = values = tuple(config.value.get(name) for name in _BATCH)
    for name, number in zip(_BATCH, values, strict=True):
        if number is not None and number != "auto" and (not _is_count(number) or number < 1):
            yield config.found(
                REFUSED, f'"{name}" is {_short(number)}, expected a whole number above 0', name, cause="deepspeed/runtime/config.py:590"
            )
            return
    given = {name: int(number) for name, number in zip(_BATCH[1:], (micro, steps), strict=True) if number is not None and number != "auto"}
    each = math.prod(given.values())
    if given and isinstance(total, int) and total % each:
        parts = " x ".join(f"{name} {number}" for name, number in given.items())
        fix = f'"train_batch_size": {max(each, total - total % each)}, or leave it out: DeepSpeed multiplies the others'
        message = f"train_batch_size {total} is no multiple of {parts}: no number of devices satisfies DeepSpeed's assertion"
        cause = "deepspeed/runtime/config.py:602: train_batch == micro_batch * grad_acc * world_size"
        yield config.found(REFUSED, message, "train_batch_size", cause=cause, fix=fix)


# --- precision -----------------------------------------------------------------------------------------------------------------------


def _precision(config: Config) -> Iterator[Diagnostic]:
    half = [name for name in ("bf16", "fp16") if is_on(config.get(name, "enabled"))]
    if len(half) == 2:
        line = config.line("bf16", "enabled")
        message = f"fp16.enabled and bf16.enabled{f' (line {line})' if line else ''} are both true: DeepSpeed asserts that they are not"
        cause = "deepspeed/runtime/config.py:511: bfloat16 and fp16 modes cannot be simultaneously enabled"
        yield config.found(PRECISION, message, "fp16", "enabled", cause=cause, fix='"fp16": {"enabled": false}')
    if half and is_on(config.get("torch_autocast", "enabled")):
        yield config.found(
            PRECISION,
            f"torch_autocast is enabled beside {half[0]}: the weights are 16 bit already, autocast over them keeps nothing in fp32",
            "torch_autocast",
            "enabled",
            cause="deepspeed/runtime/engine.py:669 starts autocast whatever bf16 and fp16 say",
            fix=f'remove "torch_autocast", or set {half[0]}.enabled to false',
            severity=Severity.WARNING,
        )
    yield from _masters(config)
    fp16 = config.section("fp16")
    if fp16 is not None and "fp16" in half and fp16.value.get("loss_scale", 0) in (0, "0", "auto"):
        for key in ("loss_scale_window", "min_loss_scale"):
            number = fp16.value.get(key, 1)
            if isinstance(number, int | float) and not isinstance(number, bool) and number <= 0:
                message = f"fp16.{key} is {number}, and dynamic loss scaling needs one above 0: DeepSpeed raises ValidationError"
                yield fp16.found(REFUSED, message, key, cause="deepspeed/runtime/precision_config.py:193", fix=f'remove "{key}"')


def _masters(config: Config) -> Iterator[Diagnostic]:
    """Low-precision master weights (runtime/config.py:702 to :714, zero/stage_1_and_2.py:331)."""
    masters, states = (is_on(config.get("bf16", f"bf16_{name}")) for name in ("master_weights_and_grads", "optimizer_states"))
    old = is_on(config.get("fp16", "fp16_master_weights_and_grads"))
    zero = config.section(ZERO)
    stage = 0 if zero is None else _stage_of(zero)
    if states and not masters:
        fix = '"bf16_master_weights_and_grads": true beside it'
        cause = "deepspeed/runtime/config.py:714"
        message = "bf16_optimizer_states without bf16_master_weights_and_grads: DeepSpeed asserts both"
        yield config.found(REFUSED, message, "bf16", "bf16_optimizer_states", cause=cause, fix=fix)
    for on, place in ((masters, ("bf16", "bf16_master_weights_and_grads")), (old, ("fp16", "fp16_master_weights_and_grads"))):
        if on and stage == 0:
            message = f"{place[1]} needs ZeRO stage 1, 2 or 3, this is stage 0: DeepSpeed asserts it"
            yield config.found(REFUSED, message, *place, cause="deepspeed/runtime/config.py:703", fix='"zero_optimization": {"stage": 2}')
        elif on and (old or not states) and stage in (1, 2) and not _offloads(zero, "offload_optimizer"):
            message = f"{place[1]} with fp32 optimizer states needs offload_optimizer on cpu: DeepSpeed asserts it"
            cause = "deepspeed/runtime/zero/stage_1_and_2.py:331 (_enforce_cpu_offload)"
            yield config.found(REFUSED, message, *place, cause=cause, fix='"bf16_optimizer_states": true, or offload_optimizer to cpu')


# --- "auto", and what is not read ----------------------------------------------------------------------------------------------------


def _unfilled(config: Config) -> Iterator[Diagnostic]:
    for place in autos(config.value):
        if place in FILLED or place[0] in schema.OTHERS:
            continue
        yield config.found(
            AUTO,
            f'"auto" at {".".join(place)}, where neither the Trainer nor accelerate has a value: accelerate raises ValueError; '
            "DeepSpeed alone takes its default",
            *place,
            cause="accelerate/utils/dataclasses.py:1367 (fill_match), called for every key at accelerator.py:2355",
            fix=f'remove "{place[-1]}", or write the value',
            severity=Severity.WARNING,  # DeepSpeed alone takes it
        )


def _unknown(config: Config) -> Iterator[Diagnostic]:
    inner = {key: place[0] for place, fields in schema.SECTIONS.items() if len(place) == 1 for key in fields if key != "enabled"}
    for key in config.value:
        if key in schema.TOP or key in schema.OTHERS or key in schema.REMOVED or key.startswith(("_", "#", "//")):
            continue
        if key in inner:
            message, fix = f'"{key}" stands outside "{inner[key]}", where DeepSpeed does not look', f'move it into "{inner[key]}"'
        else:
            message, fix = f'DeepSpeed has no setting "{key}"{meant(key, schema.TOP)}; it is ignored without a word', UNKNOWN.fix
        yield config.found(
            UNKNOWN, message, key, cause="deepspeed/runtime/config.py:482 (_initialize_params) asks for the names it knows", fix=fix
        )


# --- inside zero_optimization --------------------------------------------------------------------------------------------------------


def _deprecated(zero: Config) -> Iterator[Diagnostic]:
    for key, (new, better) in schema.DEPRECATED.items():
        if key not in zero.value or zero.value[key] == "auto":
            continue
        both = [name for name in (new, f"stage3_{new}") if new and name in zero.value and zero.value[name] != "auto"]
        if both:
            message = f'"{key}" beside "{both[0]}", which replaced it: DeepSpeed asserts that only one is given'
            yield zero.found(REFUSED, message, key, cause="deepspeed/runtime/config_utils.py:90", fix=f'remove "{key}"')
        else:
            edits = _NO_EDITS
            if key in ("cpu_offload", "cpu_offload_param") and is_on(zero.value[key]):
                edits = (*zero.edit(new, value={"device": "cpu"}, safe=True), *zero.edit(key, action="remove", safe=True))
            yield zero.found(DEPRECATED, f'"{key}" is deprecated', key, cause="deepspeed/runtime/zero/config.py", fix=better, edits=edits)


def _stage(zero: Config, stage: int | None) -> Iterator[Diagnostic]:
    if stage is None:
        return
    if _offloads(zero, "offload_param") and stage != 3:
        message = f"offload_param at ZeRO stage {stage} offloads nothing: parameters are partitioned, and offloaded, at stage 3 only"
        cause = "deepspeed/runtime/engine.py:2670 passes it to no optimizer below stage 3"
        yield zero.found(DEAD, message, "offload_param", cause=cause, fix='"stage": 3, or remove "offload_param"')
    if _offloads(zero, "offload_optimizer") and stage == 0:
        message = (
            "offload_optimizer at ZeRO stage 0: DeepSpeed takes its CPU optimizer, whose step asserts that the parameters lie on the CPU"
        )
        yield zero.found(
            REFUSED,
            message,
            "offload_optimizer",
            cause="deepspeed/runtime/engine.py:1562, ops/adam/cpu_adam.py:148",
            fix='"stage": 2, or remove it',
        )
    ratio = zero.get("offload_optimizer", "ratio")
    if isinstance(ratio, int | float) and 0 <= ratio < 1 and stage != 3:
        message = f"offload_optimizer.ratio {ratio} at stage {stage}: partial offloading is supported at stage 3 only, DeepSpeed asserts it"
        yield zero.found(REFUSED, message, "offload_optimizer", "ratio", cause="deepspeed/runtime/zero/config.py:399", fix='"ratio": 1.0')
    if is_off(zero.value.get("compute_grad_norm")) and stage not in (1, 2):
        message = "compute_grad_norm false is supported at stages 1 and 2 only, DeepSpeed raises ValidationError"
        yield zero.found(
            REFUSED, message, "compute_grad_norm", cause="deepspeed/runtime/zero/config.py:392", fix='remove "compute_grad_norm"'
        )
    bucket = zero.value.get("allgather_bucket_size")
    if stage in (1, 2) and isinstance(bucket, int | float) and bucket % 2:
        message = f"allgather_bucket_size {bucket} is odd, DeepSpeed asserts an even one"
        yield zero.found(REFUSED, message, "allgather_bucket_size", cause="deepspeed/runtime/zero/stage_1_and_2.py:389")
    yield from _of_another_stage(zero, stage)


def _of_another_stage(zero: Config, stage: int) -> Iterator[Diagnostic]:
    other = schema.ONLY_STAGES_1_2 if stage == 3 else schema.ONLY_STAGE_3 - {"offload_param"}
    dead = [key for key, item in zero.value.items() if key in other and item not in (False, None)]
    if stage == 0:
        return  # nothing of the section is used, which is what stage 0 says
    if dead:
        names = ", ".join(dead[:4]) + (f" and {len(dead) - 4} more" if len(dead) > 4 else "")
        where = "stages 1 and 2" if stage == 3 else "stage 3"
        yield zero.found(
            DEAD,
            f"at ZeRO stage {stage} nothing reads {names}: {'it is' if len(dead) == 1 else 'they are'} {where}'s",
            dead[0],
            cause="deepspeed/runtime/engine.py:2670 (stages 1 and 2), :2751 (stage 3)",
            fix="remove " + ("it" if len(dead) == 1 else "them"),
            severity=Severity.INFO,
            edits=tuple(edit for key in dead for edit in zero.edit(key, action="remove")),  # another stage may be tried tomorrow: not safe
            keys=dead,
        )


def _unpinned(zero: Config) -> Iterator[Diagnostic]:
    for name in ("offload_optimizer", "offload_param"):
        pinned = zero.get(name, "pin_memory")
        if _offloads(zero, name) and pinned is not None and pinned != "auto" and not is_on(pinned):
            device = zero.get(name, "device")
            message = f"{name} to {device} with pin_memory false: every copy waits, nothing overlaps with computation"
            cause = "deepspeed/runtime/zero/offload_config.py:45; 0.19.8's default is true"
            edits = zero.edit(name, "pin_memory", value=True)
            yield zero.found(UNPINNED, message, name, "pin_memory", cause=cause, fix='"pin_memory": true', edits=edits)


def _buckets(config: Config, zero: Config, memory: int | None) -> Iterator[Diagnostic]:
    stage, size = _stage_of(zero), zero.value.get("reduce_bucket_size", 500_000_000)
    if memory is None or stage not in (1, 2, 3) or not isinstance(size, int | float) or isinstance(size, bool):
        return
    if not 0 < size < 2**53 or is_off(zero.value.get("contiguous_gradients", True)):
        return
    half = any(config.get(name, "enabled") == "auto" or is_on(config.get(name, "enabled")) for name in ("bf16", "fp16"))
    width = 2 if half else 4
    count = 2 if stage < 3 and is_on(zero.value.get("overlap_comm")) else 1
    taken = int(size) * width * count
    if taken * _PART < memory:
        return
    where = "for as long as the run lasts" if stage == 3 else "during each backward"
    twice = "twice (overlap_comm)" if count == 2 else "once"
    default = "" if "reduce_bucket_size" in zero.value else ", DeepSpeed's default,"
    yield zero.found(
        BUCKETS,
        f"reduce_bucket_size {int(size):,}{default} is {taken / 2**30:.1f} GiB {where}: {width} bytes an element, allocated {twice}; "
        f"{taken / memory:.0%} of the {memory / 2**30:.0f} GiB that gpu-memory states",
        *(("reduce_bucket_size",) if "reduce_bucket_size" in zero.value else ()),
        cause=f"deepspeed/runtime/zero/{'stage3.py:782' if stage == 3 else 'stage_1_and_2.py:3266'}",
        bytes=taken,
        gpu_memory=memory,
    )


def _stage_of(zero: Config) -> int | None:
    stage = zero.value.get("stage", 0)
    return int(stage) if isinstance(stage, int | str) and not isinstance(stage, bool) and str(stage) in ("0", "1", "2", "3") else None


def _offloads(zero: Config | None, name: str) -> bool:
    return zero is not None and zero.get(name, "device") in ("cpu", "nvme")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_scientific(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return float(value).is_integer()
    except (ValueError, OverflowError):
        return False


def _short(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:56] + " ..."

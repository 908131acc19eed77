"""What is wrong inside zero_optimization, and with what it allocates. Lines are deepspeed 0.19.8's."""

from __future__ import annotations

from collections.abc import Iterator

from llmdoctor.configs import deepspeed_schema as schema
from llmdoctor.configs.deepspeed_releases import DeepSpeedRelease
from llmdoctor.configs.view import Config, is_off, is_on, offloads, stage_of
from llmdoctor.core.edit import Edit
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.mem.config_rules.rules import BUCKETS, DEAD, DEPRECATED, REFUSED, UNPINNED

_PART = 8  # buckets are worth a word from an eighth of the device on


def zero_findings(config: Config, zero: Config, release: DeepSpeedRelease, gpu_memory: int | None) -> Iterator[Finding]:
    """Yield the findings in the section `zero` of `config`; `gpu_memory` is the bytes of a device, if the project states them."""
    yield from _twice(zero)
    yield from _deprecated(zero)
    yield from _stage(zero, stage_of(zero))
    yield from _unpinned(zero, release)
    yield from _buckets(config, zero, gpu_memory)


def _twice(zero: Config) -> Iterator[Finding]:
    """Both names of one field: pydantic takes the alias (stage3_...) and calls the other an extra input."""
    given = {key for key, item in zero.value.items() if item != "auto"}
    for key in sorted(given):
        if f"stage3_{key}" in given:
            message = f'"{key}" and "stage3_{key}" are one setting: DeepSpeed raises ValidationError on both'
            yield zero.found(REFUSED, message, key, cause="deepspeed/runtime/zero/config.py:239 (aliases)", fix=f'remove "{key}"')


def _deprecated(zero: Config) -> Iterator[Finding]:
    for key, (new, better) in schema.DEPRECATED.items():
        if key not in zero.value or zero.value[key] == "auto":
            continue
        both = [name for name in (new, f"stage3_{new}") if new and name in zero.value and zero.value[name] != "auto"]
        if both:
            message = f'"{key}" beside "{both[0]}", which replaced it: DeepSpeed asserts that only one is given'
            yield zero.found(REFUSED, message, key, cause="deepspeed/runtime/config_utils.py:90", fix=f'remove "{key}"')
        else:
            edits: tuple[Edit, ...] = ()
            if key in ("cpu_offload", "cpu_offload_param") and is_on(zero.value[key]):
                edits = (*zero.edit(new, value={"device": "cpu"}, safe=True), *zero.edit(key, action="remove", safe=True))
            yield zero.found(DEPRECATED, f'"{key}" is deprecated', key, cause="deepspeed/runtime/zero/config.py", fix=better, edits=edits)


def _stage(zero: Config, stage: int | None) -> Iterator[Finding]:
    if stage is None:
        return
    if offloads(zero, "offload_param") and stage != 3:
        message = f"offload_param at ZeRO stage {stage} offloads nothing: parameters are partitioned, and offloaded, at stage 3 only"
        cause = "deepspeed/runtime/engine.py:2670 passes it to no optimizer below stage 3"
        at = "offload_param" if "offload_param" in zero.value else "cpu_offload_param"
        yield zero.found(DEAD, message, at, cause=cause, fix=f'"stage": 3, or remove "{at}"')
    if offloads(zero, "offload_optimizer") and stage == 0:
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


def _of_another_stage(zero: Config, stage: int) -> Iterator[Finding]:
    other = schema.ONLY_STAGES_1_2 if stage == 3 else schema.ONLY_STAGE_3 - {"offload_param"}
    dead = [key for key, item in zero.value.items() if key in other and item not in (False, None)]
    if stage == 0:
        return  # stage 0 uses nothing of the section
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


def _unpinned(zero: Config, release: DeepSpeedRelease) -> Iterator[Finding]:
    for name in ("offload_optimizer", "offload_param"):
        default = release.defaults[f"zero_optimization.{name}.pin_memory"]
        pinned = zero.get(name, "pin_memory")
        pinned = default if zero.section(name) is not None and pinned in (None, "auto") and default is False else pinned
        if offloads(zero, name) and pinned is not None and pinned != "auto" and not is_on(pinned):
            device = zero.get(name, "device") or "cpu"
            which = "pin_memory false" if zero.get(name, "pin_memory") is not None else f"pin_memory false, the default of {release.title}"
            message = f"{name} to {device} with {which}: every copy waits, nothing overlaps with computation"
            cause = f"deepspeed/runtime/zero/offload_config.py:45; the default of {release.rules} is {str(default).lower()}"
            edits = zero.edit(name, "pin_memory", value=True)
            at = (name, "pin_memory") if zero.get(name, "pin_memory") is not None else (name,)
            yield zero.found(UNPINNED, message, *at, cause=cause, fix='"pin_memory": true', edits=edits)


def _buckets(config: Config, zero: Config, memory: int | None) -> Iterator[Finding]:
    stage, size = stage_of(zero), zero.value.get("reduce_bucket_size", 500_000_000)
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

"""The rules over a DeepSpeed config: what a release refuses, ignores, drops or warns of. Lines are deepspeed 0.19.8's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from llmdoctor.configs import deepspeed_schema as schema
from llmdoctor.configs.deepspeed_releases import (
    DeepSpeedRelease,
    deepspeed_for,
    deepspeed_release,
    known_releases,
    releases_with,
    since_removed,
)
from llmdoctor.configs.linked import LinkedFiles
from llmdoctor.configs.view import Config, autos, meant
from llmdoctor.core.edit import Edit
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.files.jsonfile import JsonFile
from llmdoctor.mem.config_rules.precision import data_types, precision
from llmdoctor.mem.config_rules.rules import AUTO, REFUSED, UNKNOWN
from llmdoctor.mem.config_rules.zero import zero_findings

ZERO = "zero_optimization"
_BATCH = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
_HAS_LINE = re.compile(r"deepspeed/\S+\.py:\d")
_NO_EDITS: tuple[Edit, ...] = ()
# Places that the Trainer fills in (transformers 5.23, integrations/deepspeed.py:117), or accelerate (1.15, accelerator.py:2223,
# utils/dataclasses.py:1280).
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


def check_deepspeed(file: JsonFile, linked: LinkedFiles) -> tuple[Finding, ...]:
    """Return the findings in a DeepSpeed config file."""
    return tuple(deepspeed_findings(Config(file, file.value), linked.settings.gpu_memory))


def deepspeed_findings(config: Config, gpu_memory: int | None) -> Iterator[Finding]:
    """Yield the findings in a DeepSpeed config, a file or an object inside another file, for the release that the repository pins, or is installed."""
    release = deepspeed_release(deepspeed_for(config.file.path).version)
    read = known_releases()[-1]
    for finding in findings_under(config, release, gpu_memory):
        cause = finding.cause
        if release.rules != read and cause is not None and _HAS_LINE.search(cause):
            yield replace(finding, cause=f"{cause} (lines of {read})")
        else:
            yield finding


def findings_under(config: Config, release: DeepSpeedRelease, gpu_memory: int | None) -> Iterator[Finding]:
    """Yield the findings in a DeepSpeed config under one release; lines are those of the newest known one."""
    for problem in config.file.problems:
        if problem.code == "DIR002" and problem.location is not None:
            keys = (problem.location.pointer or "").split("/")[1:]
            yield config.found(
                REFUSED, f"{problem.message.split(': ', 1)[-1]}; DeepSpeed raises ValueError", *keys, fix="keep one of the two"
            )
    yield from _removed(config, release)
    yield from _sections(config, release)
    yield from precision(config, release)
    yield from data_types(config)
    yield from _optimizer(config)
    yield from _batches(config)
    yield from _unfilled(config)
    yield from _unknown(config, release)
    zero = config.section(ZERO)
    if zero is not None:
        yield from zero_findings(config, zero, release, gpu_memory)


# --- what is refused -----------------------------------------------------------------------------------------------------------------


def _removed(config: Config, release: DeepSpeedRelease) -> Iterator[Finding]:
    cause = "deepspeed/runtime/config.py:133 (_reject_removed_config_keys)"
    for key in release.removed.keys() & config.value.keys():
        message = f'"{key}" was removed: {release.title} raises DeepSpeedConfigError'
        before = f"{cause}; releases before {since_removed(key)} take it"
        yield config.found(REFUSED, message, key, cause=before, fix=release.removed[key])
    zero = config.section(ZERO)
    for key in release.removed_zero if zero is not None else ():
        if zero is not None and key in zero.value:
            message = f'"{key}" was removed: {release.title} raises DeepSpeedConfigError'
            yield zero.found(REFUSED, message, key, cause=f"{cause}; releases before {since_removed(key)} take it", fix="remove it")


def _sections(config: Config, release: DeepSpeedRelease) -> Iterator[Finding]:
    """Keys and types inside the sections that pydantic models read; all of them forbid what they do not know (config_utils.py:110)."""
    for place in release.sections:
        value = config.get(*place)
        if place not in release.validated:
            yield from _unread(config, place, release) if isinstance(value, Mapping) else ()
        elif isinstance(value, Mapping):
            yield from _fields(config, place, value, release)
        elif value is not None and value != "auto" and not (place == (ZERO,) and isinstance(value, bool)) and len(place) == 1:
            yield config.found(REFUSED, f'"{place[0]}" is {value!r}, expected an object', *place, fix=f'"{place[0]}": {{...}}')


def _unread(config: Config, place: tuple[str, ...], release: DeepSpeedRelease) -> Iterator[Finding]:
    """Keys of a section that the release reads by name and does not check, as bf16 and fp16 before 0.17.1."""
    for key in config.get(*place):
        if key not in release.sections[place] and not key.startswith(("_", "#", "//")):
            since = releases_with(place, key)
            message = f'"{place[-1]}.{key}" is ignored without a warning by {release.title}' + (
                f"; DeepSpeed reads it {since}" if since else ""
            )
            cause = "deepspeed/runtime/config.py asks for the names it knows"
            yield config.found(
                UNKNOWN, message, *place, key, cause=cause, fix="remove it" + (", or use a release that reads it" if since else "")
            )


def _elsewhere(place: tuple[str, ...], key: str) -> str:
    since = releases_with(place, key)
    return f" (releases of DeepSpeed {since} have it)" if since else ""


def _fields(config: Config, place: tuple[str, ...], value: Mapping[str, Any], release: DeepSpeedRelease) -> Iterator[Finding]:
    fields = release.sections[place]
    where = f"deepspeed/{'runtime/zero/offload_config.py' if len(place) == 2 else schema.FILE_OF[place[0]]}"
    # "auto" is dropped before the model looks, and removed keys are reported already
    unknown = [key for key, item in value.items() if key not in fields and item != "auto" and key not in release.removed_zero]
    if unknown:
        names = ", ".join(f'"{key}"{_elsewhere(place, key) or meant(key, fields)}' for key in unknown[:5]) + (
            f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        )
        message = f'"{place[-1]}" has no {names}: {release.title} raises ValidationError (extra inputs are not permitted)'
        fix = "correct the name or remove it" if len(unknown) == 1 else "remove them"
        yield config.found(REFUSED, message, *place, unknown[0], cause=where, fix=fix, keys=unknown)
    for key, item in value.items():
        expected = schema.refusal(item, fields[key]) if key in fields else None
        if expected is not None:
            message = f'"{key}" is {_short(item)}, expected {expected}; DeepSpeed raises ValidationError'
            fix, edits = f"write {expected}", _NO_EDITS
            if expected.startswith("a whole") and _is_scientific(item):
                fix, edits = f'"{key}": {int(float(item))}', config.edit(*place, key, value=int(float(item)), safe=True)
            yield config.found(REFUSED, message, *place, key, cause=where, fix=fix, edits=edits)


def _batches(config: Config) -> Iterator[Finding]:
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
        message = f"train_batch_size {total} is not a multiple of {parts}: no number of devices satisfies DeepSpeed's assertion"
        cause = "deepspeed/runtime/config.py:602: train_batch == micro_batch * grad_acc * world_size"
        yield config.found(REFUSED, message, "train_batch_size", cause=cause, fix=fix)


def _optimizer(config: Config) -> Iterator[Finding]:
    section = config.section("optimizer")
    if section is None:
        return
    if "type" not in section.value:
        message = 'the section "optimizer" has no "type": DeepSpeed makes no optimizer of it'
        yield config.found(
            UNKNOWN, message, "optimizer", cause="deepspeed/runtime/config.py:292 (get_optimizer_name)", fix='"type": "AdamW"'
        )
    params = section.section("params")
    if params is not None and "max_grad_norm" in params.value:
        message = "an optimizer has no parameter max_grad_norm: DeepSpeed raises ValueError"
        fix = f'"gradient_clipping": {params.value["max_grad_norm"]} at the top level'
        yield params.found(REFUSED, message, "max_grad_norm", cause="deepspeed/runtime/engine.py:2481", fix=fix)


# --- "auto", and what is not read ----------------------------------------------------------------------------------------------------


def _unfilled(config: Config) -> Iterator[Finding]:
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


def _unknown(config: Config, release: DeepSpeedRelease) -> Iterator[Finding]:
    inner = {key: place[0] for place, fields in release.sections.items() if len(place) == 1 for key in fields if key != "enabled"}
    for key in config.value:
        if key in release.top or key in schema.OTHERS or key in release.removed or key.startswith(("_", "#", "//")):
            continue
        since = releases_with((), key)
        if key in inner:
            message, fix = f'"{key}" is outside "{inner[key]}", and DeepSpeed reads it only inside', f'move it into "{inner[key]}"'
        elif since is not None:
            message = f'{release.title} has no setting "{key}" and ignores it without a warning; DeepSpeed reads it {since}'
            fix = "remove it, or use a release that reads it"
        else:
            hint = f' (is "{schema.MEANT[key]}" meant?)' if key in schema.MEANT else meant(key, release.top)
            message, fix = f'DeepSpeed has no setting "{key}"{hint}; it is ignored without a warning', UNKNOWN.fix
        yield config.found(
            UNKNOWN, message, key, cause="deepspeed/runtime/config.py:482 (_initialize_params) asks for the names it knows", fix=fix
        )


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

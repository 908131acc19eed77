"""The rules over TrainingArguments in all their forms, and over accelerate's YAML: transformers 5.23, accelerate 1.15, axolotl 0.19."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from llmdoctor.configs.agreement import contradictions, misses_batch
from llmdoctor.configs.linked import LinkedFiles
from llmdoctor.configs.reading import read_file
from llmdoctor.configs.recognise import is_training
from llmdoctor.configs.view import Config, is_on
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.text import shown
from llmdoctor.files.jsonfile import JsonFile
from llmdoctor.mem.config_rules.deepspeed import deepspeed_findings
from llmdoctor.mem.config_rules.keys import key_findings
from llmdoctor.mem.config_rules.rules import DEAD, MISMATCH, PRECISION, REFUSED

# What accelerate refuses beside deepspeed_config_file (accelerate 1.15, utils/dataclasses.py:1507), as its YAML names it.
_BESIDE_FILE = (
    "gradient_accumulation_steps", "gradient_clipping", "zero_stage", "offload_optimizer_device", "offload_param_device", "offload_param_nvme_path",
    "offload_optimizer_nvme_path", "zero3_save_16bit_model",
)  # fmt: skip


def check_training(file: JsonFile, linked: LinkedFiles) -> tuple[Finding, ...]:
    """Return the findings in a file of training arguments, and its contradictions with the DeepSpeed config that it names."""
    return tuple(_training(Config(file, file.value), linked))


def check_pickled(value: Any, path: str, shown_name: str, linked: LinkedFiles) -> tuple[Finding, ...] | None:
    """The findings in the TrainingArguments that a checkpoint's training_args.bin holds; None where it holds something else."""
    from llmdoctor.files.pickles import PickledObject, plain

    named = value.name.rpartition(".")[2] if isinstance(value, PickledObject) else ""
    arguments = plain(value)
    if not is_training(arguments) or (named and not named.endswith(("Arguments", "Config"))):
        return None
    return tuple(_training(Config(JsonFile(path, shown_name, arguments), arguments), linked))


def check_accelerate(file: JsonFile, _linked: LinkedFiles) -> tuple[Finding, ...]:
    """Return the findings in what `accelerate config` writes."""
    config = Config(file, file.value)
    return (*key_findings(config), *_accelerate(config))


# --- the Trainer ---------------------------------------------------------------------------------------------------------------------


def _training(config: Config, linked: LinkedFiles) -> Iterator[Finding]:
    yield from _both_halves(config)
    if not config.file.path.endswith(".bin"):  # a pickle also holds what the class computes
        yield from key_findings(config)
    inner = config.section("deepspeed")
    if inner is not None:
        yield from deepspeed_findings(inner, linked.settings.gpu_memory)
        yield from _against(config, inner)
        yield from _recomputation(config, inner)
        return
    named = config.value.get("deepspeed")
    other = linked.named(config.file.path, named) if isinstance(named, str) and named.endswith(".json") else None
    if other is not None:
        yield from _against(config, Config(other, other.value))
        yield from _recomputation(config, Config(other, other.value))
    elif isinstance(named, str) and named.endswith(".json") and _is_nowhere(config, named, linked):
        message = f"deepspeed names {shown(named)}, which is not in the working directory, beside this file or in a folder above it"
        fix = "the path as it is from where the run is started"
        yield config.found(REFUSED, message, "deepspeed", fix=fix, severity=Severity.INFO)


def _recomputation(config: Config, other: Config) -> Iterator[Finding]:
    """Yield a finding if the DeepSpeed config asks for recomputation in a way that transformers' models do not use."""
    found = read_file(config.file)
    recomputes = found.normal.get("checkpointing", False) or not found.normal.is_neutral("checkpointing_kind")
    if other.section("activation_checkpointing") is None or recomputes or found.rejected:
        return
    message = (
        f"activation_checkpointing in {_place(other, ('activation_checkpointing',))} has no effect: it configures deepspeed.checkpointing, which "
        "transformers' models do not call, and gradient_checkpointing is not set here, so nothing is recomputed"
    )
    cause = "transformers/modeling_utils.py (gradient_checkpointing_enable uses torch.utils.checkpoint)"
    yield config.found(DEAD, message, "deepspeed", cause=cause, fix='"gradient_checkpointing": true in this file')


def _is_nowhere(config: Config, named: str, linked: LinkedFiles) -> bool:
    """Whether a file that a text names is in no place to look; a pickle (no lines) was made on another machine, and so may an absolute path be."""
    known = config.line("deepspeed") is not None and not os.path.isabs(named)
    return known and linked.place(config.file.path, named) is None


def _both_halves(config: Config) -> Iterator[Finding]:
    for suffix, what in (("", ""), ("_full_eval", " for full eval")):
        bf16, fp16 = f"bf16{suffix}", f"fp16{suffix}"
        if _is_true(config.value.get(bf16)) and _is_true(config.value.get(fp16)):
            line = config.line(bf16)
            message = f"{fp16} and {bf16}{f' (line {line})' if line else ''} are both true: TrainingArguments raises ValueError"
            cause = f"transformers/training_args.py:{1788 if what else 1785}: At most one of fp16 and bf16 can be True{what}, but not both"
            yield config.found(PRECISION, message, fp16, cause=cause, fix=f"{fp16}: false")


def _against(config: Config, other: Config) -> Iterator[Finding]:
    """Yield the differences between the arguments and the DeepSpeed config, and what such a config must have."""
    found = read_file(config.file)
    if "zero_optimization" not in other.value:
        message = (
            f"{other.file.shown_name} has no zero_optimization: accelerate raises ValueError (please specify the ZeRO optimization config)"
        )
        yield config.found(
            REFUSED, message, "deepspeed", cause="accelerate/utils/dataclasses.py:1277", fix='"zero_optimization": {"stage": 0}'
        )
    if misses_batch(other.value):
        message = f'{other.file.shown_name} sets no batch size, and the Trainer fills in "auto" only: DeepSpeed raises AssertionError'
        fix, edits = '"train_micro_batch_size_per_gpu": "auto"', other.edit("train_micro_batch_size_per_gpu", value="auto")
        yield config.found(REFUSED, message, "deepspeed", cause="deepspeed/runtime/config.py (_batch_assertion)", fix=fix, edits=edits)
    for name in ("bf16", "fp16"):
        said, wanted = other.get(name, "enabled"), config.value.get(name)
        wanted = config.value.get(f"{name}_full_eval") if wanted is None or _is_true(config.value.get(f"{name}_full_eval")) else wanted
        default = found.variant.keys[name].default if name in found.variant.keys else None
        if said is None or said == "auto" or wanted == "auto" or (wanted is None and default is not False):
            continue
        if is_on(said) != _is_true(wanted):
            where = _place(other, (name, "enabled"))
            message = f"{name} is {_word(wanted)} here and {name}.enabled {_word(said)} in {where}: the Trainer raises ValueError"
            cause = "transformers/integrations/deepspeed.py:166 (trainer_config_process), raised by trainer_config_finalize"
            fix, edits = f'"{name}": {{"enabled": "auto"}} in {other.file.shown_name}', other.edit(name, "enabled", value="auto")
            yield config.found(PRECISION, message, *((name,) if name in config.value else ()), cause=cause, fix=fix, edits=edits)
    for one in contradictions(config.value, other.value, found.format, found.variant):
        message = f"{one.sentence} in {_place(other, one.place)}: the Trainer raises ValueError"
        fix = f'"{one.place[-1]}": "auto" in {other.file.shown_name}'
        at = ("deepspeed",) if one.by_default else (one.argument,)
        cause = "transformers/integrations/deepspeed.py:88 (fill_match)"
        yield config.found(MISMATCH, message, *at, cause=cause, fix=fix, edits=other.edit(*one.place, value="auto"))


def _place(other: Config, place: tuple[str, ...]) -> str:
    line = other.line(*place)
    return other.file.shown_name if line is None else f"{other.file.shown_name}:{line}"


def _is_true(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() in ("true", "yes", "1"))


def _word(value: Any) -> str:
    return "not set" if value is None else "true" if _is_true(value) else "false" if value is False else str(value)


# --- accelerate ----------------------------------------------------------------------------------------------------------------------


def _accelerate(config: Config) -> Iterator[Finding]:
    section = config.section("deepspeed_config")
    if config.value.get("distributed_type") != "DEEPSPEED" or section is None:
        return
    named = section.value.get("deepspeed_config_file")
    if isinstance(named, str) and named not in ("", "none"):
        yield from _beside_a_file(config, section, named)
        return
    stage = section.value.get("zero_stage", 2)
    stage = int(stage) if isinstance(stage, int | str) and str(stage) in ("0", "1", "2", "3") else None
    if stage is None:
        message = f"zero_stage is {section.value.get('zero_stage')!r}, expected 0, 1, 2 or 3"
        yield section.found(REFUSED, message, "zero_stage", cause="accelerate/utils/dataclasses.py:1238")
        return
    device = section.value.get("offload_param_device")
    if device in ("cpu", "nvme") and stage != 3:
        message = f"offload_param_device {device} with zero_stage {stage} offloads nothing: parameters are offloaded at stage 3 only"
        yield section.found(DEAD, message, "offload_param_device", cause="deepspeed/runtime/engine.py:2670", fix="zero_stage: 3")
    if is_on(section.value.get("zero3_init_flag")) and stage != 3:
        message = f"zero3_init_flag with zero_stage {stage}: accelerate sets it to false"
        cause = "accelerate/utils/dataclasses.py:1337"
        yield section.found(DEAD, message, "zero3_init_flag", cause=cause, fix="zero3_init_flag: false", severity=Severity.INFO)


def _beside_a_file(config: Config, section: Config, named: str) -> Iterator[Finding]:
    beside = [name for name in _BESIDE_FILE if name in section.value]
    cause = "accelerate/utils/dataclasses.py:1507 (_deepspeed_config_checks)"
    if beside:
        message = f"{', '.join(beside)} beside deepspeed_config_file: accelerate raises ValueError, because only the file may set them"
        yield section.found(REFUSED, message, beside[0], cause=cause, fix=f"remove {', '.join(beside)}")
    if config.value.get("mixed_precision") is not None:
        message = "mixed_precision beside deepspeed_config_file: accelerate raises ValueError, because only the file may set it"
        yield config.found(REFUSED, message, "mixed_precision", cause=cause, fix=f"remove mixed_precision; bf16 or fp16 in {named}")

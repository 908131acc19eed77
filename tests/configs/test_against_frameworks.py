"""The schemas and the reader against the installed frameworks' own classes: names, defaults, what they reject, what they make of aliases."""

from __future__ import annotations

import dataclasses
import enum
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.configs import deepspeed, trl
from llmdoctor.configs.reading import read
from llmdoctor.configs.schema import declared, fields_of

pytestmark = pytest.mark.live


def own_class(framework: str, name: str) -> Any:
    """Return the framework's class, if the release that the schema describes is installed."""
    module = pytest.importorskip(framework)
    if module.__version__ != declared(framework)["version"]:
        pytest.skip(f"{framework} {module.__version__} is installed, the schema describes {declared(framework)['version']}")
    if framework == "trl":
        from importlib import import_module

        for place in ("trl", "trl.scripts.utils", *(f"trl.experimental.{part}" for part in EXPERIMENTAL.get(name, ()))):
            found = getattr(import_module(place), name, None)
            if found is not None:
                return found
        pytest.skip(f"{name} is not exported")
    return getattr(module, name)


EXPERIMENTAL = {
    "CPOConfig": ("cpo",), "ORPOConfig": ("orpo",), "GKDConfig": ("gkd",), "OnlineDPOConfig": ("online_dpo",), "NashMDConfig": ("nash_md",),
    "XPOConfig": ("xpo",), "PPOConfig": ("ppo",), "PRMConfig": ("prm",), "BCOConfig": ("bco",), "KTOConfig": ("kto",),
}  # fmt: skip
CLASSES = [("transformers", "TrainingArguments"), ("transformers", "Seq2SeqTrainingArguments")] + [
    ("trl", name) for name in ("ModelConfig", "ScriptArguments", *trl.OBJECTIVES)
]


@pytest.mark.parametrize(("framework", "name"), CLASSES, ids=lambda value: value)
def test_names_and_defaults_are_those_of_the_frameworks_class(framework: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        real = {one.name: one for one in dataclasses.fields(own_class(framework, name)) if one.init}
    mine = fields_of(framework, name)
    assert set(mine) == set(real)
    for key, (_, default) in mine.items():
        if isinstance(default, dict) and "computed" in default:
            continue
        one = real[key]
        if one.default is not dataclasses.MISSING:
            expected = one.default
        elif one.default_factory is not dataclasses.MISSING:
            expected = one.default_factory()
        else:
            expected = None
        expected = expected.value if isinstance(expected, enum.Enum) else expected
        assert default == expected, key


def test_the_optimizers_are_the_trainers() -> None:
    own_class("transformers", "TrainingArguments")
    from transformers.training_args import OptimizerNames

    assert declared("transformers")["values"]["optim"] == [one.value for one in OptimizerNames]


FILES: list[dict[str, Any]] = [
    {},
    {"optim": "adamw_hf"},
    {"optim": "sgd", "max_grad_norm": 0.5, "bf16": True},
    {"load_in_4bit": True},
    {"gradient_accumulation_step": 2},
    {"evaluation_strategy": "no"},
    {"per_device_train_batch_size": 3, "gradient_checkpointing": True, "weight_decay": 0.1},
    {"neftune_noise_alpha": 5.0, "use_liger_kernel": False},
]


@pytest.mark.parametrize("more", FILES, ids=str)
def test_files_are_rejected_where_the_frameworks_parser_rejects_them(more: dict[str, Any], tmp_path: Path) -> None:
    own_class("transformers", "TrainingArguments")
    from transformers import HfArgumentParser, TrainingArguments

    value = {"output_dir": str(tmp_path), "per_device_train_batch_size": 2, "learning_rate": 1e-5, "use_cpu": True, **more}
    path = tmp_path / "args.json"
    path.write_text(json.dumps(value))
    try:
        (real,) = HfArgumentParser(TrainingArguments).parse_json_file(str(path))
    except (ValueError, TypeError):
        real = None
    value["report_to"] = "none"  # a key of TrainingArguments, so that the file is read as nothing else
    path.write_text(json.dumps(value))
    found = read(str(path))
    rejected = bool(found.rejected) or any(one.effect != "ignores" for one in found.unknown)
    if found.format.name == "transformers":
        assert rejected == (real is None)
    if real is not None:
        normal = found.normal
        assert (normal.get("batch"), normal.get("accumulation"), normal.get("clip"), normal.get("optimizer"), normal.get("weight_decay", 0.0)) == (
            real.per_device_train_batch_size, real.gradient_accumulation_steps, real.max_grad_norm, real.optim.value
            if isinstance(real.optim, enum.Enum) else real.optim, real.weight_decay,
        )  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"fp16": True}, {"bf16": False}, {"gradient_checkpointing": False}, {"max_length": 99}], ids=str)
def test_trls_defaults_are_those_of_its_class(more: dict[str, Any], tmp_path: Path) -> None:
    real_class = own_class("trl", "SFTConfig")
    real = real_class(output_dir=str(tmp_path), use_cpu=True, **more)
    text = json.dumps({"output_dir": "o", "per_device_train_batch_size": 8, "learning_rate": 1, "dataset_name": "d", **more})
    normal = read("sft.json", text=text).normal
    assert (normal.get("bf16", False), normal.get("fp16", False), normal.get("checkpointing"), normal.get("sequence_length")) == (
        real.bf16, real.fp16, real.gradient_checkpointing, real.max_length,
    )  # fmt: skip


SECTIONS: list[dict[str, Any]] = [
    {"stage": 3, name: value} for plain in deepspeed.ALIASED if plain.startswith(("prefetch", "param", "max_")) for name in (plain, f"stage3_{plain}")
    for value in (7,)
] + [{"stage": 2, "cpu_offload": True}, {"stage": 3, "cpu_offload_param": True}, {"stage": 3, "offload_optimizer": {"device": "cpu"}}, {}]  # fmt: skip


@pytest.mark.parametrize("section", SECTIONS, ids=str)
def test_aliases_and_deprecated_spellings_are_deepspeeds(section: dict[str, Any]) -> None:
    config = pytest.importorskip("deepspeed.runtime.zero.config")
    real = config.DeepSpeedZeroConfig(**section)
    normal = read("ds.json", text=json.dumps({"zero_optimization": section})).normal
    for name in ("prefetch_bucket_size", "param_persistence_threshold", "max_live_parameters", "max_reuse_distance"):
        assert normal.get(f"zero.{name}", getattr(config.DeepSpeedZeroConfig(), name)) == getattr(real, name)
    for name in ("offload_optimizer", "offload_param"):
        device = getattr(real, name)
        assert normal.get(f"zero.{name}") == (None if device is None else str(getattr(device.device, "value", device.device)))


def test_accelerates_file_has_the_keys_of_its_class() -> None:
    own_class("accelerate", "__version__")
    from accelerate.commands.config.config_args import ClusterConfig

    assert set(fields_of("accelerate", "ClusterConfig")) == {one.name for one in dataclasses.fields(ClusterConfig)}


WHOLE: list[dict[str, Any]] = [
    {"zero_optimization": True}, {"zero_optimization": False}, {"zero_optimization": None}, {"zero_optimization": 1}, {"bf16": True}, {"bf16": None},
    {"fp16": None}, {"train_batch_size": 8}, {"train_batch_size": "8"}, {"train_batch_size": 8, "gradient_accumulation_steps": 4},
    {"train_batch_size": 8, "gradient_accumulation_steps": 3}, {"zero_optimization": {"stage": "2"}},
    {"zero_optimization": {"stage": 2, "reduce_bucket_size": "5e8"}}, {"zero_optimization": {"stage": 2, "reduce_bucket_size": "500"}},
    {"zero_optimization": {"stage": 2, "offload_optimizer": "cpu"}}, {"zero_optimization": {"stage": 2, "offload_optimizer": None}},
    {"bfloat16": {"enabled": True}, "bf16": {"enabled": False}}, {"bfloat16": {"enabled": True}}, {"zero_optimization": {"Stage": 2}},
]  # fmt: skip


@pytest.mark.parametrize("more", WHOLE, ids=str)
def test_a_deepspeed_file_is_read_as_deepspeed_reads_it(more: dict[str, Any], tmp_path: Path) -> None:
    """Also by 1,500 random files: what DeepSpeed refuses is refused, and stage, batch, accumulation and precision are its own."""
    from llmdoctor.core.errors import QuestionError
    from llmdoctor.mem.keys import StrategyContext
    from llmdoctor.mem.strategies import read_strategy

    config = pytest.importorskip("deepspeed.runtime.config")
    value = {"train_micro_batch_size_per_gpu": 2, "optimizer": {"type": "AdamW"}, **more}
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(value))
    try:
        real = config.DeepSpeedConfig(json.loads(json.dumps(value)))
    except (ValueError, TypeError, AssertionError):
        with pytest.raises(QuestionError):
            read_strategy(str(path), StrategyContext())
        return
    mine = read_strategy(str(path), StrategyContext())
    half = "bfloat16" if real.bfloat16_config.enabled else "float16" if real.float16_config.enabled else "float32"
    assert (mine.stage, mine.batch, mine.accumulation, mine.dtype) == (
        real.zero_config.stage, real.train_micro_batch_size_per_gpu, real.gradient_accumulation_steps, half,
    )  # fmt: skip

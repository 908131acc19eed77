"""MEM006, MEM008 and MEM009 against the real TrainingArguments, transformers' DeepSpeed integration and accelerate's plugin; training_args.bin as
the real torch.save writes it.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.check.check import check_report
from llmdoctor.check.options import CheckOptions
from llmdoctor.configs import deepspeed_schema as schema
from llmdoctor.configs.linked import LinkedFiles
from llmdoctor.files.jsonfile import parse
from llmdoctor.files.project import ProjectSettings
from llmdoctor.mem.config_rules.deepspeed import FILLED, check_deepspeed
from llmdoctor.mem.config_rules.trainer import check_training

pytestmark = pytest.mark.live
WHOLE: dict[str, Any] = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 1,
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
    "scheduler": {"type": "WarmupDecayLR", "params": {}},
    "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}},
    "bf16": {},
    "fp16": {},
}
PLACES = sorted(
    {
        *FILLED,
        *((*place, name) for place, fields in schema.SECTIONS.items() for name in fields if not name.startswith("offload_")),
        *((name,) for name in ("steps_per_print", "communication_data_type", "zero_allow_untested_optimizer", "wall_clock_breakdown")),
        *((section, "params", "momentum") for section in ("optimizer", "scheduler")),
        ("optimizer", "type"),
    }
)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("deepspeed")
    from transformers import TrainingArguments

    folder = tmp_path_factory.mktemp("out")
    return lambda **values: TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", **values)


class Model:
    class config:
        hidden_size = 64


def filled(config: dict[str, Any], args: Any) -> None:
    """What happens to a config between TrainingArguments and deepspeed.initialize (trainer.py, accelerator.py:2223 to :2355)."""
    from accelerate.utils import DeepSpeedPlugin
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    held = HfTrainerDeepSpeedConfig(config)
    held.trainer_config_process(args)
    plugin = DeepSpeedPlugin(hf_ds_config=held)
    plugin.set_mixed_precision("no")
    held.trainer_config_finalize(args, Model(), 100)
    size = Model.config.hidden_size
    plugin.deepspeed_config_process(
        must_match=False,
        **{
            "gradient_clipping": 1.0,
            "zero_optimization.stage3_gather_16bit_weights_on_model_save": False,
            "train_micro_batch_size_per_gpu": 1,
            "train_batch_size": 1,
            "zero_optimization.reduce_bucket_size": size * size,
            "zero_optimization.stage3_prefetch_bucket_size": size,
            "zero_optimization.stage3_param_persistence_threshold": size,
        },
    )


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_auto_is_filled_in_where_the_table_says_so(place: tuple[str, ...], arguments: Any) -> None:
    config = copy.deepcopy(WHOLE)
    section = config
    for key in place[:-1]:
        section = section.setdefault(key, {})
    section[place[-1]] = "auto"
    file = parse(json.dumps(config).encode(), "ds.json", "ds.json")
    ours = {
        finding.location.pointer
        for finding in check_deepspeed(file, LinkedFiles(ProjectSettings()))
        if finding.code == "MEM009" and finding.location
    }
    args = arguments(per_device_train_batch_size=1, learning_rate=1e-4)
    if place in FILLED:
        filled(config, args)
        assert ours == set()
        return
    with pytest.raises(ValueError, match="not found in kwargs"):
        filled(config, args)
    assert ours == {"/" + "/".join(place)}


@pytest.mark.parametrize(
    ("place", "name", "value", "other"),
    [
        (("train_micro_batch_size_per_gpu",), "per_device_train_batch_size", 1, 2),
        (("gradient_accumulation_steps",), "gradient_accumulation_steps", 4, 8),
        (("gradient_clipping",), "max_grad_norm", 1.0, 0.5),
        (("optimizer", "params", "lr"), "learning_rate", 1e-4, 1e-5),
        (("optimizer", "params", "eps"), "adam_epsilon", 1e-8, 1e-6),
        (("optimizer", "params", "weight_decay"), "weight_decay", 0.0, 0.1),
        (("scheduler", "params", "warmup_max_lr"), "learning_rate", 1e-4, 1e-5),
        (("bf16", "enabled"), "bf16", False, True),
        (("fp16", "enabled"), "fp16", False, True),
    ],
)
@pytest.mark.parametrize("kind", ["same", "differs", "auto", "default"])
def test_what_differs_is_what_the_trainer_refuses(
    place: tuple[str, ...], name: str, value: Any, other: Any, kind: str, arguments: Any, tmp_path: Path
) -> None:
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    config: dict[str, Any] = {"zero_optimization": {"stage": 2}}
    section = config
    for key in place[:-1]:
        section = section.setdefault(key, {})
    section[place[-1]] = "auto" if kind == "auto" else other if kind in ("differs", "default") else value
    given = {} if kind == "default" else {name: value}
    held = HfTrainerDeepSpeedConfig(copy.deepcopy(config))
    held.trainer_config_process(arguments(**given))
    (tmp_path / "ds.json").write_text(json.dumps(config))
    text = json.dumps({"output_dir": "out", "per_device_train_batch_size": 8, **given, "deepspeed": "ds.json"})
    found = check_training(parse(text.encode(), str(tmp_path / "args.json"), "args.json"), LinkedFiles(ProjectSettings()))
    ours = [finding for finding in found if finding.code in ("MEM006", "MEM008")]
    if kind == "default" and name == "per_device_train_batch_size":
        text = json.dumps({"output_dir": "out", "learning_rate": 5e-5, "logging_steps": 1, "save_steps": 1, "deepspeed": "ds.json"})
        ours = list(check_training(parse(text.encode(), str(tmp_path / "args.json"), "args.json"), LinkedFiles(ProjectSettings())))
    assert bool(ours) == bool(held.mismatches), (held.mismatches, ours)


def test_a_config_without_zero_optimization(arguments: Any, tmp_path: Path) -> None:
    from accelerate.utils import DeepSpeedPlugin

    with pytest.raises(ValueError, match="Please specify the ZeRO optimization config"):
        DeepSpeedPlugin(hf_ds_config={"train_micro_batch_size_per_gpu": 8})
    (tmp_path / "ds.json").write_text('{"train_micro_batch_size_per_gpu": 8}')
    text = json.dumps({"output_dir": "out", "per_device_train_batch_size": 8, "deepspeed": "ds.json"})
    found = check_training(parse(text.encode(), str(tmp_path / "a.json"), "a.json"), LinkedFiles(ProjectSettings()))
    assert [finding.code for finding in found] == ["MEM007"]


def test_what_accelerate_refuses_beside_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of the table are those that DeepSpeedPlugin raises on (accelerate launch hands them over in this variable)."""
    pytest.importorskip("deepspeed")
    from accelerate.utils import DeepSpeedPlugin

    from llmdoctor.mem.config_rules.trainer import _BESIDE_FILE

    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 2}}))
    for name in (*_BESIDE_FILE, "mixed_precision"):
        monkeypatch.setenv("ACCELERATE_CONFIG_DS_FIELDS", name)
        with pytest.raises(ValueError, match="deepspeed_config_file"):
            DeepSpeedPlugin(hf_ds_config=str(path))
    for name in ("zero3_init_flag", "deepspeed_config_file", "deepspeed_multinode_launcher"):
        monkeypatch.setenv("ACCELERATE_CONFIG_DS_FIELDS", name)
        DeepSpeedPlugin(hf_ds_config=str(path))


@pytest.mark.parametrize("names", [("bf16", "fp16"), ("bf16_full_eval", "fp16_full_eval")])
def test_both_halves(names: tuple[str, str], arguments: Any) -> None:
    values = dict.fromkeys(names, True)
    with pytest.raises(ValueError, match="but not both"):
        arguments(**values)
    text = json.dumps({"output_dir": "out", "per_device_train_batch_size": 8, **values})
    assert [finding.code for finding in check_training(parse(text.encode(), "a.json", "a.json"), LinkedFiles(ProjectSettings()))] == [
        "MEM006"
    ]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_as_it_lies(zipped: bool, arguments: Any, tmp_path: Path) -> None:
    import torch

    args = arguments(per_device_train_batch_size=4, optim="adafactor", gradient_accumulation_steps=2)
    args.deepspeed = {
        "train_micro_batch_size_per_gpu": 8,
        "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "pin_memory": False}},
    }
    checkpoint = tmp_path / "checkpoint-10"
    checkpoint.mkdir()
    torch.save(args, checkpoint / "training_args.bin", _use_new_zipfile_serialization=zipped)
    report = check_report(CheckOptions(paths=(str(tmp_path),)), ProjectSettings())
    assert report.skipped == ()
    assert sorted(finding.code for finding in report.findings) == ["MEM008", "MEM013"]
    pinned = next(finding for finding in report.findings if finding.code == "MEM013")
    assert pinned.location is not None
    assert pinned.location.pointer == "/deepspeed/zero_optimization/offload_optimizer/pin_memory"

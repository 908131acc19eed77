"""A DeepSpeed configuration under TrainingArguments, against the classes of transformers, accelerate and deepspeed that are installed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.configs.agreement import contradictions, misses_batch
from llmdoctor.configs.reading import read
from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.keys import StrategyContext
from llmdoctor.mem.strategies import read_strategy

ZERO: dict[str, Any] = {"zero_optimization": {"stage": 2}}
AUTO: dict[str, Any] = {**ZERO, "train_micro_batch_size_per_gpu": "auto"}
ARGUMENTS: dict[str, Any] = {"output_dir": "o", "per_device_train_batch_size": 2, "bf16": True}


def strategy_of(tmp_path: Path, engine: dict[str, Any], **arguments: Any) -> Any:
    path = tmp_path / "args.json"
    path.write_text(json.dumps({**ARGUMENTS, **arguments, "deepspeed": engine}))
    return read_strategy(str(path), StrategyContext(model_dtype="float32", hidden_size=64))


@pytest.mark.live
@pytest.mark.parametrize(
    ("engine", "more"),
    [
        ({"train_micro_batch_size_per_gpu": 4}, {}),
        ({"train_micro_batch_size_per_gpu": 2}, {}),
        ({"gradient_accumulation_steps": 4}, {}),
        ({"gradient_accumulation_steps": 4}, {"gradient_accumulation_steps": 4}),
        ({"gradient_clipping": 0.5}, {}),
        ({"gradient_clipping": 1}, {}),
        ({"gradient_clipping": "auto"}, {"max_grad_norm": 0.3}),
        ({"optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}}, {}),
        ({"optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "eps": 1e-8, "weight_decay": 0}}}, {"learning_rate": 1e-4}),
        ({"optimizer": {"type": "AdamW", "params": {"weight_decay": 0.1}}}, {}),
        ({"scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 1e-4}}}, {}),
    ],
    ids=str,
)  # fmt: skip
def test_contradictions_are_those_that_the_trainer_finds(engine: dict[str, Any], more: dict[str, Any], tmp_path: Path) -> None:
    integration = pytest.importorskip("transformers.integrations.deepspeed")
    from transformers import TrainingArguments

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        real = integration.HfTrainerDeepSpeedConfig(json.loads(json.dumps(engine)))
        real.trainer_config_process(TrainingArguments(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=2, **more))
    found = read("args.json", text=json.dumps({**ARGUMENTS, **more}))
    mine = contradictions(found.values, engine, found.format, found.variant)
    assert sorted(".".join(one.place) for one in mine) == sorted(text.split()[2].partition("=")[0] for text in real.mismatches)


@pytest.mark.parametrize(
    "engine", [ZERO, {**ZERO, "gradient_accumulation_steps": "auto"}, {**ZERO, "train_batch_size": 2}, {**ZERO, **AUTO}], ids=str
)
def test_a_batch_size_is_missed_as_deepspeed_misses_it(engine: dict[str, Any], tmp_path: Path) -> None:
    config = pytest.importorskip("deepspeed.runtime.config")
    filled = {key: 2 if value == "auto" else value for key, value in engine.items() if key != "gradient_accumulation_steps"}
    try:
        config.DeepSpeedConfig(filled)
        refused = False
    except AssertionError:
        refused = True
    assert misses_batch(engine) is refused
    if refused:
        with pytest.raises(QuestionError, match="no batch size"):
            strategy_of(tmp_path, engine)
    else:
        assert strategy_of(tmp_path, engine).batch == 2


@pytest.mark.parametrize(
    ("halves", "dtype"), [({}, "bfloat16"), ({"bf16": {}}, "float32"), ({"bf16": {"enabled": "auto"}}, "bfloat16")], ids=str
)
def test_a_missing_section_is_enabled_as_accelerate_enables_it(halves: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    """Trained with the installed transformers, accelerate and deepspeed on the CPU, the weights had these dtypes."""
    plugin = pytest.importorskip("accelerate.utils").DeepSpeedPlugin(hf_ds_config={**AUTO, **json.loads(json.dumps(halves))})
    plugin.set_mixed_precision("bf16")
    enabled = plugin.deepspeed_config["bf16"].get("enabled", False)
    assert (enabled is True) == (dtype == "bfloat16")
    assert strategy_of(tmp_path, {**AUTO, **halves}).dtype == dtype


@pytest.mark.parametrize(
    "engine", [{**AUTO, "gradient_clipping": 0.5}, {"train_micro_batch_size_per_gpu": 2}, {**AUTO, "fp16": {"enabled": True}}], ids=str
)
def test_what_the_trainer_refuses_is_refused(engine: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match=r"refuses"):
        strategy_of(tmp_path, engine)


def test_the_old_section_is_read_if_the_new_one_is_missing() -> None:
    new = {**ZERO, "bfloat16": {"enabled": False}, "bf16": {"enabled": True}}
    found = read("ds.json", text=json.dumps(new))
    assert (found.normal.get("bf16"), [(one.key, one.effect) for one in found.unknown], found.rejected) == (
        True, [("bfloat16.enabled", "ignores")], {},
    )  # fmt: skip
    del new["bf16"]
    assert read("ds.json", text=json.dumps(new)).normal.get("bf16") is False

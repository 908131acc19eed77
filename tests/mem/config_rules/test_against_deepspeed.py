"""MEM006 and MEM007 against deepspeed's own DeepSpeedConfig: what it raises on is a finding, what it takes is none."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdoctor.configs import deepspeed_schema as schema
from llmdoctor.configs.linked import LinkedFiles
from llmdoctor.core.finding import Severity
from llmdoctor.files.jsonfile import parse
from llmdoctor.files.project import ProjectSettings
from llmdoctor.mem.config_rules.deepspeed import check_deepspeed

pytestmark = pytest.mark.live
# What the engine asserts and not the config: judged by reading, in test_check.py.
ENGINE = ("offload_optimizer at ZeRO stage 0", "needs offload_optimizer on cpu", "is odd")


@pytest.fixture(scope="module")
def real() -> Any:
    pytest.importorskip("deepspeed")
    from deepspeed.runtime.config import DeepSpeedConfig

    logging.getLogger("DeepSpeed").setLevel(logging.CRITICAL)
    return DeepSpeedConfig


def refused_by_us(config: dict[str, Any]) -> list[str]:
    file = parse(json.dumps(config).encode(), "ds.json", "ds.json")
    found = check_deepspeed(file, LinkedFiles(ProjectSettings()))
    errors = [finding.message for finding in found if finding.severity is Severity.ERROR and finding.code in ("MEM006", "MEM007")]
    return [message for message in errors if not any(part in message for part in ENGINE)]


def refused_by_deepspeed(real: Any, config: dict[str, Any]) -> str | None:
    try:
        real(json.loads(json.dumps(config)))
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return None


SAMPLES: list[Any] = [
    *(
        True,
        False,
        None,
        0,
        1,
        2,
        3,
        4,
        -1,
        0.5,
        1.0,
        1.5,
        -0.5,
        5e8,
        10**9,
        10**30,
        "1",
        "5e8",
        "1.5",
        "true",
        "off",
        "maybe",
        "",
        " 2 ",
        "1_000",
    ),
    *("cpu", "nvme", "none", "auto", {}, [], [1]),
]
VALUES = st.sampled_from(SAMPLES)
# Objects with models of their own, and numbers that other assertions are about.
SKIPPED = {"zenflow", "leaf_module", "offload_param", "offload_optimizer", "legacy_stage1"}


def section(place: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    names = [name for name in schema.SECTIONS[place] if name not in SKIPPED]
    return st.dictionaries(st.sampled_from([*names, "bogus"]), VALUES, max_size=3)


OFFLOAD = st.none() | section(("zero_optimization", "offload_optimizer"))
ZERO = st.builds(
    lambda zero, optimizer, param: (
        zero | ({"offload_optimizer": optimizer} if optimizer is not None else {}) | ({"offload_param": param} if param else {})
    ),
    section(("zero_optimization",)),
    OFFLOAD,
    st.none() | section(("zero_optimization", "offload_param")),
)
CONFIGS = st.fixed_dictionaries(
    {"train_micro_batch_size_per_gpu": st.just(1)},
    optional={
        "zero_optimization": ZERO,
        "bf16": section(("bf16",)),
        "fp16": section(("fp16",)),
        "gradient_accumulation_steps": st.sampled_from([1, 2]),
        "communication_data_type": st.sampled_from(["fp16", "BF16", "fp99", None]),
        "torch_autocast": st.fixed_dictionaries({"dtype": st.sampled_from(["bf16", "torch.float16", "half", "fp99", "BF16"])}),
        **{name: st.just({}) for name in ("amp", "elasticity", "flops_profiler", "bogus")},
    },
)


@pytest.mark.parametrize("place", schema.SECTIONS, ids=".".join)
def test_every_field_with_every_value(place: tuple[str, ...], real: Any) -> None:
    wrong = []
    for name in sorted({*schema.SECTIONS[place]} - {"zenflow", "leaf_module", "legacy_stage1", "allgather_bucket_size"}):
        for value in SAMPLES:
            inner: Any = {name: value}
            for key in reversed(place):
                inner = {key: inner}
            if name.startswith("compute_grad_norm") or name == "ratio":
                inner["zero_optimization"]["stage"] = 3
            config = {"train_micro_batch_size_per_gpu": 1, **inner}
            theirs, ours = refused_by_deepspeed(real, config), refused_by_us(config)
            if bool(ours) != (theirs is not None):
                wrong.append((name, value, theirs and theirs[:200], ours))
    assert not wrong


@settings(max_examples=400, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(config=CONFIGS)
def test_it_refuses_what_deepspeed_refuses(config: dict[str, Any], real: Any) -> None:
    theirs = refused_by_deepspeed(real, config)
    ours = refused_by_us(config)
    assert bool(ours) == (theirs is not None), f"DeepSpeed: {theirs}\nllmdoctor: {ours}"


@pytest.mark.parametrize("total", [None, 1, 2, 3, 4, 6, 7])
@pytest.mark.parametrize("micro", [None, 1, 2, 3])
@pytest.mark.parametrize("steps", [None, 1, 2])
def test_batches_for_any_number_of_devices(total: int | None, micro: int | None, steps: int | None, real: Any) -> None:
    values = {"train_batch_size": total, "train_micro_batch_size_per_gpu": micro, "gradient_accumulation_steps": steps}
    config = {name: value for name, value in values.items() if value is not None}
    if total is None and micro is None:
        return  # code fills it in: not judged
    fine = False
    for world in range(1, 9):
        made = object.__new__(real)
        made.world_size = world
        made.train_batch_size, made.train_micro_batch_size_per_gpu, made.gradient_accumulation_steps = total, micro, steps
        try:
            made._configure_train_batch_size()
        except AssertionError:
            continue
        fine = True
    assert bool(refused_by_us(config)) is not fine


@pytest.mark.parametrize("key", sorted({*schema.REMOVED, *schema.TOP}))
def test_every_name_is_known_to_deepspeed(key: str, real: Any) -> None:
    """What the table calls removed raises; what it calls known is asked for by name somewhere in DeepSpeed's configuration code."""
    if key in schema.REMOVED:
        theirs = refused_by_deepspeed(real, {"train_micro_batch_size_per_gpu": 1, key: {}})
        assert theirs is not None
        assert "DeepSpeedConfigError" in theirs
        return
    import subprocess
    from pathlib import Path

    import deepspeed

    home = Path(deepspeed.__file__).parent
    found = subprocess.run(
        ["grep", "-rlE", f"[\"']{key}[\"']", "--include=*.py", str(home)], capture_output=True, text=True, check=False
    ).stdout
    assert found or key == "sequence_parallel_size"


def test_the_sections_are_the_models_fields(real: Any) -> None:
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.runtime.zero.offload_config import DeepSpeedZeroOffloadOptimizerConfig, DeepSpeedZeroOffloadParamConfig

    models = {
        ("zero_optimization",): DeepSpeedZeroConfig,
        ("zero_optimization", "offload_param"): DeepSpeedZeroOffloadParamConfig,
        ("zero_optimization", "offload_optimizer"): DeepSpeedZeroOffloadOptimizerConfig,
        ("bf16",): DeepSpeedBF16Config,
        ("fp16",): DeepSpeedFP16Config,
    }
    for place, model in models.items():
        names = {name for field, info in model.model_fields.items() for name in (field, info.alias) if name}
        assert set(schema.SECTIONS[place]) == names


def test_auto_without_the_trainer(real: Any) -> None:
    """What launches.py says of it."""
    assert "TypeError" in str(refused_by_deepspeed(real, {"train_micro_batch_size_per_gpu": "auto"}))
    assert "TypeError" in str(refused_by_deepspeed(real, {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": "auto"}))
    made = real(
        {"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": "auto"}, "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"}}
    )
    assert made.bfloat16_config.enabled is False
    assert made.zero_config.reduce_bucket_size == 500_000_000

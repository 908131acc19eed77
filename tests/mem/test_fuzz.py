"""Strategy files and configs of any content end in an answer or in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.compare import compare_report
from llmdoctor.mem.kvcache import kvcache_report
from llmdoctor.mem.options import KvcacheOptions, MemCompareOptions
from llmdoctor.report import Style, render
from tests.mem.conftest import CONFIGS, write_config

NESTED = st.dictionaries(
    st.sampled_from(["stage", "enabled", "type", "device", "params", "dtype", "class", "r"]),
    st.sampled_from([0, 1, 2, 3, 4, True, "cpu", "AdamW", "bf16"]),
    max_size=4,
)
WORDS = st.sampled_from(["auto", "bf16", "AdamW", "cpu", "none", "adamw_torch", "\x1b[31m", ""])
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2**40), st.floats(allow_nan=False), WORDS, st.lists(st.integers(), max_size=2), NESTED
)
KEYS = st.sampled_from(
    (
        "zero_optimization bf16 fp16 optimizer optim train_micro_batch_size_per_gpu train_batch_size gradient_accumulation_steps "
        "gradient_clipping data_types model_init client_optimizer deepspeed max_grad_norm per_device_train_batch_size "
        "gradient_checkpointing torch_autocast fsdp distributed_type deepspeed_config mixed_precision optim_args"
    ).split()
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("fuzz") / "m", "qwen2")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.dictionaries(KEYS, VALUES, max_size=6),
    seed=st.sampled_from([{}, {"optim": "adamw_torch"}, {"optimizer": {"type": "AdamW"}, "zero_optimization": {"stage": 2}}]),
)
def test_strategy_files(model: Path, value: dict[str, Any], seed: dict[str, Any]) -> None:
    path = model / "strategy.json"
    path.write_text(json.dumps({**seed, **value}))
    try:
        report = compare_report(MemCompareOptions(model=str(model), strategy=(str(path),), batch=1, static=True))
        text = render(report, "text", Style(80, False))
    except QuestionError as error:
        text = str(error)
        assert "\n" not in text
    assert "\x1b" not in text or not text.startswith("\x1b")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from([*CONFIGS["qwen2"], "layer_types", "sliding_window", "head_dim", "kv_lora_rank", "text_config"]), VALUES, max_size=4
    )
)
def test_configs(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]) -> None:
    model = write_config(tmp_path_factory.mktemp("config"), "qwen2", **changes)
    for ask in (
        lambda: compare_report(MemCompareOptions(model=str(model), strategy=("deepspeed:zero2",), static=True)),
        lambda: kvcache_report(KvcacheOptions(model=str(model), batch=1, length=8, cache="dynamic")),
    ):
        try:
            ask()
        except QuestionError as error:
            said = str(error)
            assert "\n" not in said

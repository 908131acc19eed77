"""What `accelerate launch` makes of its file: FSDP by the defaults of its command line, and kinds of processes that are not modelled."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from llmdoctor.configs.reading import read
from llmdoctor.configs.types import Refused

WRAPPED = {"fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}


def launched(kind: str = "FSDP", **section: Any) -> Any:
    content = {"distributed_type": kind, "mixed_precision": "bf16", "num_processes": 4, "fsdp_config": section}
    return read("accelerate.yaml", text=yaml.safe_dump(content))


def test_version_1_is_the_default_and_its_strategy_goes_before_resharding() -> None:
    found = launched(**WRAPPED, fsdp_reshard_after_forward=False, fsdp_sharding_strategy="FULL_SHARD")
    assert found.normal.get("fsdp_config") == {"version": 1, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}
    assert not found.normal.is_neutral("fsdp")


def test_version_2_has_its_own_names() -> None:
    found = launched(**WRAPPED, fsdp_version=2, fsdp_offload_params=True, fsdp_reshard_after_forward=False)
    assert found.normal.get("fsdp_config") == {
        "version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "cpu_offload": True, "reshard_after_forward": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "section", "words"),
    [
        ("FSDP", {}, "fsdp_auto_wrap_policy is not set"),
        ("FSDP", {**WRAPPED, "fsdp_sharding_strategy": "SHARD_GRAD_OP"}, "SHARD_GRAD_OP is not modelled"),
        ("FSDP", {**WRAPPED, "fsdp_sharding_strategy": "HYBRID_SHARD"}, "HYBRID_SHARD is not modelled"),
        ("MEGATRON_LM", {}, "MEGATRON_LM is not modelled"),
        ("TPU", {}, "TPU is not modelled"),
    ],
)
def test_what_is_not_modelled(kind: str, section: dict[str, Any], words: str) -> None:
    assert any(words in reason for reason in launched(kind, **section).rejected.values())


def test_a_section_of_another_kind_of_run_changes_nothing() -> None:
    assert launched("MULTI_GPU", **WRAPPED).normal.is_neutral("fsdp_config")


def test_modules_that_fsdp_leaves_whole_are_refused() -> None:
    assert "fsdp_config.fsdp_ignored_modules" in launched(**WRAPPED, fsdp_ignored_modules="lm_head").of("memory", Refused)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("base_model: x\ndatasets: []\nmicro_batch_size: 1\nadapter: lora\nlora_modules_to_save: [lm_head]\n", "lora_modules_to_save"),
        (
            "model_name_or_path: x\nstage: sft\nfinetuning_type: lora\ntemplate: t\ncutoff_len: 9\nadditional_target: lm_head\n",
            "additional_target",
        ),
        ("model: x\ntuner_type: lora\nmodules_to_save: [lm_head]\n", "modules_to_save"),
    ],
)
def test_modules_to_save_of_frameworks_with_a_dtype_of_their_own_are_refused(text: str, key: str) -> None:
    assert key in read("a.yaml", text=text).of("memory", Refused)

"""What the MEM rules say of a configuration: the line, the value, the fix; and what they leave alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmdoctor.configs.linked import LinkedFiles
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.files.jsonfile import parse
from llmdoctor.files.project import ProjectSettings
from llmdoctor.files.yamlfile import parse_yaml
from llmdoctor.mem.config_rules.deepspeed import check_deepspeed
from llmdoctor.mem.config_rules.trainer import check_accelerate, check_training

GIB = 2**30


def deepspeed(gpu: int | None = None, text: str | None = None, **config: Any) -> list[Finding]:
    data = text if text is not None else json.dumps({"train_micro_batch_size_per_gpu": 1, **config}, indent=2)
    return list(check_deepspeed(parse(data.encode(), "ds.json", "ds.json"), LinkedFiles(ProjectSettings(gpu_memory=gpu))))


def zero(gpu: int | None = None, *, bf16: Any = True, **values: Any) -> list[Finding]:
    return deepspeed(gpu, bf16={"enabled": bf16}, zero_optimization=values)


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


def test_a_finding_names_line_value_library_and_fix() -> None:
    found = deepspeed(
        text='{\n "train_micro_batch_size_per_gpu": 1,\n "zero_optimization": {\n  "stage": 2,\n  "reduce_bucket_size": "5e8"\n }\n}'
    )
    assert codes(found) == ["MEM007"]
    assert str(found[0].location) == "ds.json:5"
    assert found[0].message == '"reduce_bucket_size" is "5e8", expected a whole number; DeepSpeed raises ValidationError'
    assert found[0].fix == '"reduce_bucket_size": 500000000'
    assert "deepspeed/runtime/zero/config.py:90" in str(found[0].cause)


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        ({"optimizer": {"params": {"lr": 1}}}, "MEM010", 'has no "type"'),
        ({"optimizer": {"type": "Adam", "params": {"max_grad_norm": 1.0}}}, "MEM007", "an optimizer has no parameter"),
        ({"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}, "MEM006", "unsupported mix"),
        ({"bf16": {"enabled": True}, "data_types": {"param_dtype": "fp16"}}, "MEM006", "make the model bf16"),
        ({"data_types": {"grad_accum_dtype": "fp99"}}, "MEM007", "no dtype that DeepSpeed knows"),
        ({"gradient_accumulation_step": 8}, "MEM010", 'is "gradient_accumulation_steps" meant?'),
        ({"stage3_max_live_parameters": 1}, "MEM010", 'is outside "zero_optimization"'),
        ({"amp": {"enabled": False}}, "MEM007", "was removed"),
        (
            {"bf16": {"enabled": True, "loss_scale": 0, "hysteresis": 2}},
            "MEM007",
            '"bf16" has no "loss_scale", "hysteresis": DeepSpeed',
        ),
        (
            {"zero_optimization": {"stage": 3, "stage3_param_persitence_threshold": 1e5}},
            "MEM007",
            '(is "stage3_param_persistence_threshold" meant?)',
        ),
        (
            {"zero_optimization": {"stage": 1, "cpu_offload_param": True}},
            "MEM012 MEM011",
            "deprecated",
        ),
        ({"zero_optimization": {"stage": 0, "offload_optimizer": {"device": "cpu"}}}, "MEM007", "ZeRO stage 0"),
        ({"zero_optimization": {"stage": 1, "allgather_bucket_size": 5}}, "MEM007", "is odd"),
        ({"bf16": {"enabled": True}, "torch_autocast": {"enabled": True}}, "MEM006", "beside bf16"),
        (
            {"zero_optimization": {"stage": 2, "stage3_max_live_parameters": 1, "sub_group_size": 9}},
            "MEM011",
            "nothing reads stage3_max_live_parameters, sub_group",
        ),
        (
            {"zero_optimization": {"stage": 3, "allgather_bucket_size": 2}},
            "MEM011",
            "nothing reads allgather_bucket_size: it is stages 1 and 2's",
        ),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "nvme", "pin_memory": False}}}, "MEM013", "to nvme"),
        ({"bf16": {"enabled": True, "bf16_optimizer_states": True}}, "MEM007", "without bf16_master_weights_and_grads"),
        (
            {"bf16": {"enabled": True, "bf16_master_weights_and_grads": True}, "zero_optimization": {"stage": 2}},
            "MEM007",
            "needs offload_optimizer",
        ),
    ],
)
def test_words(config: dict[str, Any], code: str, words: str) -> None:
    found = deepspeed(**config)
    assert codes(found) == code.split()
    assert words in found[0].message


@pytest.mark.parametrize(
    ("stage", "more", "gib", "percent"),
    [
        (2, {"reduce_bucket_size": 1e9, "overlap_comm": True}, "3.7", "16%"),
        (2, {"reduce_bucket_size": 2e9}, "3.7", "16%"),
        (3, {"reduce_bucket_size": 2e9, "overlap_comm": True}, "3.7", "16%"),
    ],
)
def test_bucket_bytes(stage: int, more: dict[str, Any], gib: str, percent: str) -> None:
    """Two bytes an element; twice with overlap_comm below stage 3 (measured: tests/mem/test_against_gpu.py holds the same arithmetic to a GPU)."""
    found = zero(24 * GIB, stage=stage, **more)
    assert codes(found) == ["MEM014"]
    assert f"is {gib} GiB" in found[0].message
    assert percent in found[0].message


def test_bucket_bytes_are_the_runners() -> None:
    """The same number as the prediction's, which was measured."""
    from llmdoctor.mem.settings import Zero

    default = zero(GIB, stage=2, overlap_comm=True)
    assert default[0].evidence["bytes"] == Zero().reduce_bucket_size * 2 * 2


def test_small_buckets_and_an_unstated_gpu_are_left_alone() -> None:
    assert zero(24 * GIB, stage=2, reduce_bucket_size=5e7, overlap_comm=True) == []
    assert zero(None, stage=2, reduce_bucket_size=5e10) == []
    assert zero(GIB, stage=2, reduce_bucket_size="auto") == []
    assert zero(GIB, stage=2, contiguous_gradients=False) == []


def test_what_is_common_is_left_alone() -> None:
    """The file of transformers' own documentation, with every "auto" it has."""
    auto = "auto"
    found = deepspeed(
        fp16={"enabled": auto, "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 16, "hysteresis": 2, "min_loss_scale": 1},
        bf16={"enabled": auto},
        optimizer={"type": "AdamW", "params": {"lr": auto, "betas": auto, "eps": auto, "weight_decay": auto}},
        scheduler={"type": "WarmupLR", "params": {"warmup_min_lr": auto, "warmup_max_lr": auto, "warmup_num_steps": auto}},
        zero_optimization={
            "stage": 3, "offload_optimizer": {"device": "cpu", "pin_memory": True}, "offload_param": {"device": "cpu", "pin_memory": True},
            "overlap_comm": True, "contiguous_gradients": True, "sub_group_size": 1e9, "reduce_bucket_size": auto,
            "stage3_prefetch_bucket_size": auto, "stage3_param_persistence_threshold": auto, "stage3_max_live_parameters": 1e9,
            "stage3_max_reuse_distance": 1e9, "stage3_gather_16bit_weights_on_model_save": True,
        },
        gradient_accumulation_steps=auto, gradient_clipping=auto, steps_per_print=2000, train_batch_size=auto, wall_clock_breakdown=False,
    )  # fmt: skip
    assert found == []


def test_the_old_names_of_offloading_count() -> None:
    """DeepSpeedExamples' cifar/ds_config.json: fp16 masters with cpu_offload, which is offload_optimizer on cpu."""
    found = deepspeed(fp16={"enabled": True, "fp16_master_weights_and_grads": True}, zero_optimization={"stage": 2, "cpu_offload": True})
    assert codes(found) == ["MEM012"]


def test_yaml_lines_and_the_inner_config() -> None:
    inner = "deepspeed:\n  optimizer: {type: AdamW, params: {lr: 1e-4}}\n  bogus: 1\n  zero_optimization: {stage: 1}\n  train_batch_size: auto\n"
    text = f"output_dir: o\nper_device_train_batch_size: 1\nlearning_rate: 1e-5\n{inner}"
    found = check_training(parse_yaml(text.encode(), "t.yaml", "t.yaml"), LinkedFiles(ProjectSettings()))
    assert [(finding.code, str(finding.location)) for finding in found] == [("MEM010", "t.yaml:6"), ("MEM008", "t.yaml:3")]
    assert "t.yaml:5" in found[1].message


def test_axolotls_auto_and_none_contradict_nothing() -> None:
    inner = "deepspeed: {zero_optimization: {stage: 2}, train_batch_size: auto, bf16: {enabled: true}}\n"
    text = f"base_model: m\ndatasets: []\nmicro_batch_size: 2\nsequence_len: 8\nbf16: auto\nfp16:\n{inner}"
    assert check_training(parse_yaml(text.encode(), "a.yml", "a.yml"), LinkedFiles(ProjectSettings())) == ()


@pytest.mark.parametrize(
    ("more", "reported"),
    [("", True), ("dataset_name: d\n", False), ("finetuning_type: lora\nlora_rank: 8\n", True), ("bf16: true\ndataset_name: d\n", False)],
)
def test_what_is_not_said_is_the_trainers_default_and_not_trls(more: str, reported: bool) -> None:
    text = (
        f"output_dir: o\nper_device_train_batch_size: 1\n{more}"
        f"deepspeed: {{zero_optimization: {{stage: 2}}, train_batch_size: auto, bf16: {{enabled: true}}}}\n"
    )
    found = check_training(parse_yaml(text.encode(), "t.yaml", "t.yaml"), LinkedFiles(ProjectSettings()))
    assert [finding.code for finding in found] == (["MEM006"] if reported else [])


@pytest.mark.parametrize(
    ("text", "code", "severity"),
    [
        ("  zero_stage: 2\n  offload_param_device: cpu\n", "MEM011", Severity.WARNING),
        ("  zero_stage: 2\n  zero3_init_flag: true\n", "MEM011", Severity.INFO),
        ("  zero_stage: 7\n", "MEM007", Severity.ERROR),
        ("  deepspeed_config_file: ds.json\n  zero_stage: 2\n", "MEM007", Severity.ERROR),
        ("  zero_stage: 3\n  offload_param_device: cpu\n  zero3_init_flag: true\n", None, None),
        ("  deepspeed_config_file: ds.json\n  zero3_init_flag: true\n", None, None),
    ],
)
def test_accelerate(text: str, code: str | None, severity: Severity | None) -> None:
    whole = f"compute_environment: LOCAL_MACHINE\ndistributed_type: DEEPSPEED\ndeepspeed_config:\n{text}"
    found = check_accelerate(parse_yaml(whole.encode(), "a.yaml", "a.yaml"), LinkedFiles(ProjectSettings()))
    assert [(finding.code, finding.severity) for finding in found] == ([] if code is None else [(code, severity)])


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("output_dir: o\nper_device_train_batch_size: 1\noptim: adamw_hf\n", ["MEM007"]),
        ("output_dir: o\nper_device_train_batch_size: 1\ngradient_accumulation_step: 8\n", ["MEM007"]),
        ("output_dir: o\nper_device_train_batch_size: 1\nmy_own_argument: 8\n", ["MEM010"]),
        ("base_model: m\nmicro_batch_size: 1\nsequence_len: 2048\nadapter: lora\nlora_rr: 8\n", ["MEM010"]),
        ("model_name_or_path: m\nstage: sft\nfinetuning_type: lora\nlora_targets: all\n", ["MEM007"]),
        ("output_dir: o\nper_device_train_batch_size: 1\nbf16: true\n", []),
    ],
)
def test_names_and_values_that_a_framework_does_not_accept(text: str, codes: list[str]) -> None:
    found = check_training(parse_yaml(text.encode(), "t.yaml", "t.yaml"), LinkedFiles(ProjectSettings()))
    assert [finding.code for finding in found] == codes


def test_recomputation_that_transformers_does_not_use() -> None:
    text = (
        "output_dir: o\nper_device_train_batch_size: 1\n"
        "deepspeed:\n  zero_optimization: {stage: 3}\n  train_batch_size: auto\n  activation_checkpointing: {}\n"
    )
    found = check_training(parse_yaml(text.encode(), "t.yaml", "t.yaml"), LinkedFiles(ProjectSettings()))
    assert [finding.code for finding in found] == ["MEM011"]
    text += "gradient_checkpointing: true\n"
    assert check_training(parse_yaml(text.encode(), "t.yaml", "t.yaml"), LinkedFiles(ProjectSettings())) == ()

"""One reader for each format: what it recognises, what it sets, and that no key of a file is dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from llmdoctor.check.kinds import candidates, kind_of
from llmdoctor.configs.formats import FORMATS
from llmdoctor.configs.reading import opened, read, read_value
from llmdoctor.configs.recognise import name_of, recognise
from llmdoctor.configs.types import Ignored, Refused, Uses
from llmdoctor.core.errors import QuestionError

FILES = {path.stem: path for path in sorted((Path(__file__).parent / "formats").iterdir())}  # one file of each format, by its name
EXAMPLES: dict[str, dict[str, Any]] = {name: opened(str(path)).value for name, path in FILES.items()}


def test_each_format_has_a_file() -> None:
    assert set(FILES) == {one.name for one in FORMATS}


@pytest.mark.parametrize("name", EXAMPLES)
def test_check_and_look_call_a_file_what_mem_reads_it_as(name: str) -> None:
    kinds = {"deepspeed": "DeepSpeed config", "accelerate": "accelerate config", "peft": None}
    assert kind_of(EXAMPLES[name]) == kinds.get(name, "training arguments")
    assert read(str(FILES[name])).format.name == name


@pytest.mark.parametrize("name", EXAMPLES)
def test_check_parses_a_file_of_each_format_that_it_judges(name: str) -> None:
    """A file without a mark of its kind is not parsed: check/kinds.py has a mark for each format."""
    kind = kind_of(EXAMPLES[name])
    assert kind is None or kind in {one.name for one in candidates(FILES[name].suffix, FILES[name].read_bytes())}


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_format_is_recognised_as_itself(name: str) -> None:
    assert name_of(EXAMPLES[name]) == name


@pytest.mark.parametrize("value", [{}, [], None, 3, {"model_type": "llama"}, {"messages": []}, {"output_dir": "x"}])
def test_other_files_are_not_configurations(value: Any) -> None:
    assert recognise(value) is None


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_key_of_a_file_is_used_ignored_refused_or_unknown(name: str) -> None:
    format_ = recognise(EXAMPLES[name])
    assert format_ is not None
    value = {**EXAMPLES[name], "no_such_key": 1}
    found = read_value(value, "file", format_)
    listed = {key for kind in (Uses, Ignored, Refused) for key in found.of("memory", kind)}
    assert listed == set(found.values)
    assert [one.key for one in found.unknown] == ["no_such_key"]


def test_aliases_and_deprecated_spellings_are_the_settings_that_deepspeed_makes_of_them() -> None:
    text = '{"zero_optimization": {"stage": 3, "max_live_parameters": 7, "cpu_offload": true}, "bfloat16": {"enabled": true}}'
    normal = read("ds.json", text=text).normal
    assert (normal.get("zero.max_live_parameters"), normal.get("zero.offload_optimizer"), normal.get("bf16")) == (7, "cpu", True)


def test_a_misspelt_key_is_unknown_and_the_close_one_is_named() -> None:
    found = read("ds.json", text='{"zero_optimization": {"stage": 3, "stage3_max_live_parameter": 7}}')
    assert [(one.key, one.effect, one.close) for one in found.unknown] == [
        ("zero_optimization.stage3_max_live_parameter", "raises", ("zero_optimization.stage3_max_live_parameters",))
    ]


def test_without_reads_the_file_as_if_it_did_not_set_the_key() -> None:
    text = '{"zero_optimization": {"stage": 3, "zero_quantized_weights": true}, "tensor_parallel": {"autotp_size": 4}}'
    found = read("ds.json", text=text, without=("zero_optimization.zero_quantized_weights", "tensor_parallel", "elsewhere"))
    assert found.without == ("zero_optimization.zero_quantized_weights", "tensor_parallel")
    assert found.of("memory", Refused) == {}


def test_defaults_are_the_frameworks_own() -> None:
    trl = read("sft.yaml", text="output_dir: o\nper_device_train_batch_size: 2\npacking: true\n").normal
    assert (trl.get("load_dtype"), trl.get("bf16"), trl.get("checkpointing"), trl.get("sequence_length")) == ("float32", True, True, 1024)
    whole = read("lf.yaml", text="model_name_or_path: m\nstage: sft\nfinetuning_type: full\nbf16: true\noutput_dir: o\n").normal
    assert (whole.get("load_dtype"), whole.get("checkpointing"), whole.get("sequence_length")) == ("float32", True, 2048)


def test_a_value_that_the_framework_does_not_accept_is_rejected_by_name() -> None:
    found = read("args.json", text='{"output_dir": "o", "per_device_train_batch_size": 2, "optim": "adamw_hf"}')
    assert "adamw_hf" in found.rejected["optim"]


def test_lines_are_those_of_the_file() -> None:
    found = read("ds.json", text='{\n "zero_optimization": {\n  "stage": 3\n }\n}')
    assert found.lines["zero_optimization.stage"] == 3


def test_a_file_of_no_known_format_is_refused_in_a_sentence() -> None:
    with pytest.raises(QuestionError, match=r"none of the configurations that are known here"):
        read("x.json", text='{"a": 1}')


SCRIPT = """
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
BATCH = 4
quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("m", dtype=torch.bfloat16, quantization_config=quantized)
lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
arguments = SFTConfig("out", per_device_train_batch_size=BATCH, max_length=4096, learning_rate=rate(), bf16=True)
trainer = SFTTrainer(model, args=arguments, peft_config=lora)
"""


def test_the_calls_of_a_script_are_read_and_not_executed() -> None:
    found = read("train.py", text=SCRIPT)
    normal = found.normal
    assert (found.format.name, found.variant.name, found.unknown, found.rejected) == ("trl", "SFTConfig", (), {})
    assert [normal.get(name) for name in ("batch", "sequence_length", "load_dtype", "lora_rank", "lora_targets", "adapter", "checkpointing")] == [
        4, 4096, "bfloat16", 16, "all-linear", "lora", True,
    ]  # fmt: skip
    assert normal.get("quantization") == {"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"}
    assert found.lines["per_device_train_batch_size"] == 8


def test_model_init_kwargs_are_those_of_from_pretrained() -> None:
    text = "SFTTrainer('m', args=SFTConfig('o', model_init_kwargs={'dtype': 'bfloat16', 'attn_implementation': 'sdpa'}))"
    normal = read("train.py", text=text).normal
    assert (normal.get("load_dtype"), normal.get("attention"), normal.get("objective")) == ("bfloat16", "sdpa", "sft")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("TrainingArguments(output_dir='o', per_device_train_batch_size=args.batch)", "per_device_train_batch_size"),
        ("TrainingArguments(output_dir='o', **settings)", "**"),
        ("a = 4\na = 8\nTrainingArguments('o', gradient_accumulation_steps=a)", "gradient_accumulation_steps"),
    ],
)
def test_values_that_a_script_computes_are_not_guessed(text: str, key: str) -> None:
    found = read("train.py", text=text)
    assert key in found.rejected or key in [one.key for one in found.unknown]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1", "no call of TrainingArguments"),
        ("TrainingArguments()\nTrainingArguments(1)", "which of them trains"),
        ("def", "not Python"),
    ],
)
def test_scripts_that_do_not_answer(text: str, sentence: str) -> None:
    with pytest.raises(QuestionError, match=sentence):
        read("train.py", text=text)


def test_a_setting_of_an_older_release_that_cannot_change_memory_does_not_end_the_answer() -> None:
    found = read("args.yaml", text="output_dir: o\nper_device_train_batch_size: 2\nwarmup_ratio: 0.1\nper_gpu_train_batch_size: 4\n")
    assert [(one.key, one.effect, one.removed) for one in found.unknown] == [
        ("warmup_ratio", "older", "transformers 4.57.1"), ("per_gpu_train_batch_size", "raises", "transformers 4.57.1"),
    ]  # fmt: skip


AXOLOTL = "base_model: m\nsequence_len: 512\nmicro_batch_size: 1\noptimizer: adamw_torch\nbf16: true\n"


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ("", True),
        ("sdp_attention: true\n", True),
        ("flash_attention: true\n", False),
        ("adapter: lora\nlora_r: 8\n", False),
        ("attn_implementation: flash_attention_3\n", False),
    ],
)
def test_axolotl_keeps_norms_and_embeddings_in_float32_where_it_does(more: str, parts: bool) -> None:
    """axolotl 0.19.0, loaders/model.py, _configure_embedding_dtypes: only adapters and flash attention bring them back to 16 bits."""
    assert (read("a.yaml", text=AXOLOTL + more).normal.get("float32_parts") is not None) is parts


@pytest.mark.parametrize(
    ("more", "on"),
    [
        ("adapter: lora\nlora_r: 8\n", True),
        ("adapter: lora\nlora_r: 8\nload_in_8bit: true\n", False),
        ("adapter: qlora\nlora_r: 8\nload_in_4bit: true\n", True),
        ("adapter: lora\nlora_r: 8\ntrust_remote_code: true\n", False),
        ("adapter: lora\nlora_r: 8\nlora_mlp_kernel: false\n", False),
        ("adapter: lora\nlora_r: 8\nrl: dpo\n", False),
    ],
)
def test_kernels_that_axolotl_switches_on_stand_in_the_verdict(more: str, on: bool) -> None:
    assert any("kernels" in limit for limit in read("a.yaml", text=AXOLOTL + more).normal.limits) is on


SWIFT = "model: m\ntuner_type: lora\nlora_rank: 8\ntemplate: qwen2_5\n"
LLAMA_FACTORY = "model_name_or_path: m\nstage: sft\nfinetuning_type: lora\ncutoff_len: 512\noutput_dir: o\n"


@pytest.mark.parametrize(
    "line", ["task_type: embedding", "freeze_vit: false", "freeze_aligner: false", "vit_gradient_checkpointing: false"]
)
def test_what_ms_swift_trains_beside_a_causal_language_model_is_refused(line: str) -> None:
    assert read("s.yaml", text=f"{SWIFT}{line}\n").of("memory", Refused) == {line.partition(":")[0]: ANY}
    assert not read("s.yaml", text=f"{SWIFT}task_type: causal_lm\nfreeze_vit: true\n").of("memory", Refused)


def test_llama_factory_trains_nothing_without_do_train() -> None:
    assert any("trains nothing" in limit for limit in read("l.yaml", text=LLAMA_FACTORY).normal.limits)
    assert not read("l.yaml", text=f"{LLAMA_FACTORY}do_train: true\n").normal.limits


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("axolotl", f"{AXOLOTL}adapter: qlora\nlora_r: 8\nload_in_4bit: true\n"),
        ("ms-swift", f"{SWIFT}quant_method: bnb\nquant_bits: 4\n"),
        ("llamafactory", f"{LLAMA_FACTORY}do_train: true\nquantization_bit: 4\n"),
        ("trl", "output_dir: o\nper_device_train_batch_size: 1\nlearning_rate: 1\nuse_peft: true\nload_in_4bit: true\n"),
    ],
)
def test_what_is_not_quantized_stays_in_16_bits_in_these_frameworks(name: str, text: str) -> None:
    found = read("f.yaml", text=text)
    assert (found.format.name, found.normal.get("prepared")) == (name, False)
    assert (found.normal.get("lora_float32") is False) is (name == "trl")


def test_a_file_of_trls_commands_does_not_load_by_model_init_kwargs() -> None:
    text = "output_dir: o\nper_device_train_batch_size: 1\nlearning_rate: 1\ndataset_name: d\nmodel_init_kwargs:\n  dtype: bfloat16\n"
    found = read("f.yaml", text=text)
    assert found.normal.get("load_dtype") == "float32"
    assert "model_init_kwargs.dtype" in found.of("memory", Ignored)


def test_axolotls_batch_size_is_the_one_or_the_other() -> None:
    """axolotl 0.19.0: held against its pydantic model by conformance/compare_configs.py."""
    alone = read("a.yaml", text=AXOLOTL + "batch_size: 32\n")
    assert (alone.rejected, alone.normal.get("accumulation")) == ({}, 1)
    both = read("a.yaml", text=AXOLOTL + "batch_size: 32\ngradient_accumulation_steps: 2\n")
    assert "only one of" in both.rejected[""]


def test_llama_factory_accepts_what_its_own_transformers_accepts() -> None:
    text = "model_name_or_path: m\nstage: sft\nfinetuning_type: lora\ncutoff_len: 99\noutput_dir: o\nwarmup_ratio: 0.1\n"
    assert read("l.yaml", text=text).unknown == ()  # llamafactory 0.9.5 accepts transformers up to 5.6.0
    assert [one.key for one in read("l.yaml", text=f"{text}model_max_length: 99\n").unknown] == ["model_max_length"]  # field(init=False)

"""`mem fit`: what it prints fits when it is asked about again, and what fits already is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.fit import fit_report, question_words
from llmdoctor.mem.moves import moves_of
from llmdoctor.mem.options import FitOptions, MemOptions
from llmdoctor.mem.paste import merged, pasted
from llmdoctor.mem.predictor import Predictor
from tests.mem.conftest import write_config

pytestmark = pytest.mark.live
STRATEGY = ("trainer:adamw_torch,bf16",)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("fit") / "llama"
    return str(
        write_config(folder, "llama", vocab_size=64000, hidden_size=512, intermediate_size=1536, num_attention_heads=8, num_hidden_layers=2)
    )


def test_every_combination_fits_and_the_first_is_the_cheapest(model: str) -> None:
    report = fit_report(FitOptions(model=model, strategy=STRATEGY, batch=16, seq_len=512, gpu_memory="6GiB"))
    assert report.result is not None
    assert report.result["fits"] is False
    found = report.result["combinations"]
    assert found
    assert all(one["needs_bytes"] <= 6 * 2**30 for one in found)
    assert report.verdict is not None
    assert report.verdict.status == "problem"
    assert found[0]["changes"][0] in report.verdict.text


def test_what_fits_is_left_alone(model: str) -> None:
    report = fit_report(FitOptions(model=model, strategy=STRATEGY, batch=1, seq_len=64, gpu_memory="80GiB"))
    assert report.result is not None
    assert (report.result["fits"], report.result["combinations"]) == (True, [])
    assert report.verdict is not None
    assert report.verdict.status == "ok"


def test_what_can_never_fit_is_said(model: str) -> None:
    report = fit_report(FitOptions(model=model, strategy=STRATEGY, batch=2, seq_len=64, gpu_memory="100MB"))
    assert report.result is not None
    assert report.result["combinations"] == []
    assert report.verdict is not None
    assert "none of" in report.verdict.text


def test_the_verdict_has_the_limits_of_what_was_read(model: str, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(
        "output_dir: o\nper_device_train_batch_size: 1\nlearning_rate: 1\nmax_length: 64\ntorch_dtype: bfloat16\nneftune_noise_alpha: 5\n"
    )
    report = fit_report(FitOptions(model=model, strategy=(str(path),), gpu_memory="80GiB", without=("neftune_noise_alpha",)))
    assert report.verdict is not None
    assert report.verdict.text.startswith("It fits already: ")
    for limit in ("read as SFTConfig: ", "torch_dtype read by the present names", "without neftune_noise_alpha"):
        assert limit in report.verdict.text


def test_moves_change_something_or_do_not_apply(model: str) -> None:
    predictor = Predictor(MemOptions(model=model, strategy=STRATEGY))
    strategy = predictor.strategy(STRATEGY[0])
    for move in moves_of(strategy, 4):
        changed = move.change(strategy)
        assert changed is None or changed != strategy or move.batch is not None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"gpu_memory": ""}, "no --gpu-memory"), ({"strategy": ()}, "expected one"), ({"gpu_memory": "24"}, "with its unit")],
)
def test_usage(model: str, options: dict[str, object], sentence: str) -> None:
    given = {"model": model, "strategy": STRATEGY, "gpu_memory": "24GiB", **options}
    with pytest.raises(QuestionError, match=sentence):
        fit_report(FitOptions(**given))  # type: ignore[arg-type]


FILES: dict[str, dict[str, object]] = {
    "trainer.json": {"optim": "adamw_torch", "bf16": True, "per_device_train_batch_size": 4},
    "trainer.yaml": {"optim": "adamw_torch", "bf16": False, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    "sft.yaml": {"optim": "adamw_torch", "bf16": True, "per_device_train_batch_size": 4, "max_length": 64, "packing": False},
    "axolotl.yml": {"base_model": "x", "datasets": [], "sequence_len": 64, "micro_batch_size": 4, "optimizer": "adamw_torch", "bf16": True,
                    "flash_attention": True},
    "factory.yaml": {"model_name_or_path": "x", "stage": "sft", "finetuning_type": "full", "cutoff_len": 64, "template": "qwen", "bf16": True,
                     "per_device_train_batch_size": 4, "disable_gradient_checkpointing": True},
    "zero2.json": {"train_micro_batch_size_per_gpu": 4, "bf16": {"enabled": True}, "zero_optimization": {"stage": 2},
                   "optimizer": {"type": "AdamW", "params": {"lr": 1e-5}}},
    "engine.json": {"optim": "adamw_torch", "bf16": True, "per_device_train_batch_size": 4, "deepspeed": {
        "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "bf16": {"enabled": True},
        "zero_optimization": {"stage": 2}}},
}  # fmt: skip
EXPRESSED = {
    "trainer.json": {"fused", "liger", "checkpointing", "batch", "eight_bit", "half", "lora", "qlora"},
    "trainer.yaml": {"fused", "liger", "checkpointing", "batch", "eight_bit", "half", "lora", "qlora"},
    "sft.yaml": {"fused", "liger", "batch", "eight_bit", "half", "lora", "qlora"},
    "axolotl.yml": {"fused", "liger", "checkpointing", "batch", "eight_bit", "lora", "qlora"},
    "factory.yaml": {"liger", "checkpointing", "batch", "eight_bit", "half", "lora", "qlora"},
    "zero2.json": {"batch", "stage3", "offload"},
    "engine.json": {"liger", "checkpointing", "batch", "stage3"},
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_printed_leads_to_the_same_peak_when_it_is_read_again(tmp_path: Path, name: str) -> None:
    """Each change alone: its text, put into the file, is read as a user's file would be."""
    value, path = FILES[name], tmp_path / name
    path.write_text(json.dumps(value))  # JSON is YAML
    small = write_config(tmp_path / "llama", "llama", torch_dtype="float32" if name in ("trainer.yaml", "trainer.json") else "bfloat16")
    world = 2 if name in ("zero2.json", "engine.json") else None
    predictor = Predictor(MemOptions(model=str(small), strategy=(str(path),), seq_len=64, world_size=world))
    estimate = predictor.estimate(predictor.strategy(str(path)))
    said = set()
    for move in moves_of(estimate.strategy, 4):
        made = pasted(predictor, estimate, [move]) if move.change(estimate.strategy) is not None else None
        if made is None or not made.text:
            continue
        said.add(move.name)
        path.write_text(json.dumps(merged(value, yaml.safe_load(made.text))))
        again = predictor.estimate(predictor.strategy(str(path)))
        assert again.prediction.peak.total == made.estimate.prediction.peak.total
        assert again.strategy != estimate.strategy
        path.write_text(json.dumps(value))
    assert said >= EXPRESSED[name], EXPRESSED[name] - said


def test_a_script_is_answered_in_the_words_of_its_call(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(
        'from transformers import TrainingArguments\nargs = TrainingArguments("out", per_device_train_batch_size=4, bf16=True)\n'
    )
    predictor = Predictor(MemOptions(model=str(write_config(tmp_path / "llama", "llama")), strategy=(str(path),), seq_len=64))
    estimate = predictor.estimate(predictor.strategy(str(path)))
    moves = {move.name: move for move in moves_of(estimate.strategy, 4)}
    made = pasted(predictor, estimate, [moves["batch"], moves["half"]])
    assert made is not None
    assert made.text == "per_device_train_batch_size=1,\ngradient_accumulation_steps=4,"
    assert made.script == ("from_pretrained(..., dtype=torch.bfloat16), without autocast",)
    assert made.estimate.strategy.autocast is None


def test_the_next_command_asks_the_same_question() -> None:
    options = FitOptions(
        model="m",
        strategy=("s.json",),
        gpu_memory="24GiB",
        batch=2,
        world_size=4,
        rank=1,
        attn="eager",
        trainable=("*bias",),
        without=("seed",),
    )
    words = question_words(options, whole=False)
    assert words == " --batch 2 --attn eager --world-size 4 --rank 1 --trainable '*bias' --without seed"
    assert "--without" not in question_words(options, whole=True)

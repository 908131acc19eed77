"""Outputs that the real libraries write: transformers' generate() on a model that ends its turn, trl's GRPOTrainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.demo.live.tiny_qwen2_vl import build
from llmdoctor.gencfg.runaway.options import RunawayOptions
from llmdoctor.gencfg.runaway.runaway import runaway_report

pytestmark = pytest.mark.live
LIMIT = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("runaway") / "qwen2-vl-tiny")


def generate(directory: Path, out: Path, *, cleared: bool) -> None:
    """A padded batch of real answers as a rollout would record them: ids only."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, padding_side="left")
    policy = transformers.Qwen2VLForConditionalGeneration.from_pretrained(directory)
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": user_text}], tokenize=False, add_generation_prompt=True)
        for user_text in ("one", "one two", "one two three", "shows")
    ]
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    if cleared:  # trl 1.0.0 experimental/ppo/ppo_trainer.py:410
        policy.generation_config.eos_token_id = None
    torch.manual_seed(0)
    sequences = policy.generate(**inputs, max_new_tokens=LIMIT, do_sample=False)
    new = sequences[:, inputs["input_ids"].shape[1] :]
    out.write_text("".join(json.dumps({"completion_ids": row.tolist()}) + "\n" for row in new))


def test_a_real_generate_that_stops_and_one_whose_eos_was_cleared(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "rollouts.jsonl"
    generate(model, out, cleared=False)
    good = runaway_report(RunawayOptions(path=str(out), model=str(model), max_new_tokens=LIMIT))
    assert good.result is not None
    assert (good.findings, good.result["ended_by"]["eos"], good.result["sequences"]) == ((), 4, 4)

    generate(model, out, cleared=True)
    bad = runaway_report(RunawayOptions(path=str(out), model=str(model), max_new_tokens=LIMIT))
    assert bad.result is not None
    rows = [json.loads(line)["completion_ids"] for line in out.read_text().splitlines()]
    end = bad.result["model"]["terminator"]["id"]
    (entry,) = bad.result["passed_terminators"]
    assert (entry["token"], entry["sequences"], bad.result["ended_by"]["length"]) == ("<|im_end|>", 4, 4)
    assert [example["position"] for example in entry["examples"]] == [row.index(end) for row in rows]
    assert bad.result["cause"].startswith("The files are right: generation_config.json:")
    assert {finding.code for finding in bad.findings} >= {"GEN014", "GEN016"}

    damaged = build(tmp_path / "damaged")
    config = json.loads((damaged / "generation_config.json").read_text())
    (damaged / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": None}, indent=2))
    found = runaway_report(RunawayOptions(path=str(out), model=str(damaged), max_new_tokens=LIMIT))
    assert found.result is not None
    assert found.result["cause"].startswith("The files: the model ends with <|im_end|>")


def test_trls_grpo_trainer_writes_a_table_that_is_read(model: Path, tmp_path: Path) -> None:
    trl, transformers = pytest.importorskip("trl"), pytest.importorskip("transformers")
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    size: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    policy = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, **size))
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=24,
        max_steps=1,
        logging_steps=1,
        log_completions=True,
        report_to=[],
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        disable_tqdm=True,
    )

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [float(len(text)) for text in completions]

    data = datasets.Dataset.from_dict({"prompt": ["hi"] * 4})
    trl.GRPOTrainer(policy, reward_funcs=reward, args=arguments, train_dataset=data, processing_class=tokenizer).train()
    (table,) = (tmp_path / "completions").glob("completions_*.parquet")
    made = runaway_report(RunawayOptions(path=str(table))).result
    assert made is not None
    written = pandas.read_parquet(table)["completion"]
    assert (made["sequences"], made["characters"], made["ended_by"]["unknown"]) == (4, sum(map(len, written)), 4)

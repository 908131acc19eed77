"""Objectives of TRL and evaluations: TRL's own compute_loss under the same recorder, settings of files, phases."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.options import MemCompareOptions
from llmdoctor.mem.predictor import Predictor, compare_strategies
from llmdoctor.mem.types import Estimate

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

from tests.mem.conftest import write_config  # noqa: E402

VOCABULARY, ROWS, LENGTH = 4099, 4, 32


def tiny(kind: str = "Qwen2ForCausalLM") -> Any:
    """Return a model whose logits are most of what it holds."""
    import transformers

    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        num_labels=1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    return getattr(transformers, kind)(config)


def largest(loss: Callable[[], Any], models: list[Any]) -> tuple[int, int]:
    """Return the most bytes alive in the forward and in the backward of `loss`, beside the parameters."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from llmdoctor.mem.live import recorder as module

    recorder = module.StorageRecorder()
    for model in models:
        model.zero_grad()
        for tensor in (*model.parameters(), *model.buffers()):
            recorder.static.add(tensor.untyped_storage()._cdata)
    with pytest.MonkeyPatch.context() as patch, module.recording(recorder, FakeTensorMode()):
        patch.setattr(module, "_is_fake", lambda *_: False)  # real tensors: TRL's metrics read values
        value = loss()
        recorder.mark("p", "backward")
        recorder.backward = True
        torch.autograd.Variable._execution_engine.run_backward(
            (value,), (torch.ones_like(value),), False, False, (), allow_unreachable=True, accumulate_grad=True
        )
    sizes: dict[Any, int] = {}
    most, part = [0, 0], 0
    for event in (event for segment in recorder.finish() for event in segment.events):
        if event[0] == "+":
            sizes[event[1]] = event[2]
        elif event[0] == "-":
            sizes.pop(event[1])
        elif event[0] == "p":
            part = 1
        most[part] = max(most[part], sum(sizes.values()))
    return most[0], most[1]


def trainer(kind: Any, model: Any, **fields: Any) -> Any:
    """Return a trainer of TRL's that has what its compute_loss reads, and no more."""
    made = kind.__new__(kind)
    same = SimpleNamespace(
        gather_for_metrics=lambda value: value, gather=lambda value: value, device="cpu", unwrap_model=lambda value: value
    )
    made.__dict__ |= {
        "model": model, "accelerator": same, "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)}, "_total_train_tokens": 0,
        "num_virtual_tokens": 0, "aux_loss_enabled": False, "model_accepts_loss_kwargs": False, "compute_loss_func": None,
        "label_smoother": None, "compute_metrics": None, **fields,
    }  # fmt: skip
    return made


def arguments(**fields: Any) -> Any:
    return SimpleNamespace(
        use_liger_kernel=False, past_index=-1, gradient_checkpointing_kwargs=None, center_rewards_coefficient=None, n_gpu=1,
        average_tokens_across_devices=False, parallelism_config=None, **fields,
    )  # fmt: skip


def batch() -> dict[str, Any]:
    ids = torch.randint(1, VOCABULARY, (ROWS, LENGTH))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def called(model: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda given: model(**given, use_cache=False)


def test_the_loss_of_sft_trainer() -> None:
    from llmdoctor.mem.live.objectives import supervised

    model, inputs = tiny(), batch()
    inputs["labels"] = inputs["input_ids"].clone()
    theirs = trainer(trl.SFTTrainer, model, args=arguments())
    real = largest(lambda: theirs.compute_loss(model, dict(inputs)), [model])
    mine = largest(lambda: supervised(called(model), dict(inputs)), [model])
    plain = largest(lambda: model(**inputs).loss, [model])
    assert mine[0] == pytest.approx(real[0], rel=0.01)
    assert mine[1] == pytest.approx(real[1], rel=0.01)
    assert mine[0] > 1.1 * plain[0]  # the metrics copy the logits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("precomputed", [False, True])
def test_the_loss_of_dpo_trainer(dtype: str, precomputed: bool) -> None:
    from llmdoctor.mem.live.objectives import preference

    kind = getattr(torch, dtype)
    model, other, inputs = tiny().to(kind), tiny().to(kind), batch()
    theirs = trainer(
        trl.DPOTrainer, model, args=arguments(), ref_model=other, use_liger_kernel=False, ld_alpha=None, precompute_ref_logps=precomputed,
        f_divergence_type="reverse_kl", loss_types=["sigmoid"], loss_weights=[1.0], beta=0.1, use_weighting=False,
    )  # fmt: skip
    given = {**inputs, "completion_mask": torch.ones_like(inputs["input_ids"])}
    known = {f"ref_{name}_logps": torch.zeros(ROWS // 2) for name in ("chosen", "rejected")} if precomputed else {}
    real = largest(lambda: theirs.compute_loss(model, {**given, **known}), [model, other])
    mine = largest(lambda: preference(called(model), dict(inputs), None if precomputed else called(other)), [model, other])
    assert mine[0] == pytest.approx(real[0], rel=0.01)
    assert mine[1] == pytest.approx(real[1], rel=0.01)


def test_the_loss_of_reward_trainer() -> None:
    from llmdoctor.mem.live.objectives import reward

    model, inputs = tiny("Qwen2ForSequenceClassification"), batch()
    theirs = trainer(trl.RewardTrainer, model, args=arguments())
    real = largest(lambda: theirs.compute_loss(model, dict(inputs)), [model])
    mine = largest(lambda: reward(called(model), dict(inputs)), [model])
    assert mine[0] == pytest.approx(real[0], rel=0.01)
    assert mine[1] == pytest.approx(real[1], rel=0.01)


# --- from a file to a prediction

TRAINED = {"output_dir": "out", "learning_rate": 1e-6, "per_device_train_batch_size": 2, "max_length": 64}


def estimated(folder: Path, settings: dict[str, Any], family: str = "qwen2", **options: Any) -> Estimate:
    file = folder / "strategy.yaml"
    file.write_text(yaml.safe_dump({**TRAINED, **settings}))
    model = write_config(folder / family, family)
    return compare_strategies(MemCompareOptions(model=str(model), strategy=(str(file),), **options))[0].estimates[0]


def test_a_preference_has_two_sequences_and_a_reference_in_float32(tmp_path: Path) -> None:
    supervised = estimated(tmp_path, {"dataset_text_field": "text", "dtype": "bfloat16"})
    found = estimated(tmp_path, {"beta": 0.1, "dtype": "bfloat16"})
    assert (found.strategy.objective, found.workload.sequences, found.strategy.reference) == ("dpo", 4, "float32")
    extra = found.prediction.start.total - supervised.prediction.start.total
    assert extra == pytest.approx(4 * found.prediction.parameters, rel=0.1)  # blocks of 512 bytes
    assert found.prediction.peak.total > supervised.prediction.peak.total + extra


def test_the_reference_follows_model_init_kwargs(tmp_path: Path) -> None:
    assert estimated(tmp_path, {"beta": 0.1, "model_init_kwargs": {"dtype": "bfloat16"}}).strategy.reference == "bfloat16"


def test_adapters_need_no_reference_and_run_the_base_model(tmp_path: Path) -> None:
    found = estimated(tmp_path, {"beta": 0.1, "use_peft": True, "lora_target_modules": ["q_proj"]})
    assert found.strategy.reference is None
    assert found.strategy.compares
    whole = estimated(tmp_path, {"beta": 0.1, "use_peft": False})
    assert whole.strategy.reference == "float32"
    assert estimated(tmp_path, {"beta": 0.1}, lora=4).strategy.reference is None


def test_log_probabilities_computed_beforehand_leave_the_reference_on_the_device(tmp_path: Path) -> None:
    found = estimated(tmp_path, {"beta": 0.1, "precompute_ref_log_probs": True})
    with_ = estimated(tmp_path, {"beta": 0.1})
    assert found.strategy.reference == "float32"
    assert not found.strategy.compares
    assert found.prediction.start.total == with_.prediction.start.total
    assert found.prediction.peak.total < with_.prediction.peak.total


def test_a_reward_model_has_one_output(tmp_path: Path) -> None:
    found = estimated(tmp_path, {"center_rewards_coefficient": 0.01})
    assert found.strategy.objective == "reward"
    assert [weight.shape for weight in found.job.weights if weight.name == "score.weight"] == [(1, 48)]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_generations": 8, "beta": 0.0}, "num_generations"),
        ({"beta": 0.1, "loss_type": ["sigmoid", "sft"]}, "loss_type"),
        ({"beta": 0.1, "use_liger_kernel": True}, "use_liger_kernel"),
        ({"beta": 0.1, "sync_ref_model": True}, "sync_ref_model"),
        ({"center_rewards_coefficient": 0.01, "use_peft": True}, "output layer"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(settings: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match=named):
        estimated(tmp_path, settings)


def test_an_evaluation_is_a_phase_with_its_own_batch(tmp_path: Path) -> None:
    none = estimated(tmp_path, {"dataset_text_field": "text"})
    found = estimated(tmp_path, {"dataset_text_field": "text", "eval_strategy": "steps"})
    assert "evaluation" not in none.prediction.phases
    assert found.strategy.evaluation is not None
    assert found.strategy.evaluation.batch == 8  # the Trainer's default
    assert none.prediction.steady.total == found.prediction.steady.total
    assert found.prediction.peak.phase == "evaluation"
    small = estimated(tmp_path, {"dataset_text_field": "text", "eval_strategy": "steps", "per_device_eval_batch_size": 1})
    assert small.prediction.peak.total == none.prediction.peak.total


def test_logits_for_metrics_are_named(tmp_path: Path) -> None:
    file = tmp_path / "arguments.yaml"
    settings = {"output_dir": "o", "per_device_train_batch_size": 1, "learning_rate": 1e-5, "eval_strategy": "epoch"}
    model = str(write_config(tmp_path / "llama", "llama"))

    def skipped(**more: Any) -> list[str]:
        file.write_text(yaml.safe_dump({**settings, **more}))
        return [one.what for one in compare_strategies(MemCompareOptions(model=model, strategy=(str(file),), static=True))[0].skipped]

    assert any("compute_metrics" in what for what in skipped())
    assert not any("compute_metrics" in what for what in skipped(prediction_loss_only=True))
    assert any("predict_with_generate" in what for what in skipped(predict_with_generate=True))


@pytest.mark.parametrize(
    ("settings", "batch_of_evaluation"),
    [
        ({"val_set_size": 0.0}, None),
        ({"val_set_size": 0.05}, 3),
        ({"val_set_size": 0.05, "eval_batch_size": 5, "evals_per_epoch": 4}, 5),
        ({"val_set_size": 0.05, "eval_strategy": "no"}, None),
    ],
)
def test_axolotl_evaluates_if_it_has_data(settings: dict[str, Any], batch_of_evaluation: int | None, tmp_path: Path) -> None:
    file = tmp_path / "axolotl.yaml"
    file.write_text(
        yaml.safe_dump({"base_model": "x", "datasets": [], "sequence_len": 64, "micro_batch_size": 3, "flash_attention": True, **settings})
    )
    model = write_config(tmp_path / "llama", "llama")
    strategy = Predictor(MemCompareOptions(model=str(model), strategy=(str(file),))).strategy(str(file))
    assert (strategy.evaluation.batch if strategy.evaluation else None) == batch_of_evaluation


# --- padded and packed batches


def peak(folder: Path, settings: dict[str, Any] | None = None, **options: Any) -> int:
    settings = {"output_dir": "o", "learning_rate": 1e-5, "bf16": True, "per_device_train_batch_size": 2, **(settings or {})}
    file = folder / "strategy.yaml"
    file.write_text(yaml.safe_dump(settings))
    model = write_config(folder / "llama", "llama", hidden_size=32, vocab_size=64, intermediate_size=32, num_attention_heads=4)
    return compare_strategies(MemCompareOptions(model=str(model), strategy=(str(file),), **options))[0].estimates[0].prediction.peak.total


def test_each_layer_keeps_the_mask_of_a_padded_batch_as_a_bias(tmp_path: Path) -> None:
    full, padded = peak(tmp_path, batch=2, seq_len=512), peak(tmp_path, lengths="512,300")
    bias = 2 * 512 * 512 * 2  # [batch, 1, tokens, tokens] in bfloat16
    assert padded - full == pytest.approx(7 * bias + bias // 2, rel=0.02)  # seven layers, and the boolean mask itself
    assert peak(tmp_path, lengths="512,300", attn="flash_attention_2") == full


def test_packing_hands_a_mask_to_sdpa_and_none_to_flash_attention(tmp_path: Path) -> None:
    text = {"max_length": 512, "gradient_checkpointing": False, "dataset_text_field": "text"}
    plain, wrapped = peak(tmp_path, text), peak(tmp_path, {**text, "packing": True, "packing_strategy": "wrapped"})
    packed = peak(tmp_path, {**text, "packing": True})
    assert wrapped == plain
    assert packed - plain > 7 * 1024 * 1024 * 2  # one row of both sequences: a bias [1, 1, 1024, 1024] for each layer
    flash = peak(tmp_path, {**text, "packing": True}, attn="flash_attention_2")
    assert flash == pytest.approx(plain, rel=0.01)
    assert peak(tmp_path, packed="200,312", batch=2) > peak(tmp_path, seq_len=512, batch=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lengths": "5,x"}, "separated by commas"),
        ({"lengths": "5,0"}, "separated by commas"),
        ({"lengths": "5,8", "packed": "3,5"}, "exclude each other"),
        ({"lengths": "5,8", "batch": 3}, "names 2 sequences"),
        ({"packed": "3,5", "seq_len": 9}, "contradict --seq-len 9"),
        ({"lengths": "3,5", "image": "56x56"}, "--image"),
    ],
)
def test_lengths_that_contradict_are_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match=said):
        peak(tmp_path, **options)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"], "d_model": 384},
            "takes input_features, not tokens",
        ),
        ({"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 16, "num_attention_heads": 2}, "BertModel computes no loss"),
    ],
)
def test_models_whose_batches_or_losses_are_unknown_are_refused(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(QuestionError, match=said):
        compare_strategies(MemCompareOptions(model=str(tmp_path), strategy=("trainer:adamw_torch,bf16",)))

"""What a preset says that a trainer passes to generate(), compared with the real trainer, constructed on a tiny model."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.installed import installed_version
from llmdoctor.gencfg.trained import SpecialIds, Training, apply_preset
from llmdoctor.gencfg.types import GenerateCall

pytestmark = pytest.mark.live
for package in ("torch", "transformers", "trl", "datasets"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    from llmdoctor.demo.live.tiny_qwen2_vl import build

    found = AutoTokenizer.from_pretrained(str(build(tmp_path_factory.mktemp("trainers") / "tiny")))
    found.padding_side = "left"
    return found


def tiny(tokenizer: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **sizes))


def rows() -> Any:
    from datasets import Dataset

    return Dataset.from_list([{"prompt": "a b"}] * 4)


def reward(completions: Any, **_: Any) -> list[float]:
    return [0.0] * len(completions)


def grpo(tokenizer: Any, scratch: str) -> Any:
    from trl import GRPOConfig, GRPOTrainer

    return GRPOTrainer(
        model=tiny(tokenizer), reward_funcs=reward, args=GRPOConfig(scratch, **QUIET), train_dataset=rows(), processing_class=tokenizer
    )


def rloo(tokenizer: Any, scratch: str) -> Any:
    from trl import RLOOConfig, RLOOTrainer

    return RLOOTrainer(
        model=tiny(tokenizer),
        reward_funcs=reward,
        args=RLOOConfig(scratch, beta=0.0, **QUIET),
        train_dataset=rows(),
        processing_class=tokenizer,
    )


def _online(kind: str) -> Callable[[Any, str], Any]:
    def make(tokenizer: Any, scratch: str) -> Any:
        module = importlib.import_module(
            f"trl.experimental.{'online_dpo' if kind == 'OnlineDPO' else 'nash_md' if kind == 'NashMD' else 'xpo'}"
        )
        config, trainer = getattr(module, f"{kind}Config"), getattr(module, f"{kind}Trainer")
        model = tiny(tokenizer)
        more = {} if kind == "OnlineDPO" else {"ref_model": tiny(tokenizer)}
        return trainer(
            model=model,
            reward_funcs=reward,
            args=config(output_dir=scratch, **QUIET),
            train_dataset=rows(),
            processing_class=tokenizer,
            **more,
        )

    return make


def gkd(tokenizer: Any, scratch: str) -> Any:
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    data = Dataset.from_list([{"messages": chat}] * 4)
    args = GKDConfig(output_dir=scratch, **QUIET)
    return GKDTrainer(model=tiny(tokenizer), teacher_model=tiny(tokenizer), args=args, train_dataset=data, processing_class=tokenizer)


QUIET: dict[str, Any] = {"report_to": [], "use_cpu": True, "bf16": False, "per_device_train_batch_size": 8}
TRAINERS: dict[str, Callable[[Any, str], Any]] = {
    "trl-grpo": grpo,
    "trl-rloo": rloo,
    "trl-online-dpo": _online("OnlineDPO"),
    "trl-nash-md": _online("NashMD"),
    "trl-xpo": _online("XPO"),
    "trl-gkd": gkd,
}


@pytest.mark.parametrize("name", TRAINERS)
def test_the_real_trainer_passes_what_the_preset_says(name: str, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = TRAINERS[name](tokenizer, str(tmp_path))
    tokens = SpecialIds(tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id)
    call = apply_preset(
        f"{name}@{installed_version('trl')}", GenerateCall(), Training(tokens=tokens, transformers=installed_version("transformers"))
    )
    assert call.user_config
    real = trainer.generation_config.to_dict()
    for field, setting in call.user_config.items():
        assert real.get(field) == setting.value, field
    given = {field for field, value in real.items() if value is not None and not field.startswith("_") and field != "transformers_version"}
    assert given <= {*call.user_config, "use_cache"}, "the trainer passes nothing that the preset does not know"

"""The real TRL PPOTrainer around the tiny model: its constructor is what changes the generation config."""

from __future__ import annotations

import os
from typing import Any

from llmdoctor.gencfg.live import Loaded


def trl_ppo_policy(loaded: Loaded, **arguments: Any) -> Any:
    """Hand the model to the real TRL PPOTrainer as its policy, and return the policy it then holds (the same object).

    `arguments` go to PPOConfig, such as stop_token="eos". Nothing is trained: the constructor is what changes the config. The reward and
    value models are tiny random ones. Raises ImportError if the installed trl has no PPOTrainer.
    """
    import copy
    import tempfile
    import warnings

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as scratch:
        warnings.simplefilter("ignore")
        config_class, trainer_class = _ppo_classes()
        config = config_class(
            output_dir=scratch,
            report_to=[],
            use_cpu=True,
            bf16=False,
            per_device_train_batch_size=1,
            total_episodes=1,
            num_sample_generations=0,
            **arguments,
        )
        trainer = trainer_class(
            args=config,
            processing_class=loaded.processor.tokenizer,
            model=loaded.model,
            ref_model=copy.deepcopy(loaded.model),
            reward_model=_scorer(loaded),
            value_model=_scorer(loaded),
            train_dataset=[{"input_ids": [0, 1, 2]}],
        )
        return trainer.policy_model


def _ppo_classes() -> tuple[Any, Any]:
    """Return PPOConfig and PPOTrainer of the installed trl. Raises ImportError without a PPOTrainer."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        from trl.experimental.ppo import PPOConfig, PPOTrainer  # 0.26 and later
    except ImportError:
        from trl import PPOConfig, PPOTrainer  # 0.13.0 to 0.25
    return PPOConfig, PPOTrainer


def _scorer(loaded: Loaded) -> Any:
    """Return a random model with one score per token, over the policy's vocabulary."""
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    size = loaded.model.get_input_embeddings().num_embeddings
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    return Qwen2ForSequenceClassification(Qwen2Config(vocab_size=size, num_labels=1, **shape))

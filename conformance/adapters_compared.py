"""PEFT's own adapters and ours under the same recorder: weights, peak and what is held, on fake tensors.

    python conformance/adapters_compared.py            # needs torch, transformers and peft; no GPU

Each case is traced twice: with mem/live/lora.py, and with PEFT's get_peft_model in its place. Prints one line a case; exits 1 if one differs.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from llmdoctor.mem.live import lora as ours
from llmdoctor.mem.options import MemOptions
from llmdoctor.mem.predictor import Predictor
from llmdoctor.mem.workload import Lora

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 4096,
    "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 8000,
}  # fmt: skip
MODELS = {
    "untied": {**LLAMA, "tie_word_embeddings": False},
    "tied": {**LLAMA, "tie_word_embeddings": True},
    "biased": {**LLAMA, "tie_word_embeddings": False, "attention_bias": True},
    "gpt2": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 512, "n_layer": 4, "n_head": 8, "vocab_size": 8000},
}
SAVED = {"modules_to_save": ["embed_tokens", "lm_head"]}
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (model, {**adapter, "r": 16, "target_modules": "all-linear"}, settings)
    for model, adapter in [
        ("untied", {}), ("gpt2", {}), ("untied", SAVED), ("tied", SAVED), ("tied", {"modules_to_save": ["lm_head"]}),
        ("untied", {"modules_to_save": ["norm"]}), ("untied", {"use_dora": True}), ("untied", {"use_dora": True, "lora_dropout": 0.1}),
        ("biased", {"use_dora": True}), ("gpt2", {"use_dora": True}), ("untied", {"use_dora": True, **SAVED}),
    ]
    for settings in [{"bf16": True}, {"bf16": True, "gradient_checkpointing": True}, {"bf16": False}]
]  # fmt: skip


def real(model: Any, lora: Lora, _dtype: str) -> None:
    """Add PEFT's own adapters in place."""
    ours.add_real_adapters(model, lora)


def main() -> int:
    """Trace every case twice and compare."""
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, config in MODELS.items():
            (Path(folder) / name).mkdir()
            (Path(folder) / name / "config.json").write_text(json.dumps(config))
        for model, adapter, settings in CASES:
            path = Path(folder) / "strategy.json"
            init = {"dtype": "bfloat16", "peft_config": {"peft_type": "LORA", **adapter}}
            path.write_text(json.dumps({"optim": "adamw_torch_fused", "per_device_train_batch_size": 2, **settings, "model_init": init}))
            asked = MemOptions(model=str(Path(folder) / model), strategy=(str(path),), seq_len=1024)
            made = []
            for add in (ours.add_adapters, real):
                kept, ours.add_adapters = ours.add_adapters, add
                try:
                    predictor = Predictor(asked)
                    made.append(predictor.estimate(predictor.strategy(str(path))).prediction)
                finally:
                    ours.add_adapters = kept
            peaks, steady = [one.peak.total for one in made], [one.steady.total for one in made]
            errors = (peaks[0] / peaks[1] - 1, steady[0] / steady[1] - 1)
            worst = max(worst, *map(abs, errors))
            rest = {**{key: value for key, value in adapter.items() if key not in ("r", "target_modules")}, **settings}
            print(f"{model:8} {json.dumps(rest):110} peak {peaks[0] / 1e6:8.1f} MB {errors[0]:+.4%}  steady {errors[1]:+.4%}", flush=True)
    print(f"worst {worst:.4%}")
    return int(worst > 0.0005)


if __name__ == "__main__":
    sys.exit(main())

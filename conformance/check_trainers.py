"""Hold the presets of trl's trainers against the real trainers, constructed on a tiny model, in any release of trl.

    PYTHONPATH=/tmp/t/trl-0.24.0:/tmp/t/4.57.6 python conformance/check_trainers.py

runs with the trl and the transformers that are importable, prints a line a trainer, and exits with 1 if a field differs. A release comes from
`pip install --target /tmp/t/trl-0.24.0 --no-deps trl==0.24.0`; a trainer that cannot be constructed there is named with its exception.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.append(str(Path(__file__).resolve().parent.parent))
TRAINERS = {
    "trl-grpo": "GRPO",
    "trl-rloo": "RLOO",
    "trl-online-dpo": "OnlineDPO",
    "trl-nash-md": "NashMD",
    "trl-xpo": "XPO",
    "trl-gkd": "GKD",
}
MODULES = {"OnlineDPO": "online_dpo", "NashMD": "nash_md", "XPO": "xpo", "GKD": "gkd", "GRPO": "grpo", "RLOO": "rloo"}
EOS, PAD, SIZE = 5, 6, 40
TEMPLATE = "{% for m in messages %}{{ m.role + ' ' + m.content + ' </s> ' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"


def main() -> int:
    """Compare every trainer that this release of trl has; return the exit status."""
    import transformers
    import trl

    failed = False
    for preset, kind in TRAINERS.items():
        with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                trainer = made(kind, scratch)
            except Exception as error:
                words = f"not constructed: {type(error).__name__}: {' '.join(str(error).split())[:110]}"
            else:
                words = compared(preset, trainer, trl.__version__, transformers.__version__)
                failed |= words != "agrees"
        print(f"trl {trl.__version__}, transformers {transformers.__version__}, {preset}: {words}", flush=True)
    return int(failed)


def compared(preset: str, trainer: Any, version: str, transformers: str) -> str:
    """Return "agrees", or the first field in which the preset and the trainer's own GenerationConfig differ."""
    from llmdoctor.core.errors import QuestionError
    from llmdoctor.gencfg.trained import SpecialIds, Training, apply_preset
    from llmdoctor.gencfg.types import GenerateCall

    try:
        training = Training(tokens=SpecialIds(EOS, PAD, None), transformers=transformers)
        call = apply_preset(f"{preset}@{version}", GenerateCall(), training)
    except QuestionError as error:
        return f"no preset: {error}"
    real = {name: value for name, value in trainer.generation_config.to_dict().items() if not name.startswith("_")}
    default = type(trainer.generation_config)().to_dict()
    for name, setting in (call.user_config or {}).items():
        if real.get(name) != setting.value:
            return f"{name} is {real.get(name)!r}, the preset has {setting.value!r}"
    given = {name for name, value in real.items() if value is not None and default.get(name) != value and name != "transformers_version"}
    unknown = given - {*(call.user_config or {}), "use_cache"}
    if real.get("eos_token_id") == EOS:  # the ids of the model, which generate() takes from there as well (GKD)
        unknown -= {"eos_token_id"}
    return f"the trainer sets {sorted(unknown)}, which the preset does not have" if unknown else "agrees"


def made(kind: str, scratch: str) -> Any:
    """Return the trainer `kind` of this release on a tiny Llama, with what its constructor asks for."""
    config, trainer = named(f"{kind}Config"), named(f"{kind}Trainer")
    wanted = inspect.signature(trainer.__init__).parameters
    fields = inspect.signature(config.__init__).parameters
    quiet = {
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "per_device_train_batch_size": 8,
        "beta": 0.0 if kind in ("GRPO", "RLOO") else None,
    }
    if kind == "RLOO" and "reward_model_path" in fields:  # up to 0.21 it is built on another class
        raise RuntimeError("RLOO of this release makes its GenerationConfig inside train()")
    args = config(output_dir=scratch, **{name: value for name, value in quiet.items() if name in fields and value is not None})
    chat = [{"role": "user", "content": "w7"}, {"role": "assistant", "content": "w8"}]
    rows = [{"messages": chat}] * 8 if kind == "GKD" else [{"prompt": "w7 w8"}] * 8
    given: dict[str, Any] = {
        "model": model(),
        "args": args,
        "train_dataset": importlib.import_module("datasets").Dataset.from_list(rows),
        "processing_class": tokenizer(),
        "ref_model": model() if kind in ("NashMD", "XPO") else None,
        "teacher_model": model(),
    }
    if "reward_funcs" in wanted:
        given["reward_funcs"] = zero
    elif "judge" in wanted:
        given["judge"] = judge()
    return trainer(**{name: value for name, value in given.items() if name in wanted and value is not None})


def judge() -> Any:
    """Return a judge that prefers the first answer."""

    class First(named("BasePairwiseJudge")):  # type: ignore[misc]
        def judge(self, prompts: list[str], *_: Any, **__: Any) -> list[float]:
            return [0.0 for _ in prompts]

    return First()


def zero(completions: Any, **_: Any) -> list[float]:
    """Reward nothing."""
    return [0.0 for _ in completions]


def named(name: str) -> Any:
    """Return a class of trl, wherever this release has it."""
    import trl

    kind = name.removesuffix("Config").removesuffix("Trainer")
    places = [trl]
    for module in (f"trl.experimental.{MODULES.get(kind, '')}", "trl.experimental.judges", "trl.trainer", "trl.trainer.judges"):
        try:
            places.append(importlib.import_module(module))
        except ImportError:
            continue
    found = next((getattr(place, name) for place in places[::-1] if hasattr(place, name)), None)
    if found is None:
        raise LookupError(f"no {name} in this release")
    return found


def model() -> Any:
    """Return a tiny Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=SIZE, eos_token_id=EOS, pad_token_id=PAD, bos_token_id=None, **sizes))


def tokenizer() -> Any:
    """Return a tokenizer of as many words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [f"w{at}" for at in range(SIZE)]
    words[EOS], words[PAD] = "</s>", "<pad>"
    inner = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>", padding_side="left")
    made.chat_template = TEMPLATE
    return made


if __name__ == "__main__":
    sys.exit(main())

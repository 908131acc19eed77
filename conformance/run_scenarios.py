"""Run scenarios through the transformers that is installed here, and write what was seen.

    python conformance/run_scenarios.py SCENARIOS.json OUT.jsonl

Every scenario is a real from_pretrained(), real assignments and a real generate() on a one-layer Llama whose next token is fixed. The
configuration that the decode loop sees is taken where generate() builds its stopping criteria. This file imports nothing of llmdoctor: it
runs where only torch and one version of transformers are.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
# A static cache makes newer releases compile the forward pass: tens of seconds for nothing that is measured here.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

BASE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 200,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "bos_token_id": 143,
    "eos_token_id": 145,
    "torch_dtype": "float32",
    "transformers_version": "4.41.2",
}
PROMPT = [10, 11, 12, 13]
EMIT = 145
LEAD = 40.0  # the fixed token's logit over the others': greater than any temperature flattens, less than a bias of -100


class Bench:
    """A directory with the tiny model's weights, in which one scenario after another puts its files."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        self.folder = folder
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**{k: v for k, v in BASE.items() if k != "transformers_version"})).save_pretrained(folder)
        self.defaults = library_defaults()

    def row(self, scenario: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """Run one scenario: the oracle's row of it."""
        import transformers

        row: dict[str, Any] = {"version": transformers.__version__, "scenario": scenario, "inputs": inputs}
        inputs = copy.deepcopy(inputs)  # the library writes into dictionaries that it is given
        seen: dict[str, Any] = {}
        with Recorded() as recorded:
            stage = "load"
            try:
                model = self.load(inputs)
                stage = "user_config"
                user = inputs.get("user_gc")
                user = None if user is None else transformers.GenerationConfig(**user)
                stage = "generate"
                row["new_tokens"] = self.generate(model, user, inputs, seen)
            except Exception as error:
                row["error"] = {"stage": stage, "type": type(error).__name__, "msg": str(error)[:300]}
        row["seen"] = {} if "error" in row else seen
        row["warnings"], row["logs"] = recorded.warnings, recorded.logs
        return row

    def load(self, inputs: dict[str, Any]) -> Any:
        """The model, after from_pretrained and the scenario's assignments."""
        from transformers import GenerationConfig, LlamaForCausalLM

        config = {**BASE, **(inputs.get("config") or {})}
        config = {name: value for name, value in config.items() if value != "__DEL__"}
        (self.folder / "config.json").write_text(json.dumps(config))
        generation = self.folder / "generation_config.json"
        generation.unlink(missing_ok=True)
        if inputs.get("gen_json") is not None:
            generation.write_text(json.dumps(inputs["gen_json"]))
        model = LlamaForCausalLM.from_pretrained(str(self.folder))
        model.eval()
        for assignment in inputs.get("mutate") or []:
            exec(assignment, {"model": model, "GenerationConfig": GenerationConfig})
        fix_next_token(model, inputs.get("emit", EMIT))
        return model

    def generate(self, model: Any, user: Any, inputs: dict[str, Any], seen: dict[str, Any]) -> int:
        """Call generate(); `seen` receives the final configuration. Returns the number of new tokens."""
        import torch

        before = type(model)._get_stopping_criteria

        def watched(self: Any, generation_config: Any, *args: Any, **kwargs: Any) -> Any:
            if not seen:
                seen.update(self_seen(generation_config, model))
            return before(self, generation_config, *args, **kwargs)

        self_seen = self.seen
        type(model)._get_stopping_criteria = watched
        kwargs = {name: tokenizer() if value == "__TOKENIZER__" else value for name, value in (inputs.get("kwargs") or {}).items()}
        if user is not None:
            kwargs["generation_config"] = user
        torch.manual_seed(0)
        prompt = torch.tensor([PROMPT])
        try:
            out = model.generate(prompt, attention_mask=torch.ones_like(prompt), **kwargs)
        finally:
            type(model)._get_stopping_criteria = before
        tokens = out if isinstance(out, torch.Tensor) else out.sequences
        return int(tokens.shape[-1]) - len(PROMPT)

    def seen(self, config: Any, model: Any) -> dict[str, Any]:
        """What the decode loop works with: values other than the library's defaults, and the special tokens."""
        values = {name: plain(value) for name, value in vars(config).items() if not name.startswith("_")}
        final = {name: value for name, value in values.items() if name not in self.defaults or not same(value, self.defaults[name])}
        special = {}
        for name in ("bos", "eos", "pad"):
            value = getattr(config, f"_{name}_token_tensor", getattr(config, f"{name}_token_id", None))
            special[name] = plain(value)
        if not hasattr(config, "_eos_token_tensor"):
            special = loop_fallback(special, model)
        if special["eos"] is not None and not isinstance(special["eos"], list):
            special["eos"] = [special["eos"]]
        final.pop("transformers_version", None)
        return {"final": final, "special": special}


def loop_fallback(special: dict[str, Any], model: Any) -> dict[str, Any]:
    """Up to 4.40 the decode loop looks at the model's own configuration for an eos and a pad that are None (utils.py greedy_search)."""
    import transformers

    if tuple(int(part) for part in transformers.__version__.split(".")[:2]) > (4, 40):
        return special
    own = model.generation_config
    return {name: getattr(own, f"{name}_token_id", None) if value is None and name != "bos" else value for name, value in special.items()}


def library_defaults() -> dict[str, Any]:
    """The values that fields have where nobody sets them: GenerationConfig()'s, in 5.x with what generate() fills in."""
    from transformers import GenerationConfig

    values = {name: plain(value) for name, value in vars(GenerationConfig()).items() if not name.startswith("_")}
    late = getattr(GenerationConfig, "_get_default_generation_params", None)
    for name, value in (late() if late else {}).items():
        if values.get(name) is None:
            values[name] = plain(value)
    values.pop("transformers_version", None)
    return values


def fix_next_token(model: Any, emit: int) -> None:
    """Let the language head give one token a lead, whatever the hidden state."""
    head = model.lm_head
    real = head.forward

    def forward(states: Any) -> Any:
        logits = real(states) * 0.0
        logits[..., emit] += LEAD
        return logits

    head.forward = forward


def tokenizer() -> Any:
    """A tokenizer of as many words as the model has ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    # "abcdef": what the library puts before a token to see how it is written (stopping_criteria.py clean_tokenizer_vocab).
    names = [f"w{number}" for number in range(BASE["vocab_size"] - 2)] + ["abcdef", "END"]
    words = {name: number for number, name in enumerate(names)}
    inner = Tokenizer(models.WordLevel(words, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="w1", bos_token="w2", eos_token="w3")


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def same(left: Any, right: Any) -> bool:
    """Equal, and both or neither a bool."""
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


class Recorded(logging.Handler):
    """Collects Python's warnings and the library's log lines while it is open."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings: list[str] = []
        self.logs: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """One log line."""
        try:
            message = record.getMessage()
        except TypeError:  # a line of the library's whose arguments do not fit its format
            message = str(record.msg)
        self.logs.append(f"{record.levelname}: {message}"[:300])

    def __enter__(self) -> Recorded:
        self.catch = warnings.catch_warnings(record=True)
        self.caught = self.catch.__enter__()
        warnings.simplefilter("always")
        logger = logging.getLogger("transformers")
        self.before = logger.handlers[:], logger.propagate
        logger.handlers, logger.propagate = [self], False
        return self

    def __exit__(self, *exception: object) -> None:
        logger = logging.getLogger("transformers")
        logger.handlers, logger.propagate = self.before
        self.catch.__exit__(None, None, None)
        self.warnings = [f"{entry.category.__name__}: {entry.message}"[:300] for entry in self.caught or ()]


def main() -> None:
    """Run them all; the first line of the output holds the library's defaults."""
    import torch

    torch.set_num_threads(1)
    scenarios = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as folder, Path(sys.argv[2]).open("w") as out:
        bench = Bench(Path(folder))
        import transformers

        out.write(json.dumps({"version": transformers.__version__, "defaults": bench.defaults}) + "\n")
        for entry in scenarios:
            out.write(json.dumps(bench.row(entry["scenario"], entry["inputs"])) + "\n")
            out.flush()


if __name__ == "__main__":
    main()

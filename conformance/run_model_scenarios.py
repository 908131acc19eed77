"""Run scenarios against the transformers that is importable here, with real models, and write one row for each.

    python conformance/run_model_scenarios.py conformance/model_scenarios.json ROWS.jsonl [NAME ...]

Runs inside a throw-away environment (conform.py makes it) or in the test-suite's own: torch, safetensors and one transformers. A scenario
writes a model directory, loads it with from_pretrained, applies the mutations and calls generate(). The model is real and tiny; a hook on its
output layer fixes the next token: `emit`, else 60 where that is kept from it. A row says what came out of it; compare_models.py says what of it counts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROMPT_LENGTH = 4
DEFAULT_EMIT = 145
SECOND = 60
TEXT = 300  # characters of a message that a row keeps


def main() -> None:
    scenarios = json.loads(Path(sys.argv[1]).read_text())
    wanted = set(sys.argv[3:])
    with tempfile.TemporaryDirectory() as root, open(sys.argv[2], "w") as out:
        runner = Runner(scenarios["bases"], Path(root))
        for name, inputs in scenarios["scenarios"].items():
            if not wanted or name in wanted:
                row = runner.run(name, inputs)
                if row is not None:
                    out.write(json.dumps(row) + "\n")


class Skip(Exception):
    """The scenario's model does not exist in this version."""


class Runner:
    """Runs scenarios one after the other; weights are made once for each shape of model."""

    def __init__(self, bases: dict[str, dict[str, Any]], root: Path) -> None:
        import torch
        import transformers

        torch.set_num_threads(1)
        self.torch, self.transformers, self.bases, self.root = torch, transformers, bases, root
        self.version: str = transformers.__version__
        self.weights: dict[str, Path] = {}
        self.missing: set[str] = set()

    def run(self, name: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
        """The row of one scenario; None where its model's class does not exist in this version."""
        row: dict[str, Any] = {"version": self.version, "scenario": name, "inputs": inputs}
        if inputs.get("base", "llama") in self.missing:
            return None
        with recorded(row):
            try:
                self._run(name, inputs, row)
            except Skip as skip:
                self.missing.add(inputs.get("base", "llama"))
                print(f"{self.version}: no {skip}", file=sys.stderr)
                return None
        return row

    def _run(self, name: str, inputs: dict[str, Any], row: dict[str, Any]) -> None:
        from transformers import GenerationConfig

        path = self._directory(name, inputs)
        stage = "load"
        try:
            model = self._load(path)
            row["model_gc"] = difference(GenerationConfig, model.generation_config, effective=False)
            row["model_gc_version"] = model.generation_config.transformers_version
            row["from_model_config"] = bool(model.generation_config._from_model_config)
            self._force(model, inputs.get("emit", DEFAULT_EMIT))
            for statement in inputs.get("mutate") or []:
                exec(statement, {"model": model, "GenerationConfig": GenerationConfig})
            arguments = {key: self._argument(value, model) for key, value in (inputs.get("kwargs") or {}).items()}
            if inputs.get("user_gc") is not None:
                stage = "user_gc"
                arguments["generation_config"] = GenerationConfig(**inputs["user_gc"])
            stage = "generate"
            self._generate(model, arguments, inputs.get("prompt_length", PROMPT_LENGTH), row)
        except Skip:
            raise
        except Exception as error:
            row["error"] = {"stage": stage, "type": type(error).__name__, "msg": str(error)[:TEXT], "where": raised_in(error)}

    def _directory(self, name: str, inputs: dict[str, Any]) -> Path:
        path = self.root / name
        path.mkdir()
        config = {**self.bases[inputs.get("base", "llama")], **(inputs.get("config") or {})}
        config = {key: value for key, value in config.items() if value != "__DEL__"}
        (path / "config.json").write_text(json.dumps(config))
        weights = self._weights(inputs.get("base", "llama"), config)
        os.symlink(weights, path / "model.safetensors")
        if inputs.get("gen_json") is not None:
            (path / "generation_config.json").write_text(json.dumps(inputs["gen_json"]))
        return path

    def _class(self, config: dict[str, Any]) -> Any:
        name = config["architectures"][0]
        found = getattr(self.transformers, name, None)
        if found is None or getattr(found, "is_dummy", False) or config["model_type"] not in self.transformers.CONFIG_MAPPING:
            raise Skip(name)
        return found

    def _weights(self, base: str, config: dict[str, Any]) -> Path:
        """A checkpoint of the shape that `config` describes, made with the base's plain configuration."""
        from safetensors.torch import save_file

        key = f"{base}-{config.get('vocab_size')}-{config.get('sliding_window')}"
        if key not in self.weights:
            plain = {**self.bases[base], "vocab_size": config.get("vocab_size", self.bases[base].get("vocab_size"))}
            model_class = self._class(plain)
            config_class = self.transformers.CONFIG_MAPPING[plain["model_type"]]
            try:
                model = model_class(config_class(**{name: value for name, value in plain.items() if value is not None}))
            except Exception as error:
                raise Skip(f"{base}: {type(error).__name__}: {error}") from error
            state = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
            self.weights[key] = self.root / f"{key}.safetensors"
            save_file(state, self.weights[key], metadata={"format": "pt"})
        return self.weights[key]

    def _load(self, path: Path) -> Any:
        config = json.loads((path / "config.json").read_text())
        return self._class(config).from_pretrained(str(path)).eval()

    def _force(self, model: Any, emit: int) -> None:
        """Make `emit` the next token, and SECOND where something keeps it away."""
        torch = self.torch

        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            forced = torch.zeros_like(output)
            forced[..., SECOND] = 25.0
            forced[..., emit] = 50.0
            return forced

        model.get_output_embeddings().register_forward_hook(hook)

    def _argument(self, value: Any, model: Any) -> Any:
        if value == "__TOKENIZER__":
            return tokenizer()
        if value == "__SELF__":
            return model
        return value

    def _generate(self, model: Any, arguments: dict[str, Any], prompt_length: int, row: dict[str, Any]) -> None:
        seen: dict[str, Any] = {}
        row["seen"] = seen
        ids = self.torch.arange(10, 10 + prompt_length).unsqueeze(0)
        self.torch.manual_seed(0)
        with observed(model, seen), self.torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=self.torch.ones_like(ids), **arguments)
        sequences = out.sequences if hasattr(out, "sequences") else out
        new = sequences[0, 1:] if model.config.is_encoder_decoder else sequences[0, prompt_length:]
        row["new_tokens"] = len(new)
        row["head"], row["tail"] = new[:3].tolist(), new[-1:].tolist()


@contextlib.contextmanager
def recorded(row: dict[str, Any]) -> Iterator[None]:
    """Put warnings and warning-level log lines of the generation code into `row`; what the model's own code says is left out."""
    from transformers.utils import logging as library_logging

    logger = library_logging.get_logger("transformers")
    logs: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name.startswith("transformers.generation"):
                with contextlib.suppress(TypeError):  # 4.45 to 4.48 hand over an argument too many
                    logs.append(f"{record.levelname}: {record.getMessage()}"[:TEXT])

    cached = getattr(library_logging.warning_once, "cache_clear", None)
    if cached is not None:
        cached()
    handler = Handler(level=logging.WARNING)
    quiet = logger.handlers[:]
    logger.handlers[:] = [handler]
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        logger.handlers[:] = quiet
    row["warnings"] = [f"{each.category.__name__}: {each.message}"[:TEXT] for each in caught if "generation" in Path(each.filename).parts]
    row["logs"] = logs


@contextlib.contextmanager
def observed(model: Any, seen: dict[str, Any]) -> Iterator[None]:
    """Record what generate() prepares: the config after the lengths and the special tokens, the processors, the criteria."""
    from transformers import GenerationConfig

    def processors(*args: Any, **kwargs: Any) -> Any:
        found = type(model)._get_logits_processor(model, *args, **kwargs)
        if "final" in seen:  # an assistant's own call
            return found
        config = next(value for value in (*args, *kwargs.values()) if isinstance(value, GenerationConfig))
        seen["processors"] = [type(each).__name__ for each in found]
        seen["final"] = difference(GenerationConfig, config)
        seen["special"] = special(model, config)
        return found

    def criteria(*args: Any, **kwargs: Any) -> Any:
        found = type(model)._get_stopping_criteria(model, *args, **kwargs)
        seen.setdefault("criteria", [type(each).__name__ for each in found])
        return found

    model._get_logits_processor, model._get_stopping_criteria = processors, criteria
    try:
        yield
    finally:
        del model._get_logits_processor, model._get_stopping_criteria


def special(model: Any, config: Any) -> dict[str, Any]:
    """The special tokens as the decode loop uses them: up to 4.40 it falls back to the model's."""
    found: dict[str, Any] = {}
    tensors = hasattr(config, "_eos_token_tensor")
    for name in ("bos", "eos", "pad"):
        value = plain(getattr(config, f"_{name}_token_tensor", None) if tensors else getattr(config, f"{name}_token_id", None))
        if value is None and name != "bos" and before_4_41():
            value = plain(getattr(model.generation_config, f"{name}_token_id", None))
            found[f"{name}_from_loop_fallback"] = True
        found[name] = [value] if name == "eos" and value is not None and not isinstance(value, list) else value
    return found


def before_4_41() -> bool:
    import transformers

    return tuple(int(part) for part in transformers.__version__.split(".")[:2]) < (4, 41)


def difference(config_class: Any, config: Any, *, effective: bool = True) -> dict[str, Any]:
    """The fields that differ from the library's defaults, as JSON; `effective`: from those that 5.x's generate() fills in."""
    late = getattr(config_class, "_get_default_generation_params", dict)() if effective else {}
    defaults = {name: late.get(name, value) if value is None else value for name, value in vars(config_class()).items()}
    found = {}
    for name, value in vars(config).items():
        if not name.startswith("_") and name != "transformers_version" and (name not in defaults or plain(value) != plain(defaults[name])):
            found[name] = plain(value)
    return found


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: tensors as lists, objects as their dictionaries or their type's name."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return plain(value.to_dict()) if hasattr(value, "to_dict") else type(value).__name__


def raised_in(error: BaseException) -> str:
    """The library's file that the error came out of, as "generation/utils.py"; "" where it is none of its."""
    where = ""
    trace = error.__traceback__
    while trace is not None:
        parts = Path(trace.tb_frame.f_code.co_filename).parts
        if "transformers" in parts:
            where = "/".join(parts[parts.index("transformers") + 1 :])
        trace = trace.tb_next
    return where


def tokenizer() -> Any:
    """A tokenizer of 200 tokens, one character each: 60 is Z."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = {chr(index + 30) if index > 2 else f"<{index}>": index for index in range(200)}
    inner = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<0>"))
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<0>", eos_token="<1>", pad_token="<2>")


if __name__ == "__main__":
    main()

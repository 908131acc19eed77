"""Write llmdoctor/labels/tokenizer_classes.json: what AutoTokenizer of transformers 5 makes of a directory beside its tokenizer.json.

Usage: python conformance/make_tokenizer_defaults.py          (with the transformers whose defaults are wanted)

`classes`: the special tokens that a class has if no file names them, from the signature of its constructor. `rebuilt`: the normalizer, the
pre_tokenizer and the flags of the model that a class puts in place of those of tokenizer.json, from a tiny tokenizer that was loaded with
it. `types`: the class that is registered for a model type; for those in `corrected` it replaces the class that the files name.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
import transformers.models
from tokenizers import Tokenizer, models
from transformers.models.auto.tokenization_auto import MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS, TOKENIZER_MAPPING_NAMES
from transformers.tokenization_utils_tokenizers import TokenizersBackend

TARGET = Path(__file__).parent.parent / "llmdoctor" / "labels" / "tokenizer_classes.json"
NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


def classes() -> Iterator[tuple[str, type]]:
    """Return the tokenizer classes of all models by name."""
    for package in pkgutil.iter_modules(transformers.models.__path__):
        try:
            module = importlib.import_module(f"transformers.models.{package.name}.tokenization_{package.name}")
        except (ImportError, AttributeError, NameError):  # a package that only some models need
            continue
        for name, kind in vars(module).items():
            if inspect.isclass(kind) and kind.__module__ == module.__name__ and issubclass(kind, transformers.PreTrainedTokenizerBase):
                yield name, kind


def defaults(kind: type) -> dict[str, str]:
    """Return {special token: text} of the class's constructor."""
    parameters = inspect.signature(kind.__init__).parameters
    return {token: parameters[token].default for token in NAMES if token in parameters and isinstance(parameters[token].default, str)}


def rebuilt(kind: type) -> dict[str, Any] | None:
    """Return what the class puts in place of tokenizer.json's own; None if it keeps them, or is not made for a BPE vocabulary."""
    kept = not issubclass(kind, TokenizersBackend) or "__init__" not in kind.__dict__
    if kept or getattr(kind.model, "__name__", None) != "BPE":
        return None
    vocabulary = {token: number for number, token in enumerate(("a", "b", "ab", "<unk>", "<s>", "</s>", "<pad>"))}
    with tempfile.TemporaryDirectory() as folder:
        Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")])).save(f"{folder}/tokenizer.json")
        try:
            value = json.loads(kind.from_pretrained(folder).backend_tokenizer.to_str())
        except TypeError:  # a constructor that needs more than a vocabulary (MarkupLM)
            return None
    flags = {key: flag for key, flag in value["model"].items() if key not in ("vocab", "merges")}
    return {"model": flags, "normalizer": value["normalizer"], "pre_tokenizer": value["pre_tokenizer"]}


if __name__ == "__main__":
    found = dict(sorted(classes()))
    table = {
        "transformers": transformers.__version__,
        "classes": {name: values for name, kind in found.items() if (values := defaults(kind))},
        "rebuilt": {name: parts for name, kind in found.items() if name == kind.__name__ and (parts := rebuilt(kind))},
        "types": {name: kind for name, kind in sorted(TOKENIZER_MAPPING_NAMES.items()) if kind},
        "corrected": sorted(MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS),
    }
    TARGET.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(
        f"{TARGET.name}: {len(table['classes'])} classes of transformers {transformers.__version__}, {len(table['rebuilt'])} rebuild a file"
    )

"""Write llmdoctor/labels/tokenizer_classes.json: the special tokens that a tokenizer class of transformers has if no file names them, and
the model types for which the class that the files name is not used.

Usage: python conformance/make_tokenizer_defaults.py          (with the transformers whose defaults are wanted)

Read from the signatures of the classes' constructors; nothing is loaded.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from pathlib import Path

import transformers
import transformers.models

TARGET = Path(__file__).parent.parent / "llmdoctor" / "labels" / "tokenizer_classes.json"
NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


def defaults() -> dict[str, dict[str, str]]:
    """Return {class name: {special token: text}} of every fast tokenizer class that has a default."""
    found: dict[str, dict[str, str]] = {}
    for package in pkgutil.iter_modules(transformers.models.__path__):
        try:
            module = importlib.import_module(f"transformers.models.{package.name}.tokenization_{package.name}")
        except (ImportError, AttributeError, NameError):  # a package that only some models need
            continue
        for name, kind in vars(module).items():
            if inspect.isclass(kind) and kind.__module__ == module.__name__ and issubclass(kind, transformers.PreTrainedTokenizerBase):
                parameters = inspect.signature(kind.__init__).parameters
                values = {
                    token: parameters[token].default
                    for token in NAMES
                    if token in parameters and isinstance(parameters[token].default, str)
                }
                if values:
                    found[name] = values
    return dict(sorted(found.items()))


def plain_types() -> list[str]:
    """Return the model types for which AutoTokenizer loads tokenizer.json as it is, whatever class the files name."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    return sorted(name for name, kind in TOKENIZER_MAPPING_NAMES.items() if kind == "TokenizersBackend")


if __name__ == "__main__":
    table = {"transformers": transformers.__version__, "classes": defaults(), "plain_types": plain_types()}
    TARGET.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(f"{TARGET.name}: {len(table['classes'])} classes of transformers {transformers.__version__}")

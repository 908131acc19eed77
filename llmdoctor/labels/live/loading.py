"""What transformers changes in tokenizer.json when it loads a directory: the post-processor, the pre-processing of Llama's class, further tokens.

Sources: transformers 4.57.6 models/llama/tokenization_llama_fast.py (and gemma, cohere, gpt_neox, code_llama), tokenization_utils_fast.py;
5.23.0 tokenization_utils_tokenizers.py:456, models/llama/tokenization_llama.py, models/auto/tokenization_auto.py:841.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmdoctor.modeldir.directory import ModelDir
from llmdoctor.modeldir.tokenizer import NAMED, token_text

CLASSES = Path(__file__).parents[1] / "tokenizer_classes.json"  # written by conformance/make_tokenizer_defaults.py
# transformers 4: the classes that write their own post-processor, with the defaults of add_bos_token and add_eos_token.
_ALWAYS = {
    "LlamaTokenizer": (True, False),
    "CodeLlamaTokenizer": (True, False),
    "GemmaTokenizer": (True, False),
    "CohereTokenizer": (True, False),
    "GPTNeoXTokenizer": (False, False),
}


def class_name(directory: ModelDir) -> str:
    """Return tokenizer_class without "Fast"; empty if no file names one."""
    return str(_config(directory).get("tokenizer_class") or "").removesuffix("Fast")


def depends_on_release(directory: ModelDir, data: bytes) -> bool:
    """Return whether transformers 4 and 5 build different tokenizers from the same files: Llama's class over a "▁" vocabulary.

    For some model types (mistral, phi3 ...) transformers 5 does not use the class that tokenizer_config.json names.
    """
    if class_name(directory) != "LlamaTokenizer" or b'"ByteLevel"' in data or b'"BPE"' not in data:
        return False
    plain: list[str] = json.loads(CLASSES.read_bytes())["plain_types"]
    config = directory.config
    return not (config is not None and isinstance(config.value, dict) and config.value.get("model_type") in plain)


def rebuilt(directory: ModelDir, data: bytes, release: int) -> bytes:
    """Return tokenizer.json as transformers `release` (4 or 5) uses it. The data are returned as they are if nothing changes."""
    if release < 5 or not depends_on_release(directory, data):
        return data
    config = _config(directory)
    prefix = config.get("add_prefix_space")
    scheme = "never" if prefix is False else "always" if config.get("legacy", False) else "first"
    value = json.loads(data)
    model = {key: value["model"][key] for key in ("vocab", "merges") if key in value["model"]}
    value["model"] = {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": True, "byte_fallback": True, **model}
    value["normalizer"] = None
    value["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    return json.dumps(value).encode()


def adds(directory: ModelDir, release: int) -> tuple[bool, bool] | None:
    """Return whether a bos and an eos are added to a text; None if the post-processor of tokenizer.json decides.

    transformers 5 does not look at add_bos_token and add_eos_token beside a tokenizer.json (5.23.0 tokenization_utils_base.py:1809).
    """
    config = _config(directory)
    defaults = _ALWAYS.get(class_name(directory))
    if release >= 5 or defaults is None:
        return None
    return bool(config.get("add_bos_token", defaults[0])), bool(config.get("add_eos_token", defaults[1]))


def further_tokens(directory: ModelDir, known: Mapping[str, int], defaults: Mapping[str, str]) -> Iterator[tuple[str, dict[str, bool]]]:
    """Return the tokens that loading appends to the vocabulary, in order, with their flags: tokens that only tokenizer_config.json has.

    `defaults` are the special tokens of the tokenizer's class that no file names.
    """
    decoder = _config(directory).get("added_tokens_decoder")
    entries = decoder.items() if isinstance(decoder, dict) else ()
    seen = set(known)
    for _, entry in sorted(((int(key), value) for key, value in entries if key.isdigit()), key=lambda pair: pair[0]):
        text = token_text(entry)
        if text is not None and text not in seen:
            seen.add(text)
            yield (
                text,
                {
                    name: entry[name]
                    for name in ("lstrip", "rstrip", "single_word", "normalized", "special")
                    if isinstance(entry.get(name), bool)
                },
            )
    for name in NAMED:
        found = directory.tokenizer.special(name)
        token = found.token if found is not None else defaults.get(name)
        if token and token not in seen:
            seen.add(token)
            yield token, {"special": True, "normalized": False}


def _config(directory: ModelDir) -> dict[str, Any]:
    file = directory.tokenizer_config
    return file.value if file is not None and isinstance(file.value, dict) else {}

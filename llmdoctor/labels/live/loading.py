"""What transformers changes in tokenizer.json when it loads a directory: the post-processor, the pre-processing of many classes, further tokens.

Sources: transformers 4.57.6 models/llama/tokenization_llama_fast.py (and gemma, cohere, gpt_neox, code_llama), tokenization_utils_fast.py;
5.23.0 tokenization_utils_tokenizers.py:107 (convert_to_native_format), models/auto/tokenization_auto.py:841.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmdoctor.modeldir.directory import ModelDir
from llmdoctor.modeldir.tokenizer import NAMED, token_text

_CLASSES = Path(__file__).parents[1] / "tokenizer_classes.json"  # written by conformance/make_tokenizer_defaults.py
_PLAIN = "TokenizersBackend"  # transformers 5 uses tokenizer.json as it is
_NOTICES_BYTES = (
    5,
    22,
)  # the first release that sees a Llama class over a byte-level tokenizer.json (5.21.0 and 5.22.0 tokenization_auto.py)
_GENERIC = (_PLAIN, "PythonBackend", "PreTrainedTokenizer", "PreTrainedTokenizerFast", "MistralCommonBackend")
# transformers 4: the classes that write their own post-processor, with the defaults of add_bos_token and add_eos_token.
_ALWAYS = {
    "LlamaTokenizer": (True, False),
    "CodeLlamaTokenizer": (True, False),
    "GemmaTokenizer": (True, False),
    "CohereTokenizer": (True, False),
    "GPTNeoXTokenizer": (False, False),
}


@lru_cache(1)
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_CLASSES.read_bytes())
    return table


def class_defaults(name: str, directory: ModelDir) -> dict[str, str]:
    """Return the special tokens that a class has if no file names them, a null in tokenizer_config.json excepted."""
    found: dict[str, str] = _table()["classes"].get(name, {})
    return {token: text for token, text in found.items() if token not in _config(directory)}


def named_class(directory: ModelDir) -> str:
    """Return the tokenizer_class of tokenizer_config.json, else of config.json, without "Fast"; empty if no file names one."""
    name = _config(directory).get("tokenizer_class") or _model(directory).get("tokenizer_class")
    return str(name or "").removesuffix("Fast")


def loaded_class(directory: ModelDir, data: bytes, release: tuple[int, ...] = (5,)) -> str:
    """Return the class that AutoTokenizer of transformers 5 loads, from the files and config.json's model_type (5.23.0 tokenization_auto.py:841).

    `release` (5,) is the newest; before 5.22 a byte-level tokenizer.json of class Llama gets Llama's own pre-processing.
    mistral-common is taken as missing, so its models load tokenizer.json as it is.
    """
    table, named = _table(), named_class(directory)
    kind = str(_model(directory).get("model_type") or "")
    registered = str(table["types"].get(kind) or "").removesuffix("Fast")
    corrected = kind in table["corrected"]
    notices = release == (5,) or release >= _NOTICES_BYTES
    if notices and named == "LlamaTokenizer" and not corrected and registered != "MistralCommonBackend" and b'"ByteLevel"' in data:
        return _PLAIN
    chosen = named or registered
    if named and registered and named != registered:
        chosen = _PLAIN if registered in _GENERIC else registered if corrected else named
    return _PLAIN if chosen in _GENERIC or not chosen else chosen


def rebuilt(directory: ModelDir, data: bytes, release: tuple[int, ...] = (5,)) -> bytes:
    """Return tokenizer.json as transformers 5 uses it: a class with a constructor of its own keeps the vocabulary, the merges and the
    post-processor, and puts its own normalizer and pre_tokenizer in place of the file's. The data are returned if nothing changes.
    """
    parts = _table()["rebuilt"].get(loaded_class(directory, data, release))
    if parts is None:
        return data
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # the tokenizers package gives the reason
        return data
    if not isinstance(value, dict) or not isinstance(value.get("model"), dict) or value["model"].get("type", "BPE") != "BPE":
        return data
    unk = token_text(_config(directory).get("unk_token"))
    flags = {**parts["model"], "unk_token": unk or parts["model"]["unk_token"]} if parts["model"]["unk_token"] else parts["model"]
    new = {"model": flags, "normalizer": parts["normalizer"], "pre_tokenizer": _prefixed(parts["pre_tokenizer"], _config(directory))}
    if all(_plain(value.get(key)) == _plain(part) for key, part in new.items()):
        return data
    kept = {key: value["model"][key] for key in ("vocab", "merges") if key in value["model"]}
    return json.dumps({**value, **new, "model": {**flags, **kept}}).encode()


def _prefixed(part: Any, config: Mapping[str, Any]) -> Any:
    """Return a pre_tokenizer of the table with the blank in front of a text that add_prefix_space and legacy ask for."""
    prefix = config.get("add_prefix_space")
    if not isinstance(part, dict):
        return part
    if part["type"] == "Sequence":
        return {**part, "pretokenizers": [_prefixed(one, config) for one in part["pretokenizers"]]}
    if part["type"] == "ByteLevel" and isinstance(prefix, bool):
        return {**part, "add_prefix_space": prefix}
    if part["type"] == "Metaspace" and part["prepend_scheme"] == "first":
        return {**part, "prepend_scheme": "never" if prefix is False else "always" if config.get("legacy", False) else "first"}
    return part


def _plain(part: Any) -> Any:
    """Return a part of tokenizer.json without what changes no id: offsets, the vocabulary, and what is null, empty or false."""
    if isinstance(part, list):
        return [_plain(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        key: _plain(one) for key, one in part.items() if key not in ("vocab", "merges", "trim_offsets") and one not in (None, "", False)
    }


def adds(directory: ModelDir, name: str, release: tuple[int, ...]) -> tuple[bool, bool] | None:
    """Return whether a tokenizer of the class `name` adds a bos and an eos to a text; None if the post-processor of tokenizer.json decides.

    transformers 5 does not look at add_bos_token and add_eos_token beside a tokenizer.json (5.23.0 tokenization_utils_base.py:1809); GPT-NeoX's
    class then writes a post-processor that adds neither (tokenization_gpt_neox.py:148).
    """
    if release >= (5,):
        return (False, False) if name == "GPTNeoXTokenizer" else None
    config = _config(directory)
    defaults = _ALWAYS.get(name)
    if defaults is None:
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


def _model(directory: ModelDir) -> dict[str, Any]:
    file = directory.config
    return file.value if file is not None and isinstance(file.value, dict) else {}

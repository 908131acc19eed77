"""The prompt that llama.cpp builds from a GGUF file's chat template, and what a Modelfile of Ollama leaves to it.

llama.cpp renders tokenizer.chat_template, removes the template's own bos if it adds one itself, and tokenizes the rest with one bos
(common/chat.cpp common_chat_template_direct_apply, tools/server). The ids come from the model directory's tokenizer; the file must have the same
special tokens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmdoctor.configs.modelfile import parse_modelfile
from llmdoctor.core.errors import QuestionError
from llmdoctor.files.gguf import GgufError, read_metadata
from llmdoctor.files.opening import read_bytes
from llmdoctor.labels.chat import Chat
from llmdoctor.labels.prompts import Prompt
from llmdoctor.modeldir.template import ChatTemplate

_LIMIT = 2**20
# Byte-level vocabularies to which llama.cpp adds a bos if the file does not say (src/llama-vocab.cpp, by tokenizer.ggml.pre).
_ADDS_BOS = {"llama-bpe", "llama3", "llama-v3"}


def gguf_side(chat: Chat, path: str, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> Prompt:
    """Return the chat prompt of llama.cpp. Raises QuestionError if the file has no template or another vocabulary."""
    values = _metadata(path)
    source = values.get("tokenizer.chat_template")
    if not isinstance(source, str):
        raise QuestionError(
            f"{path}: no tokenizer.chat_template in the metadata: llama.cpp falls back to ChatML, compare with template:FILE"
        )
    tokens = values.get("tokenizer.ggml.tokens")
    _refuse_other_vocabulary(chat, path, tokens)
    names = {f"{name}_token": _token(tokens, values.get(f"tokenizer.ggml.{name}_token_id")) for name in ("bos", "eos")}
    template = ChatTemplate("gguf", source, path)
    side = replace(chat, template=template, _prepared={})
    variables = {"enable_thinking": True, **{name: text for name, text in names.items() if text is not None}, **kwargs}
    text = side.render(messages, generation_prompt=True, **variables).text or ""
    bos = names["bos_token"]
    adds = bos is not None and _adds_bos(values, path)
    if adds and bos is not None:
        text = text.removeprefix(bos)
    start = [chat.encoder.token_id(bos)] if adds and bos is not None else []
    ids = [token for token in start if token is not None] + chat.encoder.encode(text, special=False).ids
    return Prompt("", ids, chat.encoder.decode(ids), source, generation_prompt=True, chat=side)


def modelfile_side(chat: Chat, path: str, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> Prompt:
    """Return the prompt of a Modelfile without a TEMPLATE of its own. Raises QuestionError for one with a TEMPLATE, a Go template."""
    data = read_bytes(path, _LIMIT)
    if not isinstance(data, bytes):
        raise QuestionError(f"{path}: no such file" if data is None else f"{path} {data.reason}")
    file = parse_modelfile(data.decode("utf-8", "replace"))
    if file.template is not None:
        raise QuestionError(
            f"{path}: its TEMPLATE is a Go template, which is not rendered here: record the prompt's ids (ollama's debug log) and compare with ids:FILE"
        )
    if re.search(r"^\s*(SYSTEM|MESSAGE)\s", data.decode("utf-8", "replace"), re.IGNORECASE | re.MULTILINE):
        raise QuestionError(
            f"{path}: its SYSTEM or MESSAGE adds messages: write them into the file of --messages, and compare with gguf:FILE"
        )
    base = file.base or ""
    if not base.endswith(".gguf"):
        raise QuestionError(f"{path}: FROM {base or '(nothing)'}: expected a .gguf file beside it")
    return gguf_side(chat, os.path.join(os.path.dirname(path), base), messages, kwargs)


def _metadata(path: str) -> dict[str, Any]:
    try:
        return read_metadata(path)
    except (GgufError, OSError) as error:
        raise QuestionError(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from None


def _token(tokens: Any, number: Any) -> str | None:
    known = isinstance(tokens, list) and isinstance(number, int) and 0 <= number < len(tokens)
    return str(tokens[number]) if known else None


def _adds_bos(values: Mapping[str, Any], path: str) -> bool:
    stored = values.get("tokenizer.ggml.add_bos_token")
    if isinstance(stored, bool):
        return stored
    model = values.get("tokenizer.ggml.model")
    if model == "llama":
        return True
    if model == "gpt2":
        return values.get("tokenizer.ggml.pre") in _ADDS_BOS
    raise QuestionError(f"{path}: whether a bos is added is not known for the vocabulary {model!r} (no tokenizer.ggml.add_bos_token)")


def _refuse_other_vocabulary(chat: Chat, path: str, tokens: Any) -> None:
    for name in ("bos_token", "eos_token"):
        text = chat.encoder.names[name]
        number = None if text is None else chat.encoder.token_id(text)
        if number is not None and _token(tokens, number) != text:
            raise QuestionError(
                f"{path}: token {number} is {_token(tokens, number)!r}, in the model directory {text!r}: another vocabulary"
            )

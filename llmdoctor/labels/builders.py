"""Who builds a prompt, and how: trainers, servers, a template, another directory, recorded ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.opening import read_bytes
from llmdoctor.labels.chat import Chat
from llmdoctor.labels.gguf_side import gguf_side, modelfile_side
from llmdoctor.labels.prompts import Prompt
from llmdoctor.labels.served import sglang_messages, vllm_messages, vllm_tools
from llmdoctor.labels.trainers.base import Task
from llmdoctor.labels.trainers.trl_common import common_prefix
from llmdoctor.labels.types import TrainerError
from llmdoctor.modeldir.template import ChatTemplate, TemplateWorker

_ANSWER = "Wq7answer"
_BEGINNINGS = ("The", "It is", "A", "I", "1", "Yes", "{")  # of other answers: a token that goes on with them is part of the answer
_LIMIT = 16 * 2**20
_LLAMA_FACTORY = {"template", "default_system", "enable_thinking"}


@dataclass(frozen=True, slots=True)
class Builder:
    """A way to build a prompt. `answers` says what it stands for, with the library's file; `build` makes it."""

    answers: str
    build: Callable[[Chat, list[dict[str, Any]], Mapping[str, Any]], Prompt]


def chat_side(chat: Chat, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> Prompt:
    """The chat template with the generation prompt, tokenized without further special tokens."""
    text = chat.render(messages, generation_prompt=True, **kwargs).text or ""
    plain = chat.render(messages, **kwargs).text or ""
    tail = text[len(plain) :] if text.startswith(plain) else ""
    ids = chat.encoder.encode(text, special=False).ids
    return Prompt("", ids, text, _source(chat), generation_prompt=True, tail=tail)


def text_side(chat: Chat, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> Prompt:
    """The rendered text sent as plain text, which is tokenized with the tokenizer's own special tokens."""
    text = chat.render(messages, generation_prompt=True, **kwargs).text or ""
    ids = chat.encoder.encode(text, special=True).ids
    return Prompt("", ids, chat.encoder.decode(ids), _source(chat), True)


def plain_side(chat: Chat, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> Prompt:
    """The chat template without a generation prompt."""
    text = chat.render(messages, **kwargs).text or ""
    return Prompt("", chat.encoder.encode(text, special=False).ids, text, _source(chat), False)


def trained_side(chat: Chat, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> Prompt:
    """What stands before the answer in a training sequence: the ids that are the same whatever the answer begins with.

    A blank that the template writes in front of the answer and that merges with its first word ("[/INST] The") belongs to the answer; one that
    stays alone does too, if the generation prompt ends before it.
    """
    text = chat.render([*messages, {"role": "assistant", "content": _ANSWER}], **kwargs).text or ""
    place = text.rfind(_ANSWER)
    if place < 0:
        raise QuestionError("the chat template does not write the assistant's content, so the training prompt cannot be found")
    encoded = chat.encoder.encode(text, special=False)
    ids = [token for token, (start, _) in zip(encoded.ids, encoded.offsets, strict=True) if start < place]
    for beginning in _BEGINNINGS:
        other = chat.encoder.encode(text[:place] + beginning + text[place + len(_ANSWER) :], special=False).ids
        ids = ids[: common_prefix(ids, other)]
    served = chat.ids(messages, generation_prompt=True, **kwargs)
    if ids[: len(served)] == served and not chat.encoder.decode(ids[len(served) :]).strip():
        ids = served
    before = text[:place]
    shown = before if len(ids) == len(encoded.ids) else before[: encoded.offsets[len(ids) - 1][1]] if ids else ""
    return Prompt("", ids, shown, _source(chat), True)


def vllm_side(chat: Chat, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> Prompt:
    """The chat endpoint of vLLM."""
    return _served(chat, messages, kwargs, "vllm")


def sglang_side(chat: Chat, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> Prompt:
    """The chat endpoint of SGLang."""
    return _served(chat, messages, kwargs, "sglang")


def _served(chat: Chat, messages: list[dict[str, Any]], kwargs: Mapping[str, Any], engine: str) -> Prompt:
    source = _source(chat) or ""
    if engine == "sglang":
        return chat_side(chat, sglang_messages(messages, source), kwargs)
    tools = vllm_tools(kwargs.get("tools"))
    made = chat_side(chat, vllm_messages(messages, source), {**kwargs, "tools": tools} if tools else kwargs)
    if json.dumps(tools) != json.dumps(kwargs.get("tools")):
        return replace(made, limits=("vllm writes each tool as type, name, description, parameters, null for what is missing",))
    return made


def llama_factory_side(chat: Chat, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> Prompt:
    """LLaMA-Factory's own template: every turn tokenized alone."""
    from llmdoctor.labels.trainers.llama_factory_template import Talk, template_of

    for key in kwargs.keys() - _LLAMA_FACTORY:
        raise QuestionError(f"llama-factory: {key} is not modelled, expected one of {', '.join(sorted(_LLAMA_FACTORY))}")
    system = messages[0].get("content") if messages[0].get("role") == "system" else ""
    turns = messages[messages[0].get("role") == "system" :]
    alternate = all(turn["role"] == ("user", "assistant")[number % 2] for number, turn in enumerate(turns)) and len(turns) % 2
    if not alternate or not all(isinstance(turn.get("content"), str) and not turn.get("tool_calls") for turn in turns):
        raise QuestionError(
            "llama-factory: expected texts of user and assistant in turn that end with the user; tool calls are not modelled"
        )
    task = Task(rows=[], config=dict(kwargs), chat=chat, version=())
    talk = Talk([*((str(turn["role"]), str(turn["content"])) for turn in turns), ("assistant", _ANSWER)], str(system))
    pairs = template_of(task).pairs(talk, discard_thoughts=False)
    ids = [token for source, target in pairs[:-1] for token in (*source, *target)] + pairs[-1][0]
    name = kwargs.get("template") or "(parsed from the tokenizer)"
    return Prompt("", ids, chat.encoder.decode(ids), f"LLaMA-Factory template {name}", True)


def _source(chat: Chat) -> str | None:
    return None if chat.template is None else chat.template.source


BUILDERS = {
    "trl-sft": Builder("training: apply_chat_template over the whole conversation (trl sft_trainer.py)", trained_side),
    "trl-dpo": Builder("training: the prompt of a pair, with a generation prompt (trl dpo_trainer.py)", chat_side),
    "trl-grpo": Builder("rollouts: apply_chat_template with a generation prompt (trl grpo_trainer.py)", chat_side),
    "transformers-clm": Builder("training: apply_chat_template over the whole conversation", trained_side),
    "axolotl": Builder("training: the chat_template strategy over the whole conversation (axolotl chat_template.py)", trained_side),
    "unsloth": Builder("training: apply_chat_template over the whole conversation", trained_side),
    "llama-factory": Builder(
        "training: LLaMA-Factory's own template, kwargs {'template': NAME} (llamafactory template.py)", llama_factory_side
    ),
    "transformers": Builder("apply_chat_template(add_generation_prompt=True, tokenize=True)", chat_side),
    "transformers-text": Builder("tokenizer(apply_chat_template(tokenize=False)): special tokens are added again", text_side),
    "transformers-plain": Builder("apply_chat_template() without add_generation_prompt", plain_side),
    "vllm": Builder("the chat endpoint: add_special_tokens is false by default (vllm entrypoints/openai)", vllm_side),
    "vllm-completions": Builder("the completions endpoint with the rendered text: add_special_tokens is true by default", text_side),
    "sglang": Builder("the chat endpoint (sglang srt/entrypoints/openai)", sglang_side),
    "sglang-generate": Builder("/generate with the rendered text: the tokenizer's special tokens are added", text_side),
}


FILE_SIDES = ("template:FILE", "ids:FILE", "model:DIR", "gguf:FILE", "modelfile:FILE")


def build_prompt(chat: Chat, name: str, messages: list[dict[str, Any]], kwargs: Mapping[str, Any], worker: TemplateWorker) -> Prompt:
    """Return the prompt of the builder `name`. Raises QuestionError for an unknown name or a file that cannot be read."""
    kind, colon, argument = name.partition(":")
    try:
        if colon and kind == "template":
            chat = replace(chat, template=ChatTemplate("given", _text(argument), argument), _prepared={})
            return replace(chat_side(chat, messages, kwargs), name=name, chat=chat)
        if colon and kind == "ids":
            return replace(_recorded(chat, name, argument), chat=chat)
        if colon and kind == "model":
            other = _other(chat, argument, worker)
            return replace(chat_side(other, messages, kwargs), name=name, chat=other)
        if colon and kind in ("gguf", "modelfile"):
            build = gguf_side if kind == "gguf" else modelfile_side
            return replace(build(chat, argument, messages, kwargs), name=name)
        if kind not in BUILDERS or colon:
            raise QuestionError(f"{name}: unknown side, expected one of {', '.join((*BUILDERS, *FILE_SIDES))}")
        return replace(BUILDERS[kind].build(chat, messages, kwargs), name=name, chat=chat)
    except TrainerError as error:
        raise QuestionError(f"{name}: the chat template raises {error.kind}: {error.message}") from None


def _other(chat: Chat, folder: str, worker: TemplateWorker) -> Chat:
    from llmdoctor.labels.live.encoder import FastEncoder
    from llmdoctor.modeldir.directory import read_model_dir

    directory = read_model_dir(folder)
    return Chat(
        FastEncoder(directory, chat.encoder.release), directory.chat_template, worker, chat.detail, copies_reasoning=chat.copies_reasoning
    )


def _recorded(chat: Chat, name: str, path: str) -> Prompt:
    value = json_file(path)
    if isinstance(value, dict):
        value = next((value[key] for key in ("prompt_token_ids", "input_ids", "ids") if key in value), None)
    if not isinstance(value, list) or not all(isinstance(token, int) and not isinstance(token, bool) for token in value):
        raise QuestionError(f"{path}: expected a list of token ids, or an object with prompt_token_ids, input_ids or ids")
    return Prompt(name, value, chat.encoder.decode(value))


def _text(path: str) -> str:
    data = read_bytes(path, _LIMIT)
    if not isinstance(data, bytes):
        raise QuestionError(f"{path}: no such file" if data is None else f"{path} {data.reason}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise QuestionError(f"{path}: byte {error.start} is not UTF-8") from None


def json_file(path: str) -> Any:
    """Return the JSON value of a file. Raises QuestionError with the reason."""
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"{path}: not JSON: {error}") from None

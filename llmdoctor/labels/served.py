"""The messages of a request as vLLM and SGLang hand them to the chat template: not always those that the client sent.

Sources: vllm entrypoints/chat_utils.py (`_parse_chat_message_content`, `_postprocess_messages`), sglang srt/parser/jinja_template_utils.py
(`process_content_for_template_format`) and srt/entrypoints/openai/serving_chat.py (`_apply_jinja_template`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from llmdoctor.core.errors import QuestionError

_TEXT = ("text", "input_text", "output_text", "refusal", "thinking")
_CONTENT = r"""\w+(?:\.content|\[['"]content['"]\])"""
# Over templates with single blanks; the length is bounded because a template of "for for for ..." would take quadratic time.
_SET = re.compile(rf"\bset (\w+) ?= ?{_CONTENT}")
_LOOP = re.compile(rf"\bfor [\w, ]{{1,200}}? in (?:({_CONTENT})|(\w+))")


def iterates_content(template: str) -> bool:
    """Return whether the template loops over a message's content: engines then keep it a list of parts ("openai"), else it is one text."""
    text = " ".join(template.split())
    names = set(_SET.findall(text))
    return any(content or name in names for content, name in _LOOP.findall(text))


def vllm_messages(messages: list[dict[str, Any]], template: str) -> list[dict[str, Any]]:
    """Return what vLLM renders: role, content, tool calls with decoded arguments, and `reasoning`; every other key of a message is left out."""
    parts = iterates_content(template)
    out = []
    for message in messages:
        role, content = message.get("role"), _content(message)
        texts = [content] if isinstance(content, str) else [_text(part, "vllm") for part in content or []]
        one: dict[str, Any] = {"role": role, "content": [{"type": "text", "text": text} for text in texts] if parts else "\n".join(texts)}
        if role == "assistant":
            if message.get("tool_calls"):
                one["tool_calls"] = _decoded(message["tool_calls"], strict=False)
            if message.get("reasoning") is not None:
                one["reasoning"] = one["reasoning_content"] = message["reasoning"]
        elif role == "tool":
            one["content"] = "\n".join(texts)
            if "tool_call_id" in message:
                one["tool_call_id"] = message["tool_call_id"]
        one |= {key: message[key] for key in ("name", "task") if isinstance(message.get(key), str)}
        out.append(one)
    return out


def sglang_messages(messages: list[dict[str, Any]], template: str) -> list[dict[str, Any]]:
    """Return what SGLang renders: a null content is empty, a list of parts is one text if the template does not loop over it."""
    parts = iterates_content(template)
    out = []
    for message in messages:
        one = {key: value for key, value in message.items() if value is not None}
        content = _content(message)
        if content is None:
            one["content"] = ""
        elif isinstance(content, list) and not parts:
            one["content"] = " ".join(_text(part, "sglang") for part in content)
        if one.get("role") == "assistant" and one.get("tool_calls"):
            one["tool_calls"] = _decoded(one["tool_calls"], strict=True)
        out.append(one)
    return out


def vllm_tools(tools: Any) -> Any:
    """Return the tools as vLLM's request model writes them: name, description and parameters in this order, null for what is missing."""
    if not isinstance(tools, list) or not all(isinstance(tool, dict) and isinstance(tool.get("function"), dict) for tool in tools):
        return tools
    fields = ("name", "description", "parameters")
    return [
        {"type": "function", **tool, "function": {**{key: tool["function"].get(key) for key in fields}, **tool["function"]}}
        for tool in tools
    ]


def _content(message: Mapping[str, Any]) -> str | list[Any] | None:
    """Return the content of a message. Raises QuestionError for what the request model of no server accepts."""
    content = message.get("content")
    if content is not None and not isinstance(content, str | list):
        raise QuestionError(f"messages: content: expected a text or a list of parts, found {type(content).__name__}")
    return content


def _text(part: Any, engine: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", "text") in _TEXT:
        return str(next((part[key] for key in ("text", "refusal", "thinking") if isinstance(part.get(key), str)), ""))
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise QuestionError(f"{engine}: a part of the type {kind} in a message's content is not modelled: only texts are")


def _decoded(calls: Any, *, strict: bool) -> Any:
    """Return tool calls whose arguments are JSON text as objects. What is no JSON becomes {} (vLLM) or stays as it is (`strict`)."""
    if not isinstance(calls, list):
        return calls
    out = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            out.append(call)
            continue
        given = function.get("arguments")
        try:
            value = json.loads(given) if isinstance(given, str) else given
        except (ValueError, RecursionError):
            value = given if strict else {}
        if not strict and not isinstance(value, dict | list):
            value = {}
        out.append({**call, "function": {**function, "arguments": value}})
    return out

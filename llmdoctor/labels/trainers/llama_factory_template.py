"""LLaMA-Factory's own chat templates: slots of text and special tokens, each turn tokenized alone (0.9.5 data/template.py)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.chat import Chat
from llmdoctor.labels.trainers.base import Task
from llmdoctor.labels.types import TrainerError

_TABLE = Path(__file__).parents[1] / "llama_factory_templates.json"
_NEW_EOS = "<|endoftext|>"
_THOUGHTS = ("<think>\n", "\n</think>\n\n")
Slot = Any  # a text, {"token": NAME} or {"special": "eos_token"}


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation: (role, content) with user and assistant in turn, and the system prompt, "" without one."""

    messages: list[tuple[str, str]]
    system: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template's slots, bound to a tokenizer."""

    chat: Chat
    prefix: list[Slot] = field(default_factory=list)
    system: list[Slot] = field(default_factory=list)
    user: list[Slot] = field(default_factory=list)
    assistant: list[Slot] = field(default_factory=list)
    default_system: str = ""
    efficient_eos: bool = False
    thoughts: tuple[str, str] | None = None  # the words of a reasoning template
    enable_thinking: bool | None = True
    preserve_thinking: bool = False
    fuses_system: bool = False  # the system prompt stands inside the first user turn (Llama2Template)

    @property
    def eos_id(self) -> int:
        """The id of the tokenizer's eos_token."""
        return self.chat.encoder.eos_id or 0

    def pairs(self, talk: Talk, discard_thoughts: bool) -> list[tuple[list[int], list[int]]]:
        """Return (prompt ids, answer ids) for each turn."""
        messages = self._thought_over(talk.messages, discard_thoughts)
        encoded = [self._ids(self._elements(number, role, content, talk.system)) for number, (role, content) in enumerate(messages)]
        if self.thoughts is not None:
            last = len(messages) - 2
            for number in [last] if discard_thoughts else range(0, len(messages), 2):
                self._add_empty_thought(encoded, messages, number)
        return [(encoded[number], encoded[number + 1]) for number in range(0, len(encoded), 2)]

    def _elements(self, number: int, role: str, content: str, system: str) -> list[Slot]:
        system = system or self.default_system
        elements: list[Slot] = []
        if number == 0:
            elements += self.prefix
            if system and self.fuses_system:
                content = str(_filled(self.system, system)[0]) + content
            elif system:
                elements += _filled(self.system, system)
        return elements + _filled(self.user if role == "user" else self.assistant, content)

    def _ids(self, elements: list[Slot]) -> list[int]:
        encoder, out = self.chat.encoder, []
        for slot in elements:
            if isinstance(slot, str):
                out += encoder.encode(slot, special=False).ids if slot else []
            elif "token" in slot:
                out.append(encoder.token_id_or_unknown(slot["token"]) or 0)
            else:
                found = encoder.bos_id if slot["special"] == "bos_token" else encoder.eos_id
                out += [] if found is None else [found]
        return out

    def _thought_over(self, messages: list[tuple[str, str]], discard: bool) -> list[tuple[str, str]]:
        """Return the messages without the thoughts that a reasoning template removes."""
        if self.thoughts is None:
            return messages
        out = list(messages)
        for number in range(1, len(out), 2):
            if self.enable_thinking is False or (discard and number < len(out) - 2):
                out[number] = (out[number][0], self._without_thought(out[number][1]))
        return out

    def _without_thought(self, content: str) -> str:
        first, last = self.thoughts or _THOUGHTS
        return re.sub(f"{re.escape(first)}(.*?){re.escape(last)}", "", content, flags=re.DOTALL).lstrip("\n")

    def _add_empty_thought(self, encoded: list[list[int]], messages: list[tuple[str, str]], number: int) -> None:
        """Put an empty thought before an answer that has none: a target, or (enable_thinking off) part of the prompt."""
        first, last = self.thoughts or _THOUGHTS
        content = messages[number + 1][1]
        if first.strip() in content or last.strip() in content:
            return
        words = self._ids([first + last])
        if not self.enable_thinking:
            encoded[number] = encoded[number] + words
        else:
            encoded[number + 1] = words + encoded[number + 1]


def _filled(slots: list[Slot], content: str) -> list[Slot]:
    return [slot.replace("{{content}}", content, 1) if isinstance(slot, str) else slot for slot in slots]


def template_of(task: Task) -> Template:
    """Return the template that the settings name, or the one parsed from the tokenizer's own. Raises TrainerError for an unknown name."""
    name = task.config.get("template")
    table: dict[str, dict[str, Any]] = json.loads(_TABLE.read_bytes())["templates"]
    if name is None and task.chat.template is not None:
        entry, stops = parsed(task.chat), []
    else:
        if name is not None and name not in table:
            raise TrainerError("ValueError", f"Template {name} does not exist.", "llamafactory data/template.py")
        entry = table[name or "empty"]
        stops = list(entry.get("stop_words") or [])
    if entry.get("efficient_eos") and task.get("train_on_prompt", False):
        raise TrainerError("ValueError", "Current template does not support `train_on_prompt`.", "llamafactory data/template.py:643")
    if entry.get("images") and not task.chat.encoder.has_processor:
        message = (
            f"Processor was not found, please check and update your model file. (The template {name} is made for a model with images.)"
        )
        raise TrainerError("ValueError", message, "llamafactory data/mm_plugin.py:177")
    kind = entry.get("class", "Template")
    if kind not in ("Template", "ReasoningTemplate", "Llama2Template"):
        raise QuestionError(f"template: {name} is a {kind}, which is not modelled")
    _fix_tokens(task.chat, entry, stops)
    return _bound(task, entry, kind)


def _bound(task: Task, entry: dict[str, Any], kind: str) -> Template:
    efficient = bool(entry.get("efficient_eos"))
    content = ["{{content}}"]
    reasoning = kind == "ReasoningTemplate"
    return Template(
        chat=task.chat,
        prefix=entry.get("prefix", []),
        system=entry.get("system", content),
        user=entry.get("user", content),
        assistant=entry.get("assistant", content if efficient else [*content, {"special": "eos_token"}]),
        default_system=task.get("default_system", entry.get("default_system", "")),
        efficient_eos=efficient,
        thoughts=tuple(entry.get("thought_words") or _THOUGHTS) if reasoning else None,
        enable_thinking=task.config.get("enable_thinking", True) if reasoning else entry.get("enable_thinking", True),
        preserve_thinking=bool(task.get("preserve_thinking", False)) if reasoning else bool(entry.get("preserve_thinking", False)),
        fuses_system=kind == "Llama2Template",
    )


def _fix_tokens(chat: Chat, entry: dict[str, Any], stops: list[str]) -> None:
    """Set eos and pad as fix_special_tokens does: the first stop word becomes the eos if the template asks for it; a missing pad is the eos."""
    names = chat.encoder.names
    if entry.get("replace_eos"):
        chat.encoder.add_special(stops[0])
        names["eos_token"] = stops.pop(0)
    if names["eos_token"] is None:
        chat.encoder.add_special(_NEW_EOS)
        names["eos_token"] = _NEW_EOS
    if names["pad_token"] is None:
        names["pad_token"] = names["eos_token"]
    for word in stops:
        chat.encoder.add_special(word)


def parsed(chat: Chat) -> dict[str, Any]:
    """Return slots taken from the tokenizer's chat template by differences of renderings (0.9.5 template.py parse_template)."""
    mark = "{{content}}"
    prefix = chat.encoder.decode(chat.encoder.encode("").ids)

    def rendered(*messages: tuple[str, str], prompt: bool) -> str:
        return (chat.render([{"role": role, "content": content} for role, content in messages], generation_prompt=prompt).text or "")[
            len(prefix) :
        ]

    system = rendered(("system", mark), prompt=False)
    user_empty = rendered(("system", ""), ("user", mark), prompt=True)
    user = rendered(("user", mark), prompt=True)
    assistant = rendered(("user", mark), ("assistant", mark), prompt=False)[len(user) :]
    thinks = "<think>" in assistant
    assistant = assistant.replace("<think>", "").replace("</think>", "").lstrip("\n")
    default = ""
    if len(user) > len(user_empty):
        default = _difference(user_empty, user)
        user = user[len(system.replace(mark, default, 1)) :]
    return {
        "user": [user],
        "assistant": [assistant],
        "system": [system],
        "prefix": [prefix] if prefix else [],
        "default_system": default,
        "class": "ReasoningTemplate" if thinks else "Template",
    }


def _difference(short: str, long: str) -> str:
    place, out = 0, ""
    for character in long:
        if place >= len(short):
            break
        if short[place] == character:
            place += 1
        else:
            out += character
    return out

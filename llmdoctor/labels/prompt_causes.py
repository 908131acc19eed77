"""Why two prompts differ: each cause is a test on the two of them, and names what to change."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from llmdoctor.labels.chat import Chat
from llmdoctor.labels.prompts import Prompt

_DATE = re.compile(r"\b(\d{1,2} [A-Z][a-z]{2,8} \d{4}|\d{4}-\d{2}-\d{2}|[A-Z][a-z]{2,8} \d{1,2},? \d{4})\b")


@dataclass(frozen=True, slots=True)
class PromptCause:
    """A reason, what shows it, and the change that removes it."""

    name: str
    evidence: str
    fix: str | None = None


def causes_of(chat: Chat, left: Prompt, right: Prompt, has_system: bool = False) -> list[PromptCause]:
    """Return the reasons that explain the difference, the most telling first. `has_system`: the messages hold a system turn."""
    if left.ids == right.ids:
        return []
    found = [cause for test in _TESTS if not (has_system and test is _system) and (cause := test(chat, left, right)) is not None]
    return found or [PromptCause("unknown", "the two prompts differ, and no known cause explains it")]


def _bos(chat: Chat, left: Prompt, right: Prompt) -> PromptCause | None:
    bos = chat.encoder.bos_id
    if bos is None:
        return None
    counts = [_leading(prompt.ids, bos) for prompt in (left, right)]
    if counts[0] == counts[1]:
        return None
    more, fewer = (left, right) if counts[0] > counts[1] else (right, left)
    if max(counts) > 1:
        fix = "Send token ids or use the chat endpoint, or tokenize the rendered text with add_special_tokens=False."
        return PromptCause(
            "double bos", f"{more.name} begins with {max(counts)} bos tokens: the template writes one and the tokenizer adds one", fix
        )
    return PromptCause("missing bos", f"{fewer.name} does not begin with the bos token, {more.name} does")


def _leading(ids: list[int], token: int) -> int:
    count = 0
    while count < len(ids) and ids[count] == token:
        count += 1
    return count


def _generation_prompt(_chat: Chat, left: Prompt, right: Prompt) -> PromptCause | None:
    for missing, other in ((left, right), (right, left)):
        rest = other.text[len(missing.text) :] if other.text.startswith(missing.text) else ""
        known = missing.generation_prompt is False and other.generation_prompt
        recorded = missing.generation_prompt is None and rest == other.tail
        if rest and (known or recorded):
            fix = "apply_chat_template(..., add_generation_prompt=True)"
            return PromptCause("missing generation prompt", f"{missing.name} ends before {rest!r}", fix)
    return None


def _thinking(_chat: Chat, left: Prompt, right: Prompt) -> PromptCause | None:
    short, long = sorted((left, right), key=lambda prompt: len(prompt.text))
    rest = long.text[len(short.text) :] if long.text.startswith(short.text) else ""
    if "<think>" not in rest and "</think>" not in rest:
        return None
    return PromptCause(
        "thinking prefix",
        f"{long.name} ends with {rest!r}, {short.name} does not",
        "Use the same enable_thinking on both sides: chat_template_kwargs, or --left-kwargs and --right-kwargs here.",
    )


def _system(_chat: Chat, left: Prompt, right: Prompt) -> PromptCause | None:
    for more, fewer in ((left, right), (right, left)):
        if "system" in more.text and "system" not in fewer.text:
            return PromptCause("system prompt inserted by default", f"{more.name} begins with a system turn that the messages do not hold")
    return None


def _date(_chat: Chat, left: Prompt, right: Prompt) -> PromptCause | None:
    if left.text != right.text and _DATE.sub("", left.text) == _DATE.sub("", right.text):
        dates = [", ".join(_DATE.findall(prompt.text)) or "none" for prompt in (left, right)]
        return PromptCause(
            "date inserted", f"only dates differ: {dates[0]} and {dates[1]}", "Pass a fixed date to the template (date_string)."
        )
    return None


def _whitespace(_chat: Chat, left: Prompt, right: Prompt) -> PromptCause | None:
    if left.text != right.text and "".join(left.text.split()) == "".join(right.text.split()):
        return PromptCause("whitespace", "the texts are equal apart from blanks and line breaks")
    return None


def _truncated(_chat: Chat, left: Prompt, right: Prompt) -> PromptCause | None:
    short, long = sorted((left, right), key=lambda prompt: len(prompt.ids))
    missing = len(long.ids) - len(short.ids)
    if not short.ids or missing < 2:
        return None
    if long.ids[missing:] == short.ids:
        return PromptCause("truncated", f"{short.name} is the end of {long.name}: its first {missing} tokens are missing")
    if long.ids[: len(short.ids)] == short.ids and None in (left.generation_prompt, right.generation_prompt):
        return PromptCause("truncated", f"{short.name} is the beginning of {long.name}: its last {missing} tokens are missing")
    return None


def _tokens(_chat: Chat, left: Prompt, right: Prompt) -> PromptCause | None:
    if left.text == right.text:
        return PromptCause(
            "other tokens for the same text", "the texts are equal and the ids are not: tokens merge differently, or added tokens differ"
        )
    return None


def _template(_chat: Chat, left: Prompt, right: Prompt) -> PromptCause | None:
    if left.template is not None and right.template is not None and left.template != right.template:
        return PromptCause("another template", "the two sides render different chat templates", "Give both sides the same template.")
    return None


_TESTS: tuple[Callable[[Chat, Prompt, Prompt], PromptCause | None], ...] = (
    _bos,
    _generation_prompt,
    _thinking,
    _system,
    _date,
    _whitespace,
    _truncated,
    _template,
    _tokens,
)

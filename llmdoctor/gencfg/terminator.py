"""Which token ends an answer: found by rendering the chat template, not by a token's name.

A user and an assistant message are rendered first: the first special token after the answer ends the turn (gpt-oss ends a last turn
otherwise than an inner one, so this goes first). Where none follows, a further user message is added and the gap before it is read
(Qwen1.5 closes a turn only when another follows; GLM's next header is its terminator).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

QUESTION, ANSWER, FURTHER = "question5417", "answer9230", "further8316"
_LOOKS_SPECIAL = re.compile(r"<[|｜][^<>|｜\s]{1,40}[|｜]>|</?[a-zA-Z_]{1,24}>|\[/?[A-Z_]{1,24}\]")

Messages = list[dict[str, Any]]
Renderer = Callable[[Messages], str | None]  # None: the template could not be rendered with these messages


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Terminator:
    """The token that ends an answer and its id; `token` None: the template ends turns with plain text or does not render."""

    token: str | None
    id: int | None
    reason: str | None = None


def find_terminator(render: Renderer, ids: Mapping[str, int | None], id_of: Callable[[str], int | None]) -> Terminator:
    """What ends an answer. `ids` are the special tokens the files name, `id_of` looks an id up in all they have."""
    for content in (_text, _parts):
        text = render([_say("user", content(QUESTION)), _say("assistant", content(ANSWER))])
        if text is None or ANSWER not in text:
            continue
        token = _first_token(text[text.rfind(ANSWER) + len(ANSWER) :], ids)
        if token is None:
            token = _in_gap(render, content, ids)
        if token is None:
            return Terminator(None, None, "the chat template ends an answer with plain text")
        found = ids.get(token)
        found = id_of(token) if found is None else found
        return Terminator(token, found, None if found is not None else f"no file here gives the id of {token}")
    return Terminator(None, None, "the chat template does not render a question and its answer")


def _in_gap(render: Renderer, content: Callable[[str], Any], ids: Mapping[str, int | None]) -> str | None:
    text = render([_say("user", content(QUESTION)), _say("assistant", content(ANSWER)), _say("user", content(FURTHER))])
    if text is None or ANSWER not in text:
        return None
    gap = text[text.rfind(ANSWER) + len(ANSWER) :].partition(FURTHER)[0]
    return _first_token(gap, ids)


def _first_token(text: str, ids: Iterable[str]) -> str | None:
    """The special token that stands first in `text`, the longest of those that start at the same place."""
    found = [(text.find(token), -len(token), token) for token in ids if token.strip() and token in text]
    shaped = _LOOKS_SPECIAL.search(text)
    if shaped is not None:
        found.append((shaped.start(), -len(shaped.group()), shaped.group()))
    return min(found)[2] if found else None


def _say(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _text(words: str) -> Any:
    return words


def _parts(words: str) -> Any:
    return [{"type": "text", "text": words}]

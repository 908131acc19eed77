"""What the rows' own messages say about the sequences made of them: roles that a template does not know, messages that it drops, no answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmdoctor.labels.chat import Chat
from llmdoctor.labels.counts import Counts
from llmdoctor.labels.types import Row, Sequence

ODD_ROLES = frozenset({"human", "gpt", "chatgpt", "bot", "chatbot", "ai", "bing", "bard", "prompter"})  # of ShareGPT and its relatives
_ANSWERS = ODD_ROLES - {"human", "prompter"} | {"assistant", "model"}


_USUAL = frozenset({"system", "user", "assistant"})


def holds_talk(row: Row) -> bool:
    """Return whether a row is a conversation."""
    return bool(_messages(row.columns))


def remarkable(rows: Iterable[Row]) -> list[Row]:
    """Return the rows whose messages need a look: without those of users, systems and an assistant, in texts without thoughts."""
    return [row for row in rows if not _is_plain(row.columns.get("messages"))]


def _is_plain(talk: Any) -> bool:
    answered = False
    for one in talk if isinstance(talk, list) else ():
        if type(one) is not dict or (role := one.get("role")) not in _USUAL:
            return False
        content = one.get("content")
        if type(content) is not str or "</think>" in content:
            return False
        answered = answered or role == "assistant"
    return answered


def count_talks(counts: Counts, rows: Iterable[Row], sequences: list[Sequence], chat: Chat, *, renders_roles: bool) -> None:
    """Count the rows without an answer and, if the trainer hands the roles to the template as they are, odd roles and dropped messages.

    Messages that are not in the text are looked for if `chat.detail` is on (the first rows of an audit): it decodes every sequence.
    """
    talks = {row.number: talk for row in rows if (talk := _messages(row.columns))}
    if not talks:
        return
    first = {number: one for one in reversed(sequences) for number in one.rows}
    for number, talk in talks.items():
        roles = {role for one in talk if isinstance(role := one.get("role", one.get("from")), str)}
        if (roles <= _USUAL and "assistant" in roles) or number not in first:
            continue
        if roles.isdisjoint(_ANSWERS):
            counts.fault("no_answer", first[number])
        if renders_roles and not ODD_ROLES.isdisjoint(roles):
            counts.fault("odd_role", first[number])
            counts.odd_roles |= ODD_ROLES & roles
    if chat.detail and renders_roles:
        for one in sequences:
            if len(one.rows) == 1 and not one.truncated and _drops(chat, one, talks.get(one.rows[0], ())):
                counts.fault("dropped_message", one)


def _messages(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the messages that are trained on: those of prompt and completion if there are both kinds; none of pairs."""
    if columns.get("chosen") is not None:
        return []
    names = ("prompt", "completion") if columns.get("completion") is not None else ("messages", "conversations")
    talks = [talk for name in names if isinstance(talk := columns.get(name), list)]
    return [one for talk in talks for one in talk if isinstance(one, dict)]


def _drops(chat: Chat, sequence: Sequence, talk: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether no line of a message is in the text, thoughts and the results of tools (which templates rewrite) excepted."""
    text = "".join(chat.encoder.decode(sequence.ids).split())
    for one in talk:
        role, content = one.get("role", one.get("from")), one.get("content", one.get("value"))
        if role in ("tool", "function") or not isinstance(content, str) or "</think>" in content:
            continue
        lines = [_same(chat, line) for line in content.splitlines() if line.strip()]
        if lines and not any(line in text for line in lines):
            return True
    return False


def _same(chat: Chat, line: str) -> str:
    """Return a text as the tokenizer gives it back, without blanks."""
    return "".join(chat.encoder.decode(chat.encoder.encode(line.strip(), special=False).ids).split())

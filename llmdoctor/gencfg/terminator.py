"""The tokens that end an answer or a tool call, and those that can occur inside an answer, found by rendering the chat template.

Several conversations are rendered with markers as their contents: an answer at the end and one that a further user message follows, an
answer with reasoning, one and two tool calls, a tool's result, and the generation prompt. What follows the answer is compared:

- An answer at the end and one inside a conversation close alike (ChatML, Gemma, section markers before the last token): the last token of
  what both have ends the turn; what closes before it can occur inside an answer.
- They close differently (gpt-oss: <|return|> and <|end|>): the token at the end counts, because generation ends there.
- An answer at the end is not closed at all (GLM, early Qwen1.5): the first token between it and the next user message ends the turn. It is
  not known what does if every turn begins with that token (Ling: <role>HUMAN</role>), unless it is the tokenizer's eos.

A token that was seen between the generation prompt and the end of an answer never counts as its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

USER_TEXT, ANSWER, FURTHER, REASON, RESULT = "question5417", "answer9230", "further8316", "reason7045", "result3358"
ARGUMENTS = ("argument4471", "argument6092")
PLAIN_TEXT = "the chat template ends an answer with plain text"
_LOOKS_SPECIAL = re.compile(r"<[|｜][^<>|｜\s]{1,40}[|｜]>|</?[a-zA-Z_]{1,24}>|\[/?[A-Z_]{1,24}\]")
_THINKING = ("<think>", "</think>")  # markers of reasoning, inside an answer whether or not the template writes them
_TOOL = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Look a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string", "description": "The word."}}, "required": ["word"]},
    },
}

TemplateVariables = dict[str, Any]  # the variables of one rendering: messages, add_generation_prompt, tools
Renderer = Callable[[list[TemplateVariables]], list[str | None]]  # None: the template could not be rendered with these messages


@dataclass(frozen=True, slots=True)
class Ending:
    """A token that ends something, with its id, None if no file gives it."""

    token: str
    id: int | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Terminator:
    """The token that ends an answer and its id; `token` is None if the template ends turns with plain text or does not render.

    `reason` is why an id could not be found. `after` are ids that the template writes behind the end of the last turn: stopping there
    is late at worst. `tool` ends a
    tool call (None: the template has none, or the same token ends both). `inside` are ids that can occur inside an answer, by text.
    """

    token: str | None
    id: int | None
    reason: str | None = None
    after: tuple[int, ...] = ()
    tool: Ending | None = None
    inside: Mapping[int, str] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Return whether the template ends an answer with plain text."""
        return self.token is None and self.reason == PLAIN_TEXT

    def ends_at(self, ids: Collection[int]) -> bool:
        """Return whether a call that stops at `ids` stops at the end of an answer."""
        return self.id is not None and self.id in ids

    def ends_late_at(self, ids: Collection[int]) -> bool:
        """Return whether a call that stops at `ids` passes the end of an answer and stops at what the template writes behind it."""
        return not self.ends_at(ids) and any(token in ids for token in self.after)


def find_terminator(
    render: Renderer,
    ids: Mapping[str, int | None],
    id_of: Callable[[str], int | None],
    added: Iterable[str] = (),
    eos: str | None = None,
) -> Terminator:
    """Return what ends an answer.

    `ids` are the special tokens that the files name, `id_of` looks up the id of any token, and `added` are further tokens of the
    tokenizer that are not special (such as <think>). `eos` is the tokenizer's eos_token, None if it has none.
    """
    tokens = {**dict.fromkeys(added), **ids}
    attempts: tuple[tuple[Callable[[str], Any], TemplateVariables], ...] = ((_text, {}), (_parts, {}), (_text, {"tools": []}))
    for content, more in attempts:
        conversations = [{**more, **conversation} for conversation in _conversations(content)]
        texts = dict(zip(_NAMES, render(conversations), strict=True))
        if ANSWER in (texts["answer"] or ""):
            return _Rendered(texts, tokens, frozenset(ids), id_of, eos).terminator()
    return Terminator(None, None, "the chat template does not render a question and its answer")


class _Rendered:
    """The renderings of one template, taken apart."""

    def __init__(
        self,
        texts: Mapping[str, str | None],
        tokens: Mapping[str, int | None],
        special: frozenset[str],
        id_of: Callable[[str], int | None],
        eos: str | None,
    ) -> None:
        self.texts = {name: text or "" for name, text in texts.items()}
        self.special, self.id_of, self.eos = special, id_of, eos
        everything = "\0".join(self.texts.values())  # a tokenizer can have thousands of tokens, of which a template writes ten
        known = sorted((token for token in tokens if token.strip() and token in everything), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, known))) if known else None
        self.inside: set[str] = set(_THINKING)
        self.openers = self._openers()

    def terminator(self) -> Terminator:
        """Return the end of an answer, of a tool call, and what can occur inside."""
        self._look_inside()
        closing, end, after = self._end(_behind(self.texts["answer"], ANSWER), _between(self.texts["inner"], ANSWER, FURTHER))
        self.inside.update(closing)
        if end is None:
            return self._plain()
        if not self._specials(_behind(self.texts["answer"], ANSWER)) and self._opens_each_turn(end) and end != self.eos:
            other = f"{self.eos}, the tokenizer's eos_token" if self.eos is not None else "a token that it does not write"
            readings = f"the chat template closes no answer; either {end}, with which each turn begins, ends one, or {other}"
            return Terminator(None, None, readings, inside=self._inside_ids())
        tool = self._tool_end(end)
        found = self.id_of(end)
        reason = None if found is not None else f"no file here gives the id of {end}"
        if end in self.inside:
            reason = f"{end} ends a turn of the chat template, but it can also occur inside an answer"
        return Terminator(token=end, id=found, reason=reason, after=self._ids(after), tool=tool, inside=self._inside_ids())

    def _plain(self) -> Terminator:
        """Return the answer for a template that closes a turn with no token of the tokenizer: a text that looks like one, or plain text."""
        for text in (_behind(self.texts["answer"], ANSWER), _between(self.texts["inner"], ANSWER, FURTHER)):
            shaped = _LOOKS_SPECIAL.search(text)
            if shaped is not None:
                found = self.id_of(shaped.group())
                reason = None if found is not None else f"no file here gives the id of {shaped.group()}"
                return Terminator(shaped.group(), found, reason, inside=self._inside_ids())
        return Terminator(None, None, PLAIN_TEXT, inside=self._inside_ids())

    def _end(self, final: str, gap: str) -> tuple[list[str], str | None, list[str]]:
        """Return the tokens that close an answer before its end, the token that ends it, and those behind it."""
        last, inner = self._closing(final), self._specials(gap)
        if not last:
            return [], next((token for token in inner if token not in self.inside), None), []
        shared = 0
        while shared < min(len(last), len(inner)) and last[shared] == inner[shared]:
            shared += 1
        if 0 < shared < len(last) and (shared == len(inner) or inner[shared] in self.openers):
            return last[: shared - 1], last[shared - 1], last[shared:]
        if not shared and inner and self.inside - set(_THINKING) and inner[0] not in self.openers:
            self.inside.add(inner[0])  # it ends each message, and an answer can have several (gpt-oss: reasoning, then the reply)
        return last[:-1], last[-1], []

    def _closing(self, text: str) -> list[str]:
        """Return the special tokens behind an answer, without the header of a next turn if the template always adds one."""
        found, inner = self._specials(text), self._specials(self.texts["inner"])
        opener = next((token for token in inner if inner.count(token) > 1), None)  # nothing is closed before the first header
        always = opener in self._specials(_behind(self.texts["plain"], USER_TEXT))[1:]  # Command A: the prompt only adds a section to it
        if self.texts["prompt"] != self.texts["plain"] and not always:
            return found
        header = next((at for at, token in enumerate(found) if at and token == opener), len(found))
        return found[:header]

    def _opens_each_turn(self, token: str) -> bool:
        """Return whether a token is the first of the conversation that comes again, and stands between a question and its answer too."""
        inner = self._specials(self.texts["inner"])
        first = next((each for each in inner if inner.count(each) > 1), None)
        return token == first and token in self._specials(_between(self.texts["answer"], USER_TEXT, ANSWER))

    def _openers(self) -> frozenset[str]:
        """Return the tokens that begin a turn: the first of the generation prompt, and the last one before the user's message."""
        answer, prompted = self.texts["answer"], self.texts["prompted"]
        header = self._specials(prompted[_common(prompted, answer) :])
        before = self._specials(answer.partition(USER_TEXT)[0])
        return frozenset((*header[:1], *before[-1:]))

    def _look_inside(self) -> None:
        """Collect the tokens between the generation prompt and the content of an answer, its reasoning, or its tool calls."""
        for name, mark, prompt in (("answer", ANSWER, "prompt"), ("thinking", ANSWER, "prompt"), ("call", ARGUMENTS[0], "tool_prompt")):
            text, start = self.texts[name], _common(self.texts[name], self.texts[prompt])
            header = self._tokens(self.texts[prompt][_behind_at(self.texts[prompt], USER_TEXT) : start])
            if mark in text and header and self.texts[prompt] != self.texts["plain"]:  # the text has the header of the prompt
                self.inside.update(token for at, token in self._tokens(text) if start < at + len(token) and at < text.rfind(mark))
        reasoned = {token for _, token in self._tokens(self.texts["thinking"].partition(ANSWER)[0])}
        self.inside.update(reasoned - {token for _, token in self._tokens(self.texts["answer"])})
        between = [token for _, token in self._tokens(_between(self.texts["calls"], *ARGUMENTS))]
        if not self.openers & set(between):  # else each call is a message of its own
            self.inside.update(between)
        opened = self.texts["prompt"][_common(self.texts["prompt"], self.texts["plain"]) :]
        self.inside.update(f"</{token[1:]}" for _, token in self._tokens(opened) if self._is_tag(token))

    def _tool_end(self, end: str) -> Ending | None:
        """Return the token that ends a tool call, None if the same token ends an answer, or if it can occur inside one.

        Llama 3.1 ends a call of a built-in tool with another token than a call of a user's tool: that one counts.
        """
        for name in ("call", "builtin"):
            found = self._call_end(self.texts[name])
            if found is not None and found != end:
                return Ending(found, self.id_of(found))
        return None

    def _call_end(self, text: str) -> str | None:
        if ARGUMENTS[0] not in text:
            return None
        closing = self._closing(_behind(text, ARGUMENTS[0]))
        found = closing[-1] if closing and closing[-1] not in self.inside else None
        if found is None:
            gap = self._specials(_between(self.texts["result"], ARGUMENTS[0], RESULT))
            found = next((token for token in gap if token not in self.inside), None)
        behind = [token for _, token in self._tokens(_behind(text, ARGUMENTS[0]))]
        self.inside.update(behind[: behind.index(closing[-1])] if closing else [])
        return found

    def _is_tag(self, token: str) -> bool:
        return token not in self.special and re.fullmatch(r"<\w+>", token) is not None

    def _tokens(self, text: str) -> list[tuple[int, str]]:
        return [] if self._pattern is None else [(found.start(), found.group()) for found in self._pattern.finditer(text)]

    def _specials(self, text: str) -> list[str]:
        return [token for _, token in self._tokens(text) if token in self.special]

    def _ids(self, tokens: Iterable[str]) -> tuple[int, ...]:
        return tuple(found for token in tokens if (found := self.id_of(token)) is not None)

    def _inside_ids(self) -> dict[int, str]:
        return {found: token for token in sorted(self.inside) if (found := self.id_of(token)) is not None}


def _behind(text: str, mark: str) -> str:
    return text[text.rfind(mark) + len(mark) :] if mark in text else ""


def _behind_at(text: str, mark: str) -> int:
    return text.rfind(mark) + len(mark) if mark in text else 0


def _between(text: str, first: str, second: str) -> str:
    return _behind(text, first).partition(second)[0] if first in text and second in _behind(text, first) else ""


def _common(one: str, other: str) -> int:
    """Return the length of the common prefix."""
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length


_NAMES = ("answer", "inner", "plain", "prompt", "tool_prompt", "prompted", "thinking", "call", "calls", "result", "builtin")


def _conversations(content: Callable[[str], Any]) -> list[TemplateVariables]:
    """Return the conversations to render, in the order of _NAMES."""
    user, further = _message("user", content(USER_TEXT)), _message("user", content(FURTHER))
    answer = _message("assistant", content(ANSWER))
    thinking = {**answer, "reasoning_content": REASON, "reasoning": REASON, "thinking": REASON}
    calls = [
        {"id": f"call0000{at}", "type": "function", "function": {"name": "lookup", "arguments": {"word": word}}}
        for at, word in enumerate(ARGUMENTS)
    ]
    result = {"role": "tool", "name": "lookup", "tool_call_id": "call00000", "content": RESULT}
    tools = {"tools": [_TOOL]}
    return [
        {"messages": [user, answer]},
        {"messages": [user, answer, further]},
        {"messages": [user]},
        {"messages": [user], "add_generation_prompt": True},
        {"messages": [user], "add_generation_prompt": True, **tools},
        {"messages": [user, answer], "add_generation_prompt": True},
        {"messages": [user, thinking]},
        {"messages": [user, _message("assistant", "", tool_calls=calls[:1])], **tools},
        {"messages": [user, _message("assistant", "", tool_calls=calls)], **tools},
        {"messages": [user, _message("assistant", "", tool_calls=calls[:1]), result], **tools},
        {"messages": [user, _message("assistant", "", tool_calls=calls[:1])], **tools, "builtin_tools": ["code_interpreter"]},
    ]


def _message(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def _text(words: str) -> Any:
    return words


def _parts(words: str) -> Any:
    return [{"type": "text", "text": words}]

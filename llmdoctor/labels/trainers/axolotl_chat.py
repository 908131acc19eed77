"""axolotl's chat_template strategy: a turn is found by rendering it with a placeholder (0.19.0 prompt_strategies/chat_template.py)."""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.chat import Chat, roles_of
from llmdoctor.labels.trainers.base import Task
from llmdoctor.labels.types import IGNORED, Encoded, Row, Sequence, TrainerError

_ROLES = {"human": "user", "user": "user", "assistant": "assistant", "gpt": "assistant", "system": "system", "tool": "tool"}
_PLACEHOLDERS = ("[[dummy_message]]", "zzdummymessagezz")
_NEAR = 3  # tokens between the content and its end token
_WHERE = "axolotl prompt_strategies/chat_template.py"
Turn = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatStrategy:
    """The settings of one dataset of type chat_template."""

    chat: Chat
    messages: str
    names: Mapping[str, str]  # our key -> the row's key
    roles: Mapping[str, str]
    train: frozenset[str]
    on_eos: str | None
    on_eot: str | None
    eot_ids: frozenset[int]
    all_prompt: bool
    drop_system: bool
    kept: frozenset[str]  # further message keys that the template reads
    kwargs: Mapping[str, Any]

    def sequence(self, row: Row) -> Sequence:
        """Return one row's sequence."""
        turns = self._turns(row.columns)
        if not self.train and not self.on_eos and not self.on_eot:
            return self._last_answer(row, turns)
        tools = _tools(row.columns)
        text = self._text(turns, tools)
        encoded = self.chat.encoder.encode(text, special=False)
        labels = [IGNORED] * len(encoded.ids)
        sources = ["roles_to_train"] * len(encoded.ids)
        ends: dict[str, int] = {}
        for number, turn in enumerate(turns):
            self._label(turns, number, turn=turn, tools=tools, text=text, encoded=encoded, labels=labels, ends=ends)
        for kind, option in (("eot", self.on_eot), ("eos", self.on_eos)):
            if option == "last" and kind in ends:
                labels[ends[kind]] = encoded.ids[ends[kind]]
        roles = roles_of(text, encoded, turns) if self.chat.detail else []
        for place, token in enumerate(encoded.ids):
            if labels[place] != IGNORED:
                sources[place] = "target"
            elif token in self.eot_ids or token == self.chat.encoder.eos_id:
                sources[place] = "train_on_eot" if token in self.eot_ids else "train_on_eos"
            elif self.chat.encoder.is_special(token) and (place and labels[place - 1] != IGNORED):
                sources[place] = "eot_tokens: this token is not one of them"
        return Sequence(list(encoded.ids), labels, sources, roles, rows=(row.number,))

    def _label(
        self, turns: list[Turn], number: int, turn: Turn, tools: Any, text: str, encoded: Encoded, labels: list[int], ends: dict[str, int]
    ) -> None:
        """Mark the targets of one turn in `labels`, and note its end tokens in `ends`."""
        trained = self.all_prompt or turn.get("role") in self.train
        if not trained and self.on_eos != "all" and self.on_eot != "all":
            return
        start, stop = self._found(turns, number, tools, text, encoded)
        if trained and start != -1:
            labels[start:stop] = encoded.ids[start:stop]
        eos = self.chat.encoder.eos_id
        kinds = (("eot", self.eot_ids, self.on_eot), ("eos", frozenset(() if eos is None else (eos,)), self.on_eos))
        for kind, wanted, option in kinds:
            place = _first(encoded.ids, wanted, stop)
            if place == -1 or abs(place - stop) > _NEAR:
                continue
            ends[kind] = place
            if option == "all" or (option == "turn" and trained):
                labels[place] = encoded.ids[place]

    def _found(self, turns: list[Turn], number: int, tools: Any, text: str, encoded: Encoded) -> tuple[int, int]:
        """Return the tokens [start, stop) of a turn's content; (-1, -1) if it is empty or not rendered."""
        spans = []
        for placeholder in _PLACEHOLDERS:
            dummy = {"role": turns[number].get("role"), "content": placeholder}
            spans.append(_difference(text, self._text([*turns[:number], dummy, *turns[number + 1 :]], tools)))
        first, last = min(start for start, _ in spans), max(stop for _, stop in spans)
        if last <= first:
            return -1, -1
        start = bisect_right([stop for _, stop in encoded.offsets], first)
        stop = bisect_left([start for start, _ in encoded.offsets], last)
        return (start, stop) if stop > start else (-1, -1)

    def _last_answer(self, row: Row, turns: list[Turn]) -> Sequence:
        """Everything after the generation prompt of the last turn is a target (the path with roles_to_train and train_on_eos empty)."""
        encoder = self.chat.encoder
        prompt = encoder.encode(self._text(turns[:-1], None, prompt=True), special=False).ids
        text = self._text(turns, None)
        whole = encoder.encode(text, special=False)
        ids = prompt + whole.ids[len(prompt) :]
        roles = roles_of(text, whole, turns)[: len(ids)] if self.chat.detail and len(ids) == len(whole.ids) else []
        one = Sequence(ids, list(ids), ["target"] * len(ids), roles, rows=(row.number,))
        if not self.all_prompt:
            one.mask(0, len(prompt), "the last answer only (roles_to_train is empty)")
        return one

    def _text(self, turns: list[Turn], tools: Any, prompt: bool = False) -> str:
        return self.chat.render(turns, generation_prompt=prompt, tools=tools or None, **self.kwargs).text or ""

    def _turns(self, columns: Mapping[str, Any]) -> list[Turn]:
        messages = columns.get(self.messages)
        if isinstance(messages, str):
            messages = _decoded(messages)
        if not isinstance(messages, list) or not messages:
            raise TrainerError("ValueError", "Messages is null. Please check `field_messages`.", _WHERE)
        turns = [self._turn(message) for message in messages]
        if turns[0].get("role") != "system" and isinstance(columns.get("system"), str):
            turns.insert(0, {"role": "system", "content": columns["system"]})
        return turns[1:] if self.drop_system and turns[0].get("role") == "system" else turns

    def _turn(self, message: Any) -> Turn:
        if not isinstance(message, Mapping) or not isinstance(message.get(self.names.get("role", "role")) or "", str):
            raise QuestionError(f"{self.messages}: expected objects with a role that is a text, found {str(message)[:40]}")
        if isinstance(message.get(self.names.get("content", "content")), list):
            raise QuestionError("messages whose content is a list of parts are not modelled for axolotl")
        turn = {ours: message[theirs] for ours, theirs in self.names.items() if message.get(theirs) is not None}
        if "role" in turn:
            turn["role"] = self.roles.get(turn["role"], turn["role"])
        mapped = set(self.names.values())
        turn.update({key: message[key] for key in self.kept if key not in mapped and message.get(key) is not None})
        return turn


def _first(ids: list[int], wanted: frozenset[int], start: int) -> int:
    """Return the first position from `start` on with a wanted id, else -1. A turn that was not found (-1) begins at the last token, as in Python's
    indexing, and then at the first (chat_template.py find_first_eos_token).
    """
    if start == -1 and ids and ids[-1] in wanted:
        return -1
    return next((at for at in range(max(start, 0), len(ids)) if ids[at] in wanted), -1)


def _difference(full: str, other: str) -> tuple[int, int]:
    """Return the characters [start, stop) of `full` that differ from `other`."""
    limit = min(len(full), len(other))
    start = _same(full, other, limit)
    return start, len(full) - _same(full[::-1], other[::-1], limit - start)


def _same(left: str, right: str, limit: int) -> int:
    return next((place for place in range(limit) if left[place] != right[place]), limit)


def _tools(columns: Mapping[str, Any]) -> Any:
    tools = columns.get("tools")
    return _decoded(tools) if isinstance(tools, str) else tools


def _decoded(text: str) -> Any:
    """Return the value of a column that holds JSON. Raises TrainerError, as axolotl decodes it without a check."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TrainerError(type(error).__name__, str(error), _WHERE) from None


def strategy_of(task: Task, entry: Mapping[str, Any]) -> ChatStrategy:
    """Return the strategy of a dataset entry. Raises TrainerError for end tokens that axolotl refuses."""
    if task.chat.template is None:
        raise TrainerError(
            "ValueError", "the tokenizer has no chat template, and chat_template names none", "axolotl utils/chat_templates/base.py"
        )
    if entry.get("chat_template") not in (None, "tokenizer_default"):
        raise QuestionError("datasets[0].chat_template: not modelled, set chat_template at the top")
    names = entry.get("message_property_mappings") or {"role": "role", "content": "content", "reasoning_content": "reasoning_content"}
    given = entry.get("roles")
    roles = {source: target for target, sources in given.items() for source in sources} if given else _ROLES
    train = entry.get("roles_to_train", ["assistant"]) or []
    on_eos = entry.get("train_on_eos", "turn")
    on_eot = entry.get("train_on_eot") if entry.get("train_on_eot") is not None else on_eos
    return ChatStrategy(
        chat=task.chat,
        messages=entry.get("field_messages", "messages"),
        names=names,
        roles=roles,
        train=frozenset(roles.get(role, role) for role in train),
        on_eos=on_eos,
        on_eot=on_eot,
        eot_ids=_eot_ids(task, on_eos, on_eot),
        all_prompt=bool(task.get("train_on_inputs", False)),
        drop_system=bool(entry.get("drop_system_message", False)),
        kept=_message_keys(task.chat.template.source),
        kwargs=task.get("chat_template_kwargs") or {},
    )


def _eot_ids(task: Task, on_eos: str | None, on_eot: str | None) -> frozenset[int]:
    """Return the ids of eot_tokens that the template writes; without eot_tokens the eos (chat_template.py:376)."""
    encoder, template = task.chat.encoder, task.chat.template
    eos = encoder.names["eos_token"]
    tokens = task.config.get("eot_tokens")
    if tokens is None:
        tokens = [] if eos is None else [eos]
    if list(tokens) != [eos]:
        tokens = [token for token in tokens if template is not None and token in template.source]
        for token in tokens:
            ids = encoder.encode(token, special=False).ids
            if len(ids) != 1:
                raise TrainerError("ValueError", f"EOT token {token!r} is encoded as multiple tokens: {ids}", _WHERE)
        if eos in tokens and on_eos != on_eot:
            raise TrainerError("ValueError", "conflict between train_on_eos and train_on_eot", _WHERE)
    found = (encoder.encode(token, special=False).ids for token in tokens)
    return frozenset(ids[0] for ids in found if len(ids) == 1)


def _message_keys(template: str) -> frozenset[str]:
    """Return the keys that the template reads of a variable named `message` or of `messages` (jinja_template_analyzer.py:319).

    A template that loops over another name keeps none: tool calls then vanish from the text.
    """
    found = re.findall(r"\bmessages?(?:\[[^\]]*\])?(?:\.(\w+)|\[['\"](\w+)['\"]\])", template)
    return frozenset(first or second for first, second in found)

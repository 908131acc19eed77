"""ms-swift's own chat templates: texts and ids around each turn (4.6.0 swift/template/base.py `_swift_encode`, swift/loss_scale/base.py)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.chat import Chat
from llmdoctor.labels.trainers.base import Task
from llmdoctor.labels.types import TrainerError

_TABLE = Path(__file__).parents[1] / "ms_swift_templates.json"
RESPONSE, SUFFIX, PROMPT, OTHER = "response", "suffix", "prompt", "other"
_ROLES = {RESPONSE: "assistant", PROMPT: "user"}
STRATEGIES = ("default", "last_round", "all")
# swift/loss_scale/config: the beginnings of an answer that are not trained
_IGNORED = {
    "ignore_empty_think": (
        r"^<think>\s*</think>\s*",
        r"^<seed:think><seed:cot_budget_reflect>The current thinking budget is 0, so I will directly start answering the question."
        r"</seed:cot_budget_reflect>\n</seed:think>\s*",
        r"^</think>\s*",
        r"^<\|channel>thought\n<channel\|>",
        r"^</mm:think>\s*",
    ),
    "ignore_think_prefix": (r"^<think>\n?",),
}
SwiftSlot = Any  # a text, or a list of ids and of names such as "eos_token_id"


class SwiftDropped(Exception):
    """A row that `strict: false` leaves out, with what was raised."""


@dataclass(slots=True)
class SwiftTurn:
    """A message: `parts` are its contents, several if answers followed each other; `losses` their `loss` keys."""

    role: str
    parts: list[str]
    losses: list[Any]


class SwiftPart(NamedTuple):
    """A part of a conversation: a text or ids, whether it is a target, and whose it is."""

    slot: SwiftSlot
    trained: bool
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SwiftTemplate:
    """A template's slots, bound to a tokenizer, and which parts of a conversation are targets."""

    chat: Chat
    prompt: list[SwiftSlot]
    prefix: list[SwiftSlot] = field(default_factory=list)
    chat_sep: list[SwiftSlot] | None = None
    suffix: list[SwiftSlot] = field(default_factory=list)
    system_prefix: list[SwiftSlot] | None = None
    system_prompt: list[SwiftSlot] | None = None  # the prompt of the last turn, if the system prompt stands there
    default_system: str | None = None
    used: bool = True  # false without a chat template: the texts of a conversation as they are
    adds_bos: bool = False
    stop_words: tuple[str, ...] = ()
    opening: str = ""  # written behind a last question without an answer
    empty_thought: str = ""  # put before answers that do not begin with a thought
    only_after_user: bool = False
    old_thought: str = ""  # in place of a thought that is removed
    keeps_thoughts: bool = True
    own_history: bool = False  # the template keeps thoughts of earlier turns itself
    strategy: str = "default"
    ignored: tuple[tuple[str, ...], ...] = ()  # patterns of beginnings that are not trained, one after the other

    def contexts(self, turns: list[SwiftTurn], system: str | None) -> list[SwiftPart]:
        """Return the parts of a conversation. Raises SwiftDropped for one that ms-swift leaves out."""
        if not self.used:
            system = None
        elif system is not None and self.system_prefix is None and self.system_prompt is None:
            raise SwiftDropped("the template does not support a system prompt")
        else:
            self._think(turns)
            system = self.default_system if system is None else system
        turns = _alternating(turns)
        if len(turns) > 2 and self.chat_sep is None:
            turns = turns[-2:]
        bos, eos = self._added() if self.adds_bos else ([], [])
        found: list[tuple[Any, str]] = [(bos, OTHER)] if bos else []
        above = self.prefix if self.system_prompt is not None or not system else self.system_prefix or []
        found += self._filled(above, system)
        for number in range(0, len(turns), 2):
            found += self._round(turns, number, system, eos)
        if eos:
            found.append((eos, SUFFIX))
        return self._scaled(found, turns)

    def _round(self, turns: list[SwiftTurn], number: int, system: str | None, eos: list[int]) -> list[tuple[Any, str]]:
        query, answer, last = turns[number], turns[number + 1], number == len(turns) - 2
        slots = self.system_prompt if self.system_prompt is not None and last else self.prompt
        found = [(slot, PROMPT) for slot, _ in self._filled(slots, system, "".join(query.parts), number // 2)]
        if not answer.parts:
            return found + ([(self.opening, OTHER)] if self.opening else [])
        found.append((answer, RESPONSE))
        if not last:
            return found + [(slot, OTHER) for slot in self.chat_sep or []]
        ended = bool(eos) or any(answer.parts[-1].endswith(word) for word in self.stop_words)
        return found if ended else found + [(slot, SUFFIX) for slot in self.suffix]

    def _filled(
        self, slots: list[SwiftSlot], system: str | None, query: str | None = None, turn: int | None = None
    ) -> list[tuple[Any, str]]:
        words = {"{{SYSTEM}}": system, "{{QUERY}}": query}
        if turn is not None:
            words |= {"{{ROUND0}}": str(turn), "{{ROUND1}}": str(turn + 1)}
        out: list[tuple[Any, str]] = []
        for slot in slots:
            filled = slot
            for name, text in words.items():
                if isinstance(filled, str) and text is not None:
                    filled = filled.replace(name, text)
            if len(filled):
                out.append((filled, OTHER))
        return out

    def _scaled(self, found: list[tuple[Any, str]], turns: list[SwiftTurn]) -> list[SwiftPart]:
        """Return each part with whether it is a target (swift/loss_scale/base.py LossScale.__call__)."""
        out: list[SwiftPart] = []
        last_user, answers = _last_user(turns), 0
        for part, kind in found:
            last_round = 2 * answers >= last_user
            pieces, losses = (part.parts, part.losses) if kind == RESPONSE else ([part], [None])
            answers += kind == RESPONSE
            trained = self.strategy == "all" or (kind in (RESPONSE, SUFFIX) and (self.strategy == "default" or last_round))
            for piece, loss in zip(pieces, losses, strict=True):
                scaled = self._pieces(piece) if loss or (loss is None and trained) else [(piece, False)]
                out += [SwiftPart(slot, target, _ROLES.get(kind, "")) for slot, target in scaled]
        return out

    def _pieces(self, part: SwiftSlot) -> list[tuple[SwiftSlot, bool]]:
        """Return a target without the beginnings that loss_scale ignores."""
        out: list[tuple[SwiftSlot, bool]] = [(part, True)]
        for patterns in self.ignored:
            out = [
                (piece, trained and kept)
                for text, trained in out
                for piece, kept in (_split(text, patterns) if isinstance(text, str) else [(text, True)])
            ]
        return out

    def _added(self) -> tuple[list[int], list[int]]:
        """Return the ids that the tokenizer adds before and behind a text."""
        whole, alone = self.chat.encoder.encode("a").ids, self.chat.encoder.encode("a", special=False).ids
        if len(alone) != 1:
            raise SwiftDropped("AssertionError: auto_add_bos asks for one token for the text 'a'")
        at = whole.index(alone[0])
        return whole[:at], whole[at + 1 :]

    def _think(self, turns: list[SwiftTurn]) -> None:
        """Put an empty thought before answers without one, and remove earlier thoughts, as the template asks."""
        last_user = _last_user(turns)
        start = last_user if self.strategy == "last_round" and not self.own_history else -1
        for number, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            after_user = number > 0 and turns[number - 1].role == "user"
            wanted = self.empty_thought and number >= start and (after_user or not self.only_after_user)
            if wanted and not turn.parts[0].startswith(("<think>", self.empty_thought)):
                turn.parts[0] = self.empty_thought + turn.parts[0]
            if not self.keeps_thoughts and number < last_user:
                turn.parts[0] = self.old_thought + turn.parts[0].rpartition("</think>")[2].strip()


def _last_user(turns: list[SwiftTurn]) -> int:
    return max((number for number, turn in enumerate(turns) if turn.role == "user"), default=-1)


def _alternating(turns: list[SwiftTurn]) -> list[SwiftTurn]:
    """Return user and assistant in turn: an empty question before a first answer, no answer (no part) behind a last question."""
    if turns and turns[0].role == "assistant":
        turns = [SwiftTurn("user", [""], [None]), *turns]
    if len(turns) % 2:
        turns = [*turns, SwiftTurn("assistant", [], [])]
    if not turns or any(turn.role != ("user", "assistant")[number % 2] for number, turn in enumerate(turns)):
        raise SwiftDropped("AssertionError: user and assistant do not take turns")
    return turns


def _split(text: str, patterns: tuple[str, ...]) -> list[tuple[str, bool]]:
    """Return the pieces of an answer, False for those that a pattern matches (swift/template/utils.py split_str_parts_by)."""
    pieces = [piece for piece in re.split("|".join(f"({pattern})" for pattern in patterns), text, flags=re.DOTALL) if piece]
    return [(piece, not any(re.match(pattern, piece, re.DOTALL) for pattern in patterns)) for piece in pieces] or [(text, True)]


@cache
def _templates() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = json.loads(_TABLE.read_bytes())["templates"]
    return table


def writes_day(name: Any) -> bool:
    """Return whether a template writes the date of the run."""
    return isinstance(name, str) and "{{TODAY}}" in json.dumps(_templates().get(name))


def template_of(task: Task) -> SwiftTemplate:
    """Return the template that the settings name. Raises TrainerError for an unknown one, QuestionError for one that is not modelled."""
    name = task.get("template")
    if name is None:
        raise QuestionError(
            "template: ms-swift chooses it by the model's name, which a directory does not tell: give it in --config (qwen2_5, qwen3, llama3_2 ...)"
        )
    table = _templates()
    if name not in table:
        raise TrainerError("ValueError", f"template_type: '{name}' not in the list of templates", "swift/template/register.py:50")
    entry = table[name]
    if "class" in entry:
        raise QuestionError(f"template: {name} is encoded by {entry['class']}, which is not modelled")
    if task.get("system") is not None and "system_prefix" not in entry and "system_prompt" not in entry:
        message = f"The template does not support `system`, template_type: {name}"
        raise TrainerError("AssertionError", message, "swift/template/template_meta.py")
    return _bound(task, entry)


def _bound(task: Task, entry: dict[str, Any]) -> SwiftTemplate:
    used = bool(task.get("use_chat_template", True))
    thinks, empty = bool(entry.get("is_thinking")), entry.get("non_thinking_prefix", "")
    strategy, ignored = _loss_scale(task, thinks and bool(empty))
    if not used:
        entry = {"prompt": ["{{QUERY}}"], "suffix": [["eos_token_id"]], "auto_add_bos": True, "stop_words": entry.get("stop_words", [])}
    keeps = task.get("preserve_thinking", entry.get("preserve_thinking"))
    if keeps is None:
        keeps = strategy != "last_round" or not (thinks or task.get("enable_thinking", False))
    chat, suffix = task.chat, _with_ids(task.chat, entry.get("suffix"))
    names = chat.encoder.names
    own = [slot.strip() for slot in (suffix or [])[-1:] if isinstance(slot, str)]
    system = task.get("system", entry.get("default_system"))
    return SwiftTemplate(
        chat=chat,
        prompt=_with_ids(chat, entry.get("prompt")) or [],
        prefix=_with_ids(chat, entry.get("prefix")) or [],
        chat_sep=_with_ids(chat, entry.get("chat_sep")),
        suffix=suffix or [],
        system_prefix=_with_ids(chat, entry.get("system_prefix")),
        system_prompt=_with_ids(chat, entry.get("system_prompt")),
        default_system=system.replace("\\n", "\n") if task.get("system") is not None else system,
        used=used,
        adds_bos=bool(entry.get("auto_add_bos")),
        stop_words=tuple(word for word in (*entry.get("stop_words", ()), *own, names["eos_token"]) if word),
        opening=entry.get("thinking_prefix" if task.get("enable_thinking", thinks and not empty) else "non_thinking_prefix", ""),
        empty_thought=empty if task.get("add_non_thinking_prefix", True) else "",
        only_after_user=bool(entry.get("prefix_only_after_user")),
        old_thought=entry.get("history_thinking_prefix", ""),
        keeps_thoughts=bool(keeps),
        own_history=bool(entry.get("preserve_thinking")),
        strategy=strategy,
        ignored=ignored,
    )


def _loss_scale(task: Task, hybrid: bool) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """Return the base strategy, and the patterns of what is ignored; a template that thinks or not ignores empty thoughts by itself."""
    text = task.get("loss_scale", "default")
    if hybrid and not task.get("disable_ignore_empty_think", False) and "ignore_empty_think" not in text:
        text += "+ignore_empty_think"
    names = text.split("+")
    strategy = names.pop(0) if names[0] in STRATEGIES else "default"
    unknown = next((name for name in names if name not in (*_IGNORED, "base")), None)
    if unknown is not None:
        raise QuestionError(f"loss_scale: {unknown} is not modelled, expected {', '.join((*STRATEGIES, *_IGNORED))}")
    return strategy, tuple(_IGNORED[name] for name in names if name != "base")


def _with_ids(chat: Chat, slots: list[SwiftSlot] | None) -> list[SwiftSlot] | None:
    """Return the slots with the ids of the names in them, and the day of today, as at the start of a run."""
    if slots is None:
        return None
    today = date.today().strftime("%d %b %Y")
    ids = {"bos_token_id": chat.encoder.bos_id, "eos_token_id": chat.encoder.eos_id, "pad_token_id": chat.encoder.pad_id}
    out: list[SwiftSlot] = []
    for slot in slots:
        if isinstance(slot, str):
            out.append(slot.replace("{{TODAY}}", today))
            continue
        found = [ids.get(name) if isinstance(name, str) else name for name in slot]
        if None in found:
            raise QuestionError(f"template: it asks for {', '.join(map(str, slot))}, which this tokenizer does not name")
        out.append(found)
    return out

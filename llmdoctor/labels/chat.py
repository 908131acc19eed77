"""A tokenizer with its chat template, as the trainers call them: text to ids, messages to ids, and which tokens the assistant wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.shapes import TalkShapes, places_of, state_of
from llmdoctor.labels.types import Encoded, TrainerError
from llmdoctor.modeldir.template import ChatTemplate, Rendering, TemplateWorker

if TYPE_CHECKING:
    from llmdoctor.labels.live.encoder import FastEncoder

Message = Mapping[str, Any]
# {%- generation -%} in all its spellings (trl 1.16.0 chat_template_utils.py:50, transformers 5.23.0 utils/chat_template_utils.py:737)
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
REASONING = ("reasoning_content", "thinking", "reasoning")  # the names of a message's thoughts
NO_TEMPLATE = "the tokenizer has no chat template"


def copies_reasoning(release: tuple[int, ...]) -> bool:
    """Return whether transformers copies reasoning_content, thinking and reasoning to each other (5.23.0 chat_template_utils.py:679, since 5.21)."""
    return release == (5,) or release[:2] >= (5, 21)


@dataclass
class Chat:
    """`encoder` and `template` (None if the directory has none) with the worker that renders it. `detail` asks for roles.

    `copies_reasoning`: a message's thoughts reach the template under each of their names.
    """

    encoder: FastEncoder
    template: ChatTemplate | None
    worker: TemplateWorker
    detail: bool = True
    copies_reasoning: bool = False
    shapes: TalkShapes = field(default_factory=TalkShapes)
    _prepared: dict[int, tuple[Any, Conversation]] = field(default_factory=dict)
    _masked: bool = False

    def rendered(self, rows: Sequence[Mapping[str, Any]], worker: TemplateWorker, mask: bool = False) -> list[tuple[Any, Rendering]]:
        """Return (messages, rendering) for the `messages` of many rows, rendered in one request, which is several times faster than one by one.

        What does not render is left out, so that `tokenized` meets its error where it belongs. `worker` is not this chat's own: the call may run
        in another thread.
        """
        talks = [
            row["messages"]
            for row in rows
            if isinstance(row.get("messages"), list) and "tools" not in row and "chat_template_kwargs" not in row
        ]
        if self.template is None:
            return []
        given = self._names()
        out: list[tuple[Any, Rendering]] = []
        rest, state = [], state_of(self.template, given)
        for talk in talks:
            made = self.shapes.render(worker, self.template, talk, given, spans=mask, state=state)
            if made is None:
                rest.append(talk)
            else:
                out.append((talk, made))
        if not all(isinstance(one, dict) for talk in rest for one in talk):
            return []  # `tokenized` meets what is no message
        plain = [{"messages": [self._plain(message) for message in talk]} for talk in rest]
        found = worker.render_many(self.template, plain, mask, **given) if plain else []
        return out + [(talk, one) for talk, one in zip(rest, found, strict=True) if one.text is not None]

    def prepare(self, rendered: Sequence[tuple[Any, Rendering]], mask: bool = False) -> None:
        """Tokenize what `rendered` returned; `tokenized` then uses it for the same lists of messages, until the next call."""
        texts = [rendering.text or "" for _, rendering in rendered]
        self._masked = mask
        self._prepared = {}
        encoded = self.encoder.encode_batch(texts, special=False, offsets=self.detail or mask)
        for (talk, rendering), text, one in zip(rendered, texts, encoded, strict=True):
            roles = roles_of(text, one, talk) if self.detail else []
            self._prepared[id(talk)] = (talk, Conversation(text, one.ids, roles, assistant_mask(one, rendering.spans) if mask else None))

    @property
    def has_generation_markers(self) -> bool:
        """Whether the template has a {% generation %} block."""
        return self.template is not None and _GENERATION.search(self.template.source) is not None

    def render(
        self, messages: Sequence[Message], *, generation_prompt: bool = False, tools: Any = None, spans: bool = False, **more: Any
    ) -> Rendering:
        """Return the text of a conversation. Raises TrainerError as apply_chat_template does."""
        template = self._template()
        variables = {**self._names(), "tools": tools, "add_generation_prompt": generation_prompt, **more}
        if not tools and not more:
            made = self.shapes.render(self.worker, template, messages, variables, spans=spans)
            if made is not None:
                return made
        if not isinstance(messages, list | tuple):
            raise QuestionError(f"messages: expected a list of objects with role and content, found {type(messages).__name__}")
        rendering = self.worker.render(template, [self._plain(message) for message in messages], spans, **variables)
        if rendering.text is None:
            raise _error(rendering)
        return rendering

    def _plain(self, message: Message) -> dict[str, Any]:
        """Return a message as the template sees it, without the None values that a table inserts for keys that another row has."""
        if not isinstance(message, dict):
            raise QuestionError(f"messages: expected objects with role and content, found {type(message).__name__}: {str(message)[:40]}")
        plain = {key: value for key, value in message.items() if value is not None}
        thoughts = next((plain[name] for name in REASONING if name in plain), None) if self.copies_reasoning else None
        return plain if thoughts is None else {"thinking": thoughts, **plain, "reasoning_content": thoughts}

    def _names(self) -> dict[str, Any]:
        return {name: token for name, token in self.encoder.names.items() if token is not None}

    def _template(self) -> ChatTemplate:
        if self.template is None:
            raise TrainerError("ValueError", NO_TEMPLATE, "transformers tokenization_utils_base.py get_chat_template")
        return self.template

    def ids(self, messages: Sequence[Message], **options: Any) -> list[int]:
        """Return the ids of a conversation; options are those of `render`."""
        return self.encoder.encode(self.render(messages, **options).text or "", special=False).ids

    def tokenized(self, messages: Sequence[Message], *, mask: bool = False, **options: Any) -> Conversation:
        """Return a conversation's ids with the roles and, with `mask`, the assistant mask of its {% generation %} blocks."""
        ready = self._prepared.get(id(messages))
        if ready is not None and ready[0] is messages and mask == self._masked and not any(options.values()):
            return ready[1]
        rendering = self.render(messages, spans=mask, **options)
        text = rendering.text or ""
        encoded = self.encoder.encode(text, special=False)
        roles = self._roles(text, encoded, messages, options) if self.detail else []
        return Conversation(text, encoded.ids, roles, assistant_mask(encoded, rendering.spans) if mask else None)

    def _roles(self, text: str, encoded: Encoded, messages: Sequence[Message], options: Mapping[str, Any]) -> list[str]:
        """Return whose message each token belongs to: from the places of the contents if the template's shape tells them, else by looking for them."""
        prompt = bool(options.get("generation_prompt"))
        others = {key: value for key, value in options.items() if key != "generation_prompt" and value}
        variables = {**self._names(), "tools": options.get("tools"), "add_generation_prompt": prompt}
        places = None if others else places_of(self.shapes, self._template(), messages, variables)
        if places is None:
            return roles_of(text, encoded, messages)
        roles = [""] * len(encoded.ids)
        starts = [start for start, _ in encoded.offsets]
        for number, start, stop in places:
            _mark(roles, starts, encoded.offsets, (start, stop), str(messages[number]["role"]))
        return roles

    @cached_property
    def end_text(self) -> str | None:
        """The special token that ends an assistant's turn by the template; None if it has none, or cannot be found."""
        return None if self.end_id is None else self.encoder.token_of(self.end_id)

    @cached_property
    def end_id(self) -> int | None:
        """The id of that token: the last special token after an answer that comes before the next user's turn."""
        answer, user_text = "Wq7 answer", "Wq8 question"
        talk = [{"role": "user", "content": "Wq6"}, {"role": "assistant", "content": answer}]
        try:
            alone = self.render(talk).text or ""
            followed = self.render([*talk, {"role": "user", "content": user_text}]).text or alone
        except TrainerError:
            return None
        tail = alone.rpartition(answer)[2]
        other = followed.rpartition(answer)[2].partition(user_text)[0]
        common = next((tail[:count] for count in range(len(tail), 0, -1) if other.startswith(tail[:count])), tail)
        special = [token for token in self.encoder.encode(common, special=False).ids if self.encoder.is_special(token)]
        return special[-1] if special else None


class Conversation(NamedTuple):
    """A rendered conversation: text, ids, the role of each token, and the assistant mask if it was asked for."""

    text: str
    ids: list[int]
    roles: list[str]
    mask: list[int] | None


def assistant_mask(encoded: Encoded, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return 1 for each token of a {% generation %} block (transformers 5.23.0, tokenization_utils_base.py:3190).

    A span whose last character no token starts with runs to the end, as it does there (`end_token + 1 if end_token else len`).
    """
    mask = [0] * len(encoded.ids)
    for start, stop in spans:
        first, last = encoded.token_at(start), encoded.token_at(stop - 1)
        if first is None:
            break
        for place in range(first, last + 1 if last else len(mask)):
            mask[place] = 1
    return mask


def roles_of(text: str, encoded: Encoded, messages: Sequence[Message]) -> list[str]:
    """Return whose message each token belongs to: "system", "user", "assistant" ...; "" for the template's own tokens.

    Contents are looked for in the order of the messages, so a template that drops or rewrites one leaves its tokens without a role.
    """
    roles = [""] * len(encoded.ids)
    starts = [start for start, _ in encoded.offsets]
    cursor = 0
    for message in messages:
        content = message.get("content")
        words = content.strip() if isinstance(content, str) else ""
        at = text.find(words, cursor) if words else -1
        if at < 0 and "</think>" in words:  # a template removes the thought, or writes it in another way
            words = words.rpartition("</think>")[2].strip()
            at = text.find(words, cursor) if words else -1
        if at < 0:
            continue
        cursor = at + len(words)
        _mark(roles, starts, encoded.offsets, (at, cursor), str(message.get("role", "")))
    return roles


def _mark(roles: list[str], starts: list[int], offsets: Sequence[tuple[int, int]], span: tuple[int, int], role: str) -> None:
    """Give the tokens that cover the characters of `span` a role."""
    for place in range(_bisect(starts, span[0]), len(roles)):
        start, stop = offsets[place]
        if start >= span[1]:
            break
        if stop > span[0]:
            roles[place] = role


def _bisect(starts: list[int], character: int) -> int:
    """Return the first token that may reach `character`: one before the first that starts after it."""
    from bisect import bisect_right

    return max(bisect_right(starts, character) - 1, 0)


def _error(rendering: Rendering) -> TrainerError:
    """Return what the library would raise: the template's own exception by its class.

    Raises QuestionError for a limit of this tool's sandbox, which the library does not have.
    """
    if rendering.error == "limit":
        raise QuestionError(f"the chat template cannot be rendered within this tool's limits: {rendering.message}")
    kind, _, message = (rendering.message or "").partition(": ")
    if rendering.error == "raised" and kind:
        return TrainerError(kind, message, "the chat template")
    return TrainerError("TemplateSyntaxError", rendering.message or "", "the chat template")

"""The ids at which a call should stop, as the files give them: one list for every fix of a report, without ids that would end an answer early."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from llmdoctor.gencfg.modelconfig import vocabulary_in
from llmdoctor.gencfg.terminator import Terminator
from llmdoctor.gencfg.types import Resolution
from llmdoctor.modeldir.tokenizer import Tokenizer

_SPECIAL_TEXT = re.compile(r"<.+>|\[[A-Z_0-9|]+\]|\[\|.+\|\]|\|\|\|.+\|\|\||▁?<.+>", re.DOTALL)
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StopIds:
    """The ids that end a sequence, by the tokenizer, the chat template and the size of the vocabulary."""

    tokenizer: Tokenizer
    terminator: Terminator | None
    vocab_size: int | None

    def name(self, token: int) -> str:
        """Return an id with its text: "151645 <|im_end|>"."""
        text = self.tokenizer.text_of(token)
        return str(token) if text is None else f"{token} ({text!r})" if self.is_text(token) else f"{token} {text}"

    def is_text(self, token: int) -> bool:
        """Return whether an id is ordinary text: in the vocabulary, neither added nor named as a special token, and not written like one."""
        if self.tokenizer.token_of(token) is not None or any(named.id == token for named in self.tokenizer.named.values()):
            return False
        text = self.tokenizer.text_of(token)
        return text is not None and (_SPECIAL_TEXT.fullmatch(text) is None or _BYTE.fullmatch(text) is not None)

    def is_inside(self, token: int) -> bool:
        """Return whether the chat template puts a token inside an answer."""
        return self.terminator is not None and token in self.terminator.inside

    def is_outside(self, token: int) -> bool:
        """Return whether the model can never produce an id."""
        return token < 0 or (self.vocab_size is not None and token >= self.vocab_size)

    def ends_early(self, token: int) -> bool:
        """Return whether stopping at an id would cut answers short."""
        return self.is_text(token) or self.is_inside(token)

    @property
    def turn_end(self) -> int | None:
        """The id that ends an answer, None if it is not known or can also occur inside one."""
        end = self.terminator
        return None if end is None or end.id is None or self.is_inside(end.id) else end.id

    @property
    def tool_end(self) -> int | None:
        """The id that ends a tool call, if it differs from that of an answer and cannot occur inside one."""
        tool = self.terminator.tool if self.terminator is not None else None
        return None if tool is None or tool.id is None or self.is_inside(tool.id) else tool.id

    @property
    def tokenizer_eos(self) -> int | None:
        """The id of the tokenizer's eos_token."""
        found = self.tokenizer.special("eos_token")
        return None if found is None else found.id

    def wanted(self, present: Iterable[int] = ()) -> list[int]:
        """Return the ids at which generation should stop: those of `present` that do no harm, then those that are missing.

        An id that can occur inside an answer, that is ordinary text or that is outside the vocabulary is never among them. The order of
        `present` is kept, because generate() pads with the first id if there is no pad_token_id.
        """
        ids = (*present, self.turn_end, self.tokenizer_eos, self.tool_end)
        return list(
            dict.fromkeys(token for token in ids if token is not None and not self.ends_early(token) and not self.is_outside(token))
        )


def stop_ids_of(resolution: Resolution) -> StopIds:
    """Return the ids that end a sequence, as the files of a call's model give them."""
    config = {name: setting.value for name, setting in (resolution.call.config or {}).items()}
    return StopIds(resolution.tokenizer, resolution.terminator, vocabulary_in(config))

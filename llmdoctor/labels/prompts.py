"""A prompt as one side of `prompt diff` builds it."""

from __future__ import annotations

from dataclasses import dataclass

from llmdoctor.labels.chat import Chat


@dataclass(frozen=True, slots=True)
class Prompt:
    """A built prompt: its ids and text, and the template's text if one was rendered.

    `tail` is what the template writes as the generation prompt, "" if that is not known. `limits` are the
    assumptions about the side that could turn the answer.
    """

    name: str
    ids: list[int]
    text: str
    template: str | None = None
    generation_prompt: bool | None = None
    chat: Chat | None = None  # whose tokenizer made the ids
    tail: str = ""
    limits: tuple[str, ...] = ()

    def decode(self, start: int, stop: int | None = None) -> str:
        """Return the text of the ids [start, stop)."""
        return "" if self.chat is None else self.chat.encoder.decode(self.ids[start:stop])

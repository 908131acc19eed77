"""Steps of responses with their top log-probabilities, whatever format they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_LISTS = ("logprobs", "top_logprobs", "top_logprobs_num", "n_probs", "top_n_tokens")  # a request's number of listed tokens
_EXACT = ("sglang", "llama.cpp", "tgi")  # list the n likeliest, the drawn one apart from them


@dataclass(frozen=True, slots=True)
class Listed:
    """One step: the drawn token and its log-probability, and the listed alternatives, likeliest first; `rank` if the engine gives it."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...]
    rank: int | None = None

    def cut(self, count: int) -> Listed:
        """The same step with the `count` likeliest alone."""
        return Listed(self.token, self.logprob, self.top[:count], self.rank)

    @property
    def place(self) -> int | None:
        """The place of the drawn token in the list; None if it is not in it. Of tokens with the same text it is the one as likely as the drawn one."""
        same = [place for place, (token, _) in enumerate(self.top) if token == self.token]
        return min(
            same, key=lambda place: 0.0 if self.top[place][1] == self.logprob else abs(self.top[place][1] - self.logprob), default=None
        )

    @property
    def whole(self) -> bool:
        """Whether what is listed is everything there is."""
        return bool(self.top) and (self.top[-1][1] == -math.inf or sum(math.exp(value) for _, value in self.top) > 1 - 1e-4)


@dataclass(slots=True)
class Responses:
    """Every step of a file's responses, and the requests beside them by line.

    `engine` is the engine that wrote them ("" if unknown), `kind` is "processed" if the format states that every stage was applied ("" if it
    does not), `sizes` the number of steps of each response, `notes` sentences about what was left out.
    """

    path: str
    steps: list[Listed] = field(default_factory=list)
    requests: list[tuple[int, dict[str, Any] | None]] = field(default_factory=list)
    masks: list[tuple[int, ...]] = field(default_factory=list)
    engine: str = ""
    kind: str = ""
    sizes: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def groups(self) -> list[Responses]:
        """Return each response alone."""
        found, start = [], 0
        for size, request in zip(self.sizes, self.requests, strict=True):
            part = slice(start, start + size)
            masks = self.masks[part] if len(self.masks) == len(self.steps) else []
            found.append(
                Responses(
                    path=self.path,
                    steps=self.steps[part],
                    requests=[request],
                    masks=masks,
                    engine=self.engine,
                    kind=self.kind,
                    sizes=[size],
                    notes=self.notes,
                )
            )
            start += size
        return found

    def add(self, other: Responses) -> None:
        """Append the steps of another response."""
        self.steps = self.steps + other.steps
        self.requests = self.requests + other.requests
        self.masks = self.masks + other.masks
        self.sizes = self.sizes + other.sizes

    def likeliest(self, body: Mapping[str, Any] | None) -> list[Listed]:
        """The steps with lists that hold the n likeliest tokens, whichever was drawn.

        vLLM puts the drawn token into its lists besides the n likeliest (v1/sample/sampler.py gather_logprobs), and its chat server then shows
        the first n of them, the drawn one first (_get_top_logprobs); OpenAI's completions have n or n + 1. Taken as they are, such
        a list says that the drawn token is in it, whatever it is. So n is what was asked for, or the shortest list; where the drawn token
        is in every list and no list is longer, it may have pushed out the n-th.
        """
        open_steps = [step for step in self.steps if step.top and not step.whole]
        if not open_steps or self.engine in _EXACT:
            return self.steps
        sizes = [len(step.top) for step in open_steps]
        numbers = [body.get(name) for name in _LISTS] if body is not None else []
        count = min([*sizes, *(number for number in numbers if type(number) is int and number > 0)])
        if max(sizes) == count and all(step.place is not None for step in open_steps):
            count -= 1
        return [step if step.whole else step.cut(count) for step in self.steps]

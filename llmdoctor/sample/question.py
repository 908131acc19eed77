"""What the commands' options say, as the nouns of the job. Everything here raises QuestionError."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmdoctor.core.errors import QuestionError
from llmdoctor.sample.model import Before
from llmdoctor.sample.tables import ENGINES


def parse_ids(text: str | None, option: str) -> tuple[int, ...]:
    """Token ids: 1,2,3; () for None or an empty text."""
    if not text or not text.strip():
        return ()
    try:
        return tuple(int(part) for part in text.strip().removeprefix("[").removesuffix("]").split(",") if part.strip())
    except ValueError:
        raise QuestionError(f"{option} {text[:60]}: expected token ids such as 1,2,3") from None


def parse_before(prompt: str | None, output: str | None) -> Before:
    """The tokens in front of a step."""
    return Before(parse_ids(prompt, "--prompt-tokens"), parse_ids(output, "--output-tokens"))


def parse_bias(text: str | None) -> dict[int, float] | None:
    """ID:BIAS,..."""
    if text is None:
        return None
    found = {}
    for part in text.split(","):
        token, _, bias = part.partition(":")
        try:
            found[int(token)] = float(bias)
        except ValueError:
            raise QuestionError(f"--logit-bias {part[:60]}: expected ID:BIAS, such as 151645:-5") from None
        if math.isnan(found[int(token)]):
            raise QuestionError(f"--logit-bias {part}: the bias is NaN")
    return found


def check_engines(names: Sequence[str] | None) -> tuple[str, ...]:
    """The engines named, each one known."""
    for name in names or ():
        if name not in ENGINES:
            raise QuestionError(f"--engine {name}: expected one of {', '.join(ENGINES)}")
    return tuple(dict.fromkeys(names or ()))

"""What a call leaves to its engine: other readings of a claim, under which its tokens may fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from llmdoctor.sample.claim import Claim
from llmdoctor.sample.judge import Judgement, undecided

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "temperature": (1.0,),
    "top_k": (0, -1),
    "top_p": (1.0,),
    "min_p": (0.0,),
    "repetition_penalty": (1.0,),
}


def other_readings(claim: Claim) -> Iterator[tuple[Claim, str]]:
    """Yield the claim with the engine's own defaults for what it does not set, and with the engine's other orders of stages; each in words.

    A claim is off in what it does not set. The call that it describes is not: llama.cpp draws with top_k 40, top_p .95 and min_p .05 unless a request
    turns them off, transformers with top_k 50.
    """
    if not claim.settings.do_sample or claim.beams > 1:
        return
    unset = {
        name: value
        for name, value in claim.engine.defaults.items()
        if name in _NEUTRAL and value not in _NEUTRAL[name] and name not in claim.inputs.used
    }
    settings = [claim.settings, *([replace(claim.settings, **unset)] if unset else [])]
    named = ", ".join(f"{name} {value:g}" for name, value in unset.items())
    for engine in (claim.engine, *claim.engine.other_orders):
        for one in settings:
            how = f"{engine.label}'s own defaults for what is not set ({named})" if one is not claim.settings else ""
            order = "" if engine is claim.engine else f"the order of {engine.source}"
            if how or order:
                yield replace(claim, engine=engine, settings=one), " and ".join(text for text in (how, order) if text)


def with_other_readings(claim: Claim, verdict: Judgement, again: Callable[[Claim], Judgement]) -> Judgement:
    """Return the verdict, or undecided with both readings if the claim is false as it stands and another reading of it is not.

    `again` judges a claim.
    """
    if verdict.outcome != "inconsistent":
        return verdict
    for other, words in other_readings(claim):
        second = again(other)
        if second.outcome != "inconsistent":
            fits = "the tokens fit" if second.outcome == "consistent" else f"it is not decided ({second.reason})"
            texts = (
                f"with nothing but {claim.words()} the claim is false: {verdict.reason}",
                f"with {words} {fits}; state these settings in the claim (top_k 0, top_p 1, min_p 0 turn them off)",
            )
            return undecided(texts, verdict.deciding, verdict.p_corrected)
    return verdict

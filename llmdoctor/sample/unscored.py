"""Tokens that one side of `sample compare` does not score and writes as 0: what a tool returned, inside an answer."""

from __future__ import annotations

import numpy as np

from llmdoctor.core.text import plural
from llmdoctor.sample.bands import NOISE_LIMIT
from llmdoctor.sample.types import DisagreementCause, Doubles, Ids

_BEYOND_CUT = 3.0  # nats: a cut gives a token probability 1 only if it kept less than 5% of the mass
_FEWEST = 3  # tokens written as 0
_SCORED = 0.25  # the share of the tokens that both sides must score


def unscored(t: Doubles, e: Doubles, places: Ids) -> DisagreementCause | None:
    """Return the cause that one side writes 0 for tokens that it does not score; None if that is not proven.

    `t` and `e` [N] are log-probabilities in nats, `places` [N] the index of each among all tokens. All other tokens must agree, and one of the
    zeros must be a token that no sampling cut makes certain.
    """
    away = np.abs(t - e)
    for name, mine, theirs in (("trainer", t, e), ("engine", e, t)):
        zeros = (mine == 0.0) & (theirs < 0.0)
        count, rest = int(zeros.sum()), away[~zeros]
        if count < _FEWEST or len(rest) < max(_FEWEST, _SCORED * len(t)) or float(rest.mean()) > NOISE_LIMIT:
            continue
        if float(theirs[zeros].min()) > -_BEYOND_CUT:
            continue
        first = ", ".join(str(int(place)) for place in places[zeros][:5])
        evidence = (
            f"{plural(count, 'token')} are exactly 0 on the {name}'s side and {float(theirs[zeros].mean()):.2f} on average on the other one (index "
            f"{first}{', ...' if count > 5 else ''}); the others differ by {float(rest.mean()):.4f}"
        )
        fix = (
            f"These tokens were not drawn from the model (what a tool returned, for example), and the {name} does not score them: pass the "
            "response mask, and leave them out of the loss."
        )
        share = float(away[zeros].sum() / away.sum())
        return DisagreementCause(
            "masked tokens counted", True, share, evidence, fix, tokens=tuple(int(place) for place in places[zeros][:20])
        )
    return None

"""The candidates for what was used, and which of them the tokens do not tell apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmdoctor.sample.claim import Claim
from llmdoctor.sample.entry import SamplingEngine
from llmdoctor.sample.intervals import Interval
from llmdoctor.sample.testing import sorted_settings
from llmdoctor.sample.types import SamplingParams

_AS_LIKELY = 3.0  # nats of likelihood
_SAME_TEMPERATURE = 0.15  # the logarithm of a ratio


@dataclass(frozen=True, slots=True)
class FittedClaim:
    """One candidate: how many tokens it cannot draw, its log-likelihood over all steps, the penalised score, the p-value of the calibration test.

    `law` names a broken sampler, None for settings.
    """

    engine: SamplingEngine
    settings: SamplingParams
    impossible: int
    loglik: float
    score: float
    p_value: float | None
    claimed: bool
    law: str | None = None

    def alike(self, other: FittedClaim) -> bool:
        """Return whether both give the same distribution here (the same likelihood), or the same cuts at nearly the same temperature."""
        if self.loglik == other.loglik and self.impossible == other.impossible:
            return True
        (mine, *cuts), (theirs, *others) = sorted_settings(self.settings), sorted_settings(other.settings)
        same = cuts == others and self.law == other.law and order_of(self.engine) == order_of(other.engine)
        mode = ("do_sample", "suppress_tokens")
        same = same and all(getattr(self.settings, name) == getattr(other.settings, name) for name in mode)
        return same and min(mine, theirs) > 0 and abs(math.log(mine / theirs)) < _SAME_TEMPERATURE

    def words(self) -> str:
        """Return the candidate in words."""
        if self.law is not None:
            return f"a broken sampler: {self.law}"
        named = self.settings.named()
        if named.pop("do_sample", True) is False:
            return f"greedy decoding (the same as top_k 1), {self.engine.name}"
        parts = [f"{name} {value:.4g}" for name, value in named.items() if isinstance(value, int | float)]
        if self.settings.suppress_tokens:
            parts.append(f"token {', '.join(map(str, self.settings.suppress_tokens[:5]))} banned")
        return ", ".join([self.engine.name, *parts])


@dataclass(frozen=True, slots=True)
class Estimates:
    """Intervals by setting, the candidates from the best down, the lead of the first in nats, the broken sampler if that is the first."""

    intervals: dict[str, Interval]
    fits: tuple[FittedClaim, ...]
    margin: float
    law: str | None
    law_gain: float
    claim: Claim

    def near(self, nats: float) -> list[FittedClaim]:
        """Return the candidates that the tokens do not tell from the first, without those that say the same as a better one.

        Such a candidate is within `nats` of the first, or it is as likely and changes as many settings of the claim: the penalty alone, which is
        smaller for a temperature than for a cut, is no reason to name one of the two.
        """
        found: list[FittedClaim] = []
        best = self.fits[0]
        for fit in self.fits:
            as_likely = fit.loglik - best.loglik > -_AS_LIKELY and fit.impossible == best.impossible
            near = fit.score > best.score - nats or (as_likely and self._changes(fit) <= self._changes(best))
            if near and not any(fit.alike(other) for other in found):
                found.append(fit)
        return found

    def _changes(self, fit: FittedClaim) -> int:
        """How many settings of the claim a candidate changes; a broken sampler or greedy decoding is one change."""
        if fit.law is not None or not fit.settings.do_sample:
            return 1
        pairs = zip(sorted_settings(fit.settings), sorted_settings(self.claim.settings), strict=True)
        return sum(mine != claimed for mine, claimed in pairs) + (order_of(fit.engine) != order_of(self.claim.engine))


def order_of(engine: SamplingEngine) -> tuple[bool, bool, bool]:
    """Return what of an engine's order changes a distribution: where the temperature and min_p stand, and what top_p measures."""
    return engine.cuts_after_temperature, engine.min_p_first, engine.nucleus_of_all

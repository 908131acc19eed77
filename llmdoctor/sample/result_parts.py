"""The parts that results of several sample commands share, built for a program."""

from __future__ import annotations

import math
from typing import Any

from llmdoctor.core.report import Status
from llmdoctor.sample.claim import Claim
from llmdoctor.sample.intervals import Interval
from llmdoctor.sample.results import ClaimResult, IntervalResult, TestResult
from llmdoctor.sample.testing import Test

STATUSES: dict[str, Status] = {"consistent": "ok", "inconsistent": "problem", "undecided": "undecided"}


def claim_result(claim: Claim) -> ClaimResult:
    """Return a claim for a program."""
    return {
        "engine": claim.engine.name,
        "version": claim.engine.release,
        "source": claim.source,
        "settings": plain_values(claim.settings.named()),
        "words": claim.words(),
        "unmodelled": list(claim.unmodelled),
    }


def plain_values(values: dict[str, Any]) -> dict[str, Any]:
    """Return values with lists instead of tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def test_result(test: Test) -> TestResult:
    """Return a test for a program."""
    return {"name": test.name, "statistic": test.statistic, "p_value": test.p_value, "says": test.says}


def interval_result(found: Interval) -> IntervalResult:
    """Return an interval for a program; what is not finite is None."""
    return {"value": finite(found.value), "low": finite(found.low), "high": finite(found.high)}


def finite(value: float) -> float | None:
    """Return a number, None if it is not finite."""
    return float(value) if math.isfinite(value) else None

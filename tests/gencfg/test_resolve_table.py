"""resolve() against what real versions of transformers did: every row that conformance/conform.py collected."""

from __future__ import annotations

from collections import Counter

import pytest

from conformance import conform

ROWS = list(conform.read())
VERSIONS = sorted({row["version"] for row, _ in ROWS}, key=conform.numbers)


def test_the_table_covers_the_families() -> None:
    minors = {tuple(conform.numbers(version)[:2]) for version in VERSIONS}
    assert {(4, 37), (4, 41), (4, 45), (4, 49), (4, 50), (4, 57), (5, 0), (5, 23)} <= minors
    assert min(Counter(row["version"] for row, _ in ROWS).values()) >= 150


@pytest.mark.parametrize("version", VERSIONS)
def test_every_row_of_a_version_agrees(version: str) -> None:
    rows = [(row, defaults) for row, defaults in ROWS if row["version"] == version]
    found = {row["scenario"]: verdict for row, defaults in rows if (verdict := conform.disagreement(row, defaults))}
    unknown = {scenario: verdict for scenario, verdict in found.items() if scenario not in conform.KNOWN}
    assert not unknown


def test_a_wrong_row_is_noticed() -> None:
    row, defaults = next((row, defaults) for row, defaults in ROWS if row["scenario"] == "sample_temperature_0_5")
    wrong = {**row, "seen": {**row["seen"], "final": {**row["seen"]["final"], "temperature": 0.6}}}
    assert conform.disagreement(row, defaults) is None
    assert conform.disagreement(wrong, defaults) == "temperature: 0.5 instead of 0.6"

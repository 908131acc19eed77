"""A slice of benchmarks/reliability.py: the same inputs each time, and what was found by it once."""

from __future__ import annotations

from pathlib import Path

from tests.reliability.harness import try_inputs


def test_mutated_inputs_are_refused_or_reported(tmp_path: Path) -> None:
    tally = try_inputs(1_500, 1, tmp_path / "scratch", live=False)
    assert sum(tally.counts.values()) == 1_500
    assert min(tally.counts["refused"], tally.counts["reported"]) > 300  # the inputs reach both
    assert len(tally.by_command) > 10
    assert tally.failed == []

"""Pieces of training, evaluation and serving scripts: what is found in each, and that nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmdoctor.callsites.check import check_source

# Each begins with `### name: CODES`, or `### name: nothing`.
SCRIPTS = [part.partition("\n") for part in (Path(__file__).parent / "scripts.txt").read_text().split("### ")[1:]]


@pytest.mark.parametrize(("head", "text"), [(head, text) for head, _, text in SCRIPTS], ids=[head for head, _, _ in SCRIPTS])
def test_a_script_has_these_findings_and_no_other(head: str, text: str) -> None:
    codes = head.partition(": ")[2].replace("nothing", "").split()
    assert sorted({finding.code for finding in check_source(text, "x.py")}) == codes

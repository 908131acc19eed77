"""Composed calls against rows of real runs in seven releases (conformance/composed_calls.py), and model types that a release does not have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conformance.composed_calls import judgement
from llmdoctor.gencfg.options import GencfgOptions
from llmdoctor.gencfg.show import show_report
from tests.conftest import write_model

ROWS = [json.loads(line) for line in (Path(__file__).parent / "data" / "composed.jsonl").read_text().splitlines()]
# 4.48 fails inside the static cache of a tiny Gemma 2, where none of its rules looks.
KNOWN = {("4.48.3", "gemma2_static")}


@pytest.mark.parametrize("version", sorted({row["version"] for row in ROWS}))
def test_a_composed_call_is_predicted_or_the_verdict_names_what_is_not_modelled(version: str, tmp_path: Path) -> None:
    judged = {row["call"]: judgement(tmp_path, row) for row in ROWS if row["version"] == version}
    wrong = {call: words for call, words in judged.items() if words not in ("", "named") and (version, call) not in KNOWN}
    assert not wrong
    assert sum(words == "named" for words in judged.values()) <= 13


@pytest.mark.parametrize(
    ("kind", "version", "refused"),
    [
        ("qwen3", "4.50.3", True),
        ("qwen3", "4.51.0", False),
        ("retribert", "5.23.0", True),
        ("retribert", "4.57.6", False),
        ("own_type", "5.23.0", False),
    ],
)
def test_a_model_type_that_the_release_does_not_have(kind: str, version: str, refused: bool, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", config={"model_type": kind, "vocab_size": 16, "eos_token_id": 11})
    verdict = show_report(GencfgOptions(model=str(model), transformers=version)).verdict
    assert verdict is not None
    assert (f"`{kind}`, which this release of transformers does not have" in verdict.text) == refused
    remote = write_model(tmp_path / "remote", config={"model_type": kind, "vocab_size": 16, "auto_map": {"AutoConfig": "c.C"}})
    assert "does not have" not in str(show_report(GencfgOptions(model=str(remote), transformers=version)).verdict)

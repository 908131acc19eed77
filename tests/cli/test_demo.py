"""`make demo` ends with what it promises."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

pytestmark = pytest.mark.live


@pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in ("torch", "qwen_vl_utils", "trl")), reason="wants make install")
def test_the_demo_predicts_proves_and_catches(llmdoctor: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = llmdoctor("demo", "--keep", str(tmp_path / "demo"), timeout=290)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("prediction came true") + outcome.out.count("predictions came true") == 2
    assert "did not come true" not in outcome.out
    assert " ".join(outcome.out.split()).count("eos_token_id was cleared by trl 1.0.0 ppo_trainer.py:410") >= 2
    assert (tmp_path / "demo" / "run.jsonl").is_file()
    assert "the draws follow the law of a broken sampler" in outcome.out

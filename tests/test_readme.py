"""The README's example is the command's own output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmdoctor.gencfg.diff import diff_report
from llmdoctor.gencfg.question import Side
from llmdoctor.gencfg.trace.summary import summary_report
from llmdoctor.modeldir.live.tiny_qwen2_vl import build
from llmdoctor.report import Style, render
from tests.gencfg.test_screens import CALL, V5

README = Path(__file__).parent.parent / "README.md"


def test_the_example_is_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build(Path("qwen2-vl-tiny"))
    Path("call.json").write_text(json.dumps(CALL, indent=2))
    left = Side("qwen2-vl-tiny", "call.json", transformers=V5)
    right = Side("qwen2-vl-tiny", "call.json", preset=["trl-ppo@1.0.0"], transformers=V5)
    screen = render(diff_report(left, right), "text", Style(80, False))
    command = "$ llmdoctor gencfg diff qwen2-vl-tiny --config call.json --right-preset trl-ppo@1.0.0\n"
    assert f"```\n{command}{screen}```" in README.read_text()


def test_the_example_of_trace_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace is that of tests/gencfg/runs/train.py."""
    monkeypatch.chdir(Path(__file__).parent / "gencfg" / "trace" / "data")
    screen = render(summary_report("train.jsonl"), "text", Style(80, False))
    command = "$ llmdoctor gencfg trace -o train.jsonl -- python train.py qwen2-vl-tiny\n"
    assert f"```\n{command}{screen}```" in README.read_text()


def test_no_page_tells_people_to_install_the_other_llmdoctor() -> None:
    root = README.parent
    for page in (README, *root.glob("docs/**/*.md"), root / "CONTRIBUTING.md", root / "CHANGELOG.md"):
        assert "pip install llmdoctor" not in page.read_text()

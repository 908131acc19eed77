"""What a person reads of the case, in 80 columns, by snapshot; and that a program reads the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.demo.live.tiny_qwen2_vl import build
from llmdoctor.gencfg.check import check_report
from llmdoctor.gencfg.diff import diff_report
from llmdoctor.gencfg.options import DiffOptions, GencfgCheckOptions, GencfgOptions
from llmdoctor.gencfg.show import show_report
from llmdoctor.report import Style, render

CALL = {
    "max_new_tokens": 512,
    "temperature": 1.0,
    "top_k": 0.0,
    "top_p": 1.0,
    "do_sample": True,
    "return_dict_in_generate": True,
    "output_scores": True,
}
V5, V4 = "5.23.0", "4.57.6"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("screens")
    build(path / "qwen2-vl-tiny")
    (path / "call.json").write_text(json.dumps(CALL, indent=2))
    stamped = build(path / "stamped-4.50")
    config = json.loads((stamped / "generation_config.json").read_text())
    (stamped / "generation_config.json").write_text(json.dumps({**config, "transformers_version": "4.50.0"}, indent=2))
    return path


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def text(report: Any) -> str:
    return render(report, "text", Style(80, False))


TRAINED = GencfgOptions(model="qwen2-vl-tiny", config="call.json", presets=("trl-ppo@1.0.0",), transformers=V5)
PLAIN = GencfgOptions(model="qwen2-vl-tiny", config="call.json", transformers=V5)
SCREENS = {
    "show": lambda: show_report(PLAIN),
    "show-never-stops": lambda: show_report(TRAINED),
    "show-error": lambda: show_report(GencfgOptions(model="qwen2-vl-tiny", sets=("temperature=2",), transformers=V5)),
    "show-newer-than-known": lambda: show_report(GencfgOptions(model="qwen2-vl-tiny", transformers="9.1.0")),
    "diff-trl-ppo": lambda: diff_report(DiffOptions(left=PLAIN, right=TRAINED)),
    "diff-versions": lambda: diff_report(
        DiffOptions(
            left=GencfgOptions(model="stamped-4.50", config="call.json", transformers="4.49.0"),
            right=GencfgOptions(model="stamped-4.50", config="call.json", transformers=V4),
        )
    ),
    "diff-vllm": lambda: diff_report(
        DiffOptions(left=PLAIN, right=GencfgOptions(model="qwen2-vl-tiny", config="call.json", engine="vllm"))
    ),
    "diff-same": lambda: diff_report(DiffOptions(left=PLAIN, right=PLAIN)),
    "check": lambda: check_report(GencfgCheckOptions(paths=("qwen2-vl-tiny",), transformers=V5)),
    "check-several": lambda: check_report(GencfgCheckOptions(paths=(".",), transformers=V5)),
}


@pytest.mark.parametrize("name", SCREENS)
def test_screen(name: str, snapshot: Any) -> None:
    screen = text(SCREENS[name]())
    assert screen == snapshot
    assert all(len(line) <= 80 or line.startswith("  ") for line in screen.splitlines())


def test_the_case_is_answered_with_layer_file_line_and_setting() -> None:
    report = diff_report(DiffOptions(left=PLAIN, right=TRAINED))
    result = report.result
    assert result is not None
    assert result["runaway"] == {"left": False, "right": True}
    assert "trl 1.0.0 ppo_trainer.py:410" in result["cause"]
    assert [change["field"] for change in result["changed"]] == ["eos_token_id"]
    change = result["changed"][0]
    assert change["left_from"] == "generation_config.json:5"
    assert change["right_provenance"]["layer"] == "mutation"
    assert change["right_provenance"]["overrides"][0]["value"] == change["left"]
    assert report.findings[0].code == "GEN001"
    assert 'stop_token="eos"' in (report.findings[0].fix or "")
    assert len(text(report).splitlines()) <= 24


def test_a_diff_of_two_directories_names_each_ones_file() -> None:
    other = Path("other")
    build(other)
    config = json.loads((other / "generation_config.json").read_text())
    (other / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": config["eos_token_id"][:1]}, indent=2))
    result = diff_report(
        DiffOptions(left=GencfgOptions(model="qwen2-vl-tiny", transformers=V5), right=GencfgOptions(model="other", transformers=V5))
    ).result
    assert result is not None
    (change,) = result["changed"]
    assert change["field"] == "eos_token_id"
    assert "runs past" in change["consequence"]
    assert change["right_provenance"]["file"] == "other/generation_config.json"

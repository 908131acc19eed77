"""What a person reads of the case, in 80 columns, by what must stand on the screen; and that a program reads the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.report import Report
from llmdoctor.demo.live.tiny_qwen2_vl import build
from llmdoctor.gencfg.check import check_report
from llmdoctor.gencfg.diff import diff_report
from llmdoctor.gencfg.options import DiffOptions, GencfgCheckOptions, GencfgOptions
from llmdoctor.gencfg.show import show_report
from llmdoctor.gencfg.versions import newest_known
from llmdoctor.report import Style, render
from tests.reading import read_in_order

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
SCREENS: dict[str, tuple[Callable[[], Report], tuple[str, ...]]] = {
    "show": (
        lambda: show_report(PLAIN),
        (
            "The call stops at 336 <|im_end|>, 334 <|endoftext|>, at the latest after 512 new tokens Field Value From",
            "max_new_tokens 512 call.json:2",
            "repetition_penalty 1.0 generation_config.json:9",
            "eos_token_id [336, 334] generation_config.json:5",
            "Rules transformers 5.23.0, installed here",
            "More 20 further fields have the library's default",
        ),
    ),
    "show-never-stops": (
        lambda: show_report(TRAINED),
        (
            "The call never stops before 512 new tokens: there is no eos_token_id; without the GenerationConfig that trl 1.0.0's "
            "PPOTrainer passes itself",
            "error GEN001 runs to 512 new tokens: eos_token_id was cleared by trl 1.0.0 ppo_trainer.py:410",
            "At trl/experimental/ppo/ppo_trainer.py:410",
            'Fix PPOConfig(stop_token="eos")',
            "eos_token_id None trl 1.0.0 ppo_trainer.py:410 instead of [336, 334] generation_config.json:5",
        ),
    ),
    "show-error": (
        lambda: show_report(GencfgOptions(model="qwen2-vl-tiny", sets=("temperature=2",), transformers=V5)),
        (
            "The call fails: ValueError in generate: `temperature` (=2) has to be a strictly positive float",
            "error GEN005",
            "temperature 2 --set temperature instead of 0.01 generation_config.json:10",
        ),
    ),
    "show-newer-than-known": (
        lambda: show_report(GencfgOptions(model="qwen2-vl-tiny", transformers="9.1.0")),
        (
            "The call stops at 336 <|im_end|>, 334 <|endoftext|>, at the latest after 20 new tokens (the default); transformers 9.1.0 is "
            f"newer than every version known here: the rules of {newest_known()} were applied",
            "max_length 21 generate(): prompt length + the default max_length",
            f"Rules transformers 9.1.0, 5.23.0 is installed here; the rules of {newest_known()} were applied",
        ),
    ),
    "diff-trl-ppo": (
        lambda: diff_report(DiffOptions(left=PLAIN, right=TRAINED)),
        (
            "The right call never stops: eos_token_id was cleared by trl 1.0.0 ppo_trainer.py:410; without the GenerationConfig",
            "left: as loaded right: trl-ppo@1.0.0 eos_token_id [336, 334] None set by generation_config.json:5 trl 1.0.0 ppo_trainer.py:410",
            "effect the right runs to 512 tokens",
            "error GEN001",
            "Cause trl 1.0.0 ppo_trainer.py:410 set model.generation_config.eos_token_id [336, 334] -> None",
            "GenerationConfig(..., eos_token_id=[336, 334])",
            "Warning a checkpoint saved from this policy loses its eos too",
        ),
    ),
    "diff-versions": (
        lambda: diff_report(
            DiffOptions(
                left=GencfgOptions(model="stamped-4.50", config="call.json", transformers="4.49.0"),
                right=GencfgOptions(model="stamped-4.50", config="call.json", transformers=V4),
            )
        ),
        (
            "Both calls stop, but 2 fields differ: temperature, top_p; for transformers 4.49.0, which is not installed here; for "
            "transformers 4.57.6, which is not installed here",
            "left: 4.49.0 right: 4.57.6 temperature 1.0 0.01 set by call.json:3 generation_config.json:10",
            "top_p 1.0 0.001 set by call.json:5 generation_config.json:11",
            "Rules left: transformers 4.49.0, 5.23.0 is installed here right: transformers 4.57.6, 5.23.0 is installed here",
        ),
    ),
    "diff-vllm": (
        lambda: diff_report(DiffOptions(left=PLAIN, right=GencfgOptions(model="qwen2-vl-tiny", config="call.json", engine="vllm"))),
        (
            "No field differs, and both calls stop at 336 <|im_end|>, 334 <|endoftext|>; for vLLM 0.33.0, the newest version known here",
            "Warning right: generation_config.json sets repetition_penalty, temperature, top_k, top_p under every request that does not",
        ),
    ),
    "diff-same": (
        lambda: diff_report(DiffOptions(left=PLAIN, right=PLAIN)),
        ("No field differs, and both calls stop at 336 <|im_end|>, 334 <|endoftext|>", "Rules transformers 5.23.0, installed here"),
    ),
    "check": (
        lambda: check_report(GencfgCheckOptions(paths=("qwen2-vl-tiny",), transformers=V5)),
        (
            "qwen2-vl-tiny: 0 errors, 0 warnings, 1 note, under transformers 5.23.0",
            "transformers stops at 336 <|im_end|>, 334 <|endoftext|> 5.23.0 vLLM stops at 336 <|im_end|>, 334 <|endoftext|>",
            "a turn ends with 336 <|im_end|> chat template",
            "info GEN010 pad_token_id 334 is also an eos id At qwen2-vl-tiny/generation_config.json:3 (/pad_token_id)",
            "Next if answers still do not end: llmdoctor labels audit qwen2-vl-tiny DATA",
        ),
    ),
    "check-several": (
        lambda: check_report(GencfgCheckOptions(paths=(".",), transformers=V5)),
        (
            "2 directories: 0 errors, 0 warnings, 3 notes, under transformers 5.23.0 qwen2-vl-tiny",
            "info GEN010",
            "stamped-4.50 info GEN010",
            "info GEN011 under 4.50 to 4.57 a GenerationConfig that leaves temperature, top_p, top_k at the library's default",
        ),
    ),
}


@pytest.mark.parametrize("name", SCREENS)
def test_screen(name: str) -> None:
    make, parts = SCREENS[name]
    screen = text(make())
    read_in_order(screen, *parts)
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

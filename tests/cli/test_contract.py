"""Exit codes, formats and errors, as a stranger meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import schema
from tests.conftest import Outcome, write_model

Run = Callable[..., Outcome]
Make = Callable[..., Path]


def valid(outcome: Outcome) -> dict[str, Any]:
    """Return the report on stdout, held against the schema."""
    return schema.valid(outcome.report)


def test_show_is_0_and_valid(llmdoctor: Run, make_model: Make) -> None:
    outcome = llmdoctor("gencfg", "show", str(make_model()), "--format", "json")
    assert outcome.code == 0
    assert valid(outcome)["result"]["stop"]["eos_token_id"] == [11, 10]


def test_a_finding_is_1_unless_told_otherwise(llmdoctor: Run, make_model: Make) -> None:
    model = str(make_model(generation_config={}))
    assert llmdoctor("gencfg", "show", model).code == 1
    assert llmdoctor("gencfg", "show", model, "--fail-on", "never").code == 0
    report = valid(llmdoctor("gencfg", "show", model, "--format", "json"))
    assert report["findings"][0]["code"] == "GEN001"


def test_diff_is_1_on_a_difference_and_with_fail_on_only_on_a_finding(llmdoctor: Run, make_model: Make) -> None:
    model = str(make_model())
    same = llmdoctor("gencfg", "diff", model, "--format", "json")
    assert same.code == 0
    assert valid(same)["result"]["changed"] == []
    assert llmdoctor("gencfg", "diff", model, "--right-set", "temperature=0.5").code == 1
    assert llmdoctor("gencfg", "diff", model, "--right-set", "temperature=0.5", "--fail-on", "error").code == 0
    runs_on = llmdoctor("gencfg", "diff", model, "--right-mutate", "eos_token_id=null", "--fail-on", "error", "--format", "json")
    assert runs_on.code == 1
    assert valid(runs_on)["result"]["runaway"] == {"left": False, "right": True}


def test_a_library_error_is_an_answer(llmdoctor: Run, make_model: Make) -> None:
    outcome = llmdoctor("gencfg", "show", str(make_model()), "--set", "do_sample=true", "--set", "temperature=2", "--format", "json")
    report = valid(outcome)
    assert outcome.code == 1
    assert report["result"]["error"]["type"] == "ValueError"
    assert [finding["code"] for finding in report["findings"]] == ["GEN005"]


def test_check_reports_a_broken_file_as_a_finding(llmdoctor: Run, make_model: Make) -> None:
    outcome = llmdoctor("gencfg", "check", str(make_model(generation_config='{"eos_token_id": 11,')), "--format", "json")
    assert outcome.code == 1
    assert any(finding["code"].startswith("DIR") for finding in valid(outcome)["findings"])


def test_nothing_to_check_is_3(llmdoctor: Run, tmp_path: Path) -> None:
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    outcome = llmdoctor("gencfg", "check", str(tmp_path / "folder"), "--format", "json")
    assert outcome.code == 3
    assert valid(outcome)["skipped"]


REFUSED = [
    ["gencfg", "show", "nowhere"],
    ["gencfg", "show", "org/model"],
    ["gencfg", "show", "model", "--set", "temperature"],
    ["gencfg", "show", "model", "--set", "eos_token_id=None"],
    ["gencfg", "show", "model", "--config", "nowhere.json"],
    ["gencfg", "show", "model", "--config", "model"],
    ["gencfg", "show", "model", "--transformers", "nine"],
    ["gencfg", "show", "model", "--transformers", "3.5.0"],
    ["gencfg", "show", "model", "--preset", "trl-nothing"],
    ["gencfg", "show", "model", "--preset", "trl-ppo@99x"],
    ["gencfg", "show", "model", "--engine", "onnx"],
    ["gencfg", "show", "model", "--prompt-length", "-4"],
    ["gencfg", "show", "model", "other"],
    ["gencfg", "show"],
    ["gencfg", "check"],
    ["gencfg", "check", "nowhere"],
    ["gencfg", "show", "model", "--format", "yaml"],
    ["gencfg", "show", "model", "--format", "json:/nowhere/at/all.json"],
    ["gencfg", "nonsense"],
    ["rule", "GEN999"],
]


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_cannot_be_asked_is_2_with_one_sentence(arguments: list[str], tmp_path: Path, llmdoctor: Run) -> None:
    write_model(tmp_path / "model")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    outcome = llmdoctor(*arguments, cwd=tmp_path)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert outcome.err.strip()
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_an_error_is_a_report_too(llmdoctor: Run, tmp_path: Path) -> None:
    outcome = llmdoctor("gencfg", "show", "nowhere", "--format", "json", cwd=tmp_path)
    report = valid(outcome)
    assert outcome.code == 2
    assert report["result"] is None
    assert "nowhere" in report["error"]["message"]


def test_formats_go_to_files_too(llmdoctor: Run, make_model: Make, tmp_path: Path) -> None:
    outcome = llmdoctor("gencfg", "show", str(make_model()), "-f", "text", "-f", f"json:{tmp_path / 'out.json'}")
    assert outcome.code == 0
    assert outcome.out.startswith("The call stops")
    assert json.loads((tmp_path / "out.json").read_text())["command"] == "gencfg show"


def test_hostile_text_reaches_neither_terminal_nor_runner(llmdoctor: Run, make_model: Make) -> None:
    evil = "\x1b[2J\u202e[/INST][bold]\n::error::gotcha"
    model = make_model(generation_config={"eos_token_id": 11, evil: evil, "cache_implementation": evil})
    for command in (["gencfg", "show"], ["gencfg", "check"], ["gencfg", "diff"]):
        outcome = llmdoctor(*command, str(model))
        assert outcome.code in (0, 1)
        for text in (outcome.out, outcome.err):
            assert "\x1b" not in text
            assert "\u202e" not in text
            assert not any(line.lstrip().startswith("::") for line in text.splitlines())


def test_colour_is_ours_alone(llmdoctor: Run, make_model: Make) -> None:
    model = str(make_model(generation_config={}))
    assert "\x1b[" not in llmdoctor("gencfg", "show", model).out
    assert "\x1b[" in llmdoctor("gencfg", "show", model, "--color", "always").out
    assert "\x1b[" in llmdoctor("gencfg", "show", model, env={"NO_COLOR": "", "FORCE_COLOR": "1"}).out


def test_a_closed_pipe_is_quiet(make_model: Make) -> None:
    command = f"{sys.executable} -m llmdoctor gencfg show {make_model()} --format json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_ctrl_c_is_130_and_says_one_line(tmp_path: Path) -> None:
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    models = [
        str(write_model(tmp_path / f"m{index}", tokenizer_config={"eos_token": "<|im_end|>", "chat_template": loop})) for index in range(20)
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "llmdoctor", "gencfg", "check", *models], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_an_adapter_without_its_base_and_a_tokenizer_alone_are_refused_by_show(llmdoctor: Run, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    write_model(tmp_path / "tokenizer", config=None, generation_config=None)
    for name, said in (("adapter", "org/base"), ("tokenizer", "no config.json")):
        outcome = llmdoctor("gencfg", "show", name, cwd=tmp_path, env={"HF_HUB_CACHE": str(tmp_path / "cache")})
        assert outcome.code == 2
        assert said in outcome.err


def test_an_adapter_is_read_with_its_base(llmdoctor: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "base")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "base")}))
    report = valid(llmdoctor("gencfg", "show", "adapter", "--format", "json", cwd=tmp_path))
    assert report["result"]["stop"]["eos_token_id"] == [11, 10]
    assert report["result"]["provenance"]["eos_token_id"]["file"] == "base/generation_config.json"

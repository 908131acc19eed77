"""`check --fix`, `--diff`, `--show-settings`: what is written, what is only shown, what is left alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmdoctor.check import fixing
from llmdoctor.core.errors import QuestionError
from tests.conftest import Outcome

Run = Callable[..., Outcome]
TEXT = '{\r\n  "temperature": 0.7,\r\n  "eos_token_id": 2,\r\n  "typical_p": 0.5,\r\n  "temperature": 0.8\r\n}'
SAFE = '{\r\n  "eos_token_id": 2,\r\n  "typical_p": 0.5,\r\n  "temperature": 0.8\r\n}'
ALL = '{\r\n  "eos_token_id": 2\r\n}'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose generation_config.json has a key twice and two settings that do_sample switches off."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2", "vocab_size": 10}')
    (folder / "generation_config.json").write_bytes(TEXT.encode())
    (folder / "generation_config.json").chmod(0o640)
    return folder


def content(model: Path) -> str:
    return (model / "generation_config.json").read_bytes().decode()


def test_safe_fixes_keep_the_file_as_it_is_written(model: Path, llmdoctor: Run) -> None:
    outcome = llmdoctor("check", "model", "--fix", "--format", "json", cwd=model.parent)
    assert content(model) == SAFE
    assert (model / "generation_config.json").stat().st_mode & 0o777 == 0o640
    assert [entry["pointer"] for entry in outcome.report["result"]["fixed"]] == ["/temperature"]
    assert [finding["code"] for finding in outcome.report["findings"] if finding["severity"] == "warning"] == ["GEN008"]
    assert outcome.report["result"]["fixable"] == {"safe": 0, "unsafe": 1}


def test_unsafe_fixes_are_made_when_asked_and_then_there_is_nothing_left(model: Path, llmdoctor: Run) -> None:
    llmdoctor("check", "model", "--fix", "--unsafe-fixes", cwd=model.parent)
    assert content(model) == ALL
    assert llmdoctor("check", "model", "--fix", "--unsafe-fixes", "--format", "json", cwd=model.parent).report["result"]["fixed"] == []
    assert content(model) == ALL


@pytest.mark.parametrize(("options", "expected"), [((), SAFE), (("--unsafe-fixes",), ALL)])
def test_a_diff_is_a_patch_and_writes_nothing(options: tuple[str, ...], expected: str, model: Path, llmdoctor: Run) -> None:
    command = [sys.executable, "-m", "llmdoctor", "check", "model", "--diff", *options]
    shown = subprocess.run(command, cwd=model.parent, capture_output=True, check=False)
    assert (shown.returncode, content(model)) == (1, TEXT)
    subprocess.run(["patch", "-p1", "--binary"], input=shown.stdout, cwd=model.parent, check=True, capture_output=True)
    assert content(model) == expected
    assert llmdoctor("check", "model", "--diff", *options, cwd=model.parent).code == 0


def test_a_diff_keeps_control_characters_to_itself(model: Path, llmdoctor: Run) -> None:
    hostile = TEXT.replace('"eos_token_id": 2', '"eos_token_id": 2, "\x9b2J": "\u202e"')
    (model / "generation_config.json").write_bytes(hostile.encode())
    outcome = llmdoctor("check", "model", "--diff", cwd=model.parent)
    assert (outcome.code, outcome.out) == (0, "")
    assert "control characters" in outcome.err


def test_what_is_ignored_or_in_the_baseline_is_not_mended(model: Path, llmdoctor: Run) -> None:
    llmdoctor("check", "model", "--fix", "--unsafe-fixes", "--ignore", "GEN008", "--ignore", "DIR", cwd=model.parent)
    llmdoctor("check", "model", "--write-baseline", "known.json", cwd=model.parent)
    llmdoctor("check", "model", "--fix", "--unsafe-fixes", "--baseline", "known.json", cwd=model.parent)
    assert content(model) == TEXT


def test_a_link_is_left_alone(model: Path, llmdoctor: Run) -> None:
    shared = model / "blob"
    shutil.move(model / "generation_config.json", shared)
    (model / "generation_config.json").symlink_to("blob")
    outcome = llmdoctor("check", "model", "--fix", "--format", "json", cwd=model.parent)
    assert shared.read_bytes().decode() == TEXT
    assert any("is a link" in entry["reason"] for entry in outcome.report["skipped"])


def test_a_file_that_changes_while_it_is_checked_is_left_alone(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other files are named, those that were changed before and those that were not."""
    others = [model.parent / "a.json", model.parent / "z.json"]
    for other in others:
        other.write_text("{}")
    names = ["a.json", "model/generation_config.json", "z.json"]
    monkeypatch.chdir(model.parent)
    with pytest.raises(QuestionError, match=r"generation_config.json: the file changed.*Changed before that: a.json; not changed: z.json"):
        fixing._write([fixing.FixedFile(name, "{}", "{ }", ()) for name in names])
    assert [other.read_text() for other in others] == ["{ }", "{}"]
    assert content(model) == TEXT


def test_the_settings_are_shown_and_nothing_is_checked(model: Path, llmdoctor: Run) -> None:
    (model.parent / "pyproject.toml").write_text('[tool.llmdoctor]\nignore = ["PYC"]\nfail-on = "warning"\n')
    outcome = llmdoctor("check", "--show-settings", "--select", "GEN", "--format", "json", cwd=model.parent)
    settings = outcome.report["result"]["settings"]
    assert (outcome.code, settings["ignore"], settings["fail-on"], settings["select"]) == (0, ["PYC"], "warning", ["GEN"])
    assert (
        json.loads(llmdoctor("check", "--show-settings", "--format", "json", cwd=model).out)["subject"]["settings"] == "../pyproject.toml"
    )


def test_a_diff_of_nothing_to_check_is_3(tmp_path: Path, llmdoctor: Run) -> None:
    assert llmdoctor("check", "--diff", cwd=tmp_path).code == 3

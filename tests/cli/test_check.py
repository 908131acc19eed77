"""`llmdoctor check`: what it finds in a tree, what it leaves out, what a team has settled."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from llmdoctor.check.check import check_report
from llmdoctor.check.options import CheckOptions
from llmdoctor.files.project import ProjectSettings
from tests.conftest import Outcome, write_model

Run = Callable[..., Outcome]
RULES = Path(__file__).parents[1] / "rules"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with a model that never stops, code that clears an eos, and things that are nobody's business."""
    write_model(tmp_path / "models" / "bad", generation_config={})
    write_model(tmp_path / "models" / "good")
    (tmp_path / "src").mkdir()
    shutil.copy(RULES / "PYC001" / "bad" / "example.py", tmp_path / "src" / "train.py")
    (tmp_path / "src" / "config.json").write_text('{"compilerOptions": {}}')
    (tmp_path / "ignored").mkdir()
    shutil.copy(tmp_path / "src" / "train.py", tmp_path / "ignored" / "train.py")
    (tmp_path / ".gitignore").write_text("ignored/\n")
    (tmp_path / "link").symlink_to("/")
    (tmp_path / ".git").mkdir()
    return tmp_path


def codes(outcome: Outcome) -> list[str]:
    return sorted({finding["code"] for finding in outcome.report["findings"] if finding["severity"] != "info"})


def test_it_finds_models_and_code_and_heeds_gitignore(tree: Path, llmdoctor: Run) -> None:
    outcome = llmdoctor("check", "--format", "json", cwd=tree)
    assert outcome.code == 1
    assert codes(outcome) == ["GEN001", "PYC001"]
    subjects = {subject["path"]: subject for subject in outcome.report["result"]["subjects"]}
    assert set(subjects) == {"models/bad", "models/good", "src/train.py"}
    findings = outcome.report["findings"]
    assert {findings[index]["code"] for index in subjects["src/train.py"]["findings"]} == {"PYC001"}
    assert {"what": "./link", "reason": "a link, not followed"} in outcome.report["skipped"]


def test_nothing_is_read_twice(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Counter[str]()

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and str(arguments[0]).startswith(("./", "src", "models")):
            opened[os.path.normpath(str(arguments[0]))] += 1

    monkeypatch.chdir(tree)
    (tree / "models" / "again.py").write_text("")
    watching = True
    sys.addaudithook(note)
    check_report(CheckOptions(paths=(".",)), ProjectSettings())
    watching = False  # a hook is there until the process ends
    assert {"src/train.py", "models/again.py", "models/bad/tokenizer.json", "models/good/generation_config.json"} <= set(opened)
    assert set(opened.values()) == {1}


def test_a_folder_that_is_named_is_looked_at(tree: Path, llmdoctor: Run) -> None:
    assert codes(llmdoctor("check", "ignored", "--format", "json", cwd=tree)) == ["PYC001"]


def test_select_ignore_and_fail_on(tree: Path, llmdoctor: Run) -> None:
    assert codes(llmdoctor("check", "--select", "PYC", "--format", "json", cwd=tree)) == ["PYC001"]
    assert codes(llmdoctor("check", "--ignore", "PYC", "--format", "json", cwd=tree)) == ["GEN001"]
    assert llmdoctor("check", "--fail-on", "never", cwd=tree).code == 0


def test_a_teams_settings(tree: Path, llmdoctor: Run) -> None:
    (tree / "pyproject.toml").write_text(
        '[tool.llmdoctor]\nexclude = ["models/bad"]\nfail-on = "never"\n[tool.llmdoctor.per-path-ignores]\n"src" = ["PYC001"]\n'
    )
    outcome = llmdoctor("check", "--format", "json", cwd=tree)
    assert (outcome.code, codes(outcome)) == (0, [])
    assert llmdoctor("check", "src", "--format", "json", cwd=tree).report["subject"]["settings"] == "pyproject.toml"


@pytest.mark.parametrize("table", ['selct = ["GEN"]', 'select = "GEN"', 'fail-on = "eror"', "per-path-ignores = 3", "select = ["])
def test_settings_that_cannot_be_read(table: str, tree: Path, llmdoctor: Run) -> None:
    (tree / "pyproject.toml").write_text(f"[tool.llmdoctor]\n{table}\n")
    outcome = llmdoctor("check", cwd=tree)
    assert outcome.code == 2
    assert "pyproject.toml" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_baseline_is_kept_while_lines_move(tree: Path, llmdoctor: Run) -> None:
    written = llmdoctor("check", "--write-baseline", "known.json", cwd=tree)
    assert written.code == 0
    assert " written to known.json, accepted from now on" in written.out
    assert "Next      llmdoctor check --baseline known.json reports only what is new" in written.out
    source = tree / "src" / "train.py"
    source.write_text("# a line\n\n" + source.read_text())
    outcome = llmdoctor("check", "--baseline", "known.json", "--format", "json", cwd=tree)
    assert (outcome.code, codes(outcome)) == (0, [])
    assert outcome.report["result"]["in_baseline"] >= 2
    write_model(tree / "models" / "worse", generation_config={})
    assert codes(llmdoctor("check", "--baseline", "known.json", "--format", "json", cwd=tree)) == ["GEN001"]
    assert llmdoctor("check", "--baseline", "nowhere.json", cwd=tree).code == 2
    (tree / "broken.json").write_text(json.dumps([]))
    assert llmdoctor("check", "--baseline", "broken.json", cwd=tree).code == 2


def test_nothing_to_check_is_3(tmp_path: Path, llmdoctor: Run) -> None:
    (tmp_path / "notes.txt").write_text("")
    assert llmdoctor("check", cwd=tmp_path).code == 3
    assert llmdoctor("check", "nowhere", cwd=tmp_path).code == 2


def test_more_files_than_one_process_takes(tmp_path: Path, llmdoctor: Run) -> None:
    for number in range(150):
        (tmp_path / f"module{number}.py").write_text("x = 1\n")
    shutil.copy(RULES / "PYC001" / "bad" / "example.py", tmp_path / "last.py")
    outcome = llmdoctor("check", "--format", "json", cwd=tmp_path)
    assert len(outcome.report["result"]["subjects"]) == 151
    assert codes(outcome) == ["PYC001"]


def test_named_files_are_one_model_and_excluded_ones_stay_excluded(tree: Path, llmdoctor: Run) -> None:
    """As pre-commit calls it: with every file of a commit."""
    (tree / "pyproject.toml").write_text('[tool.llmdoctor]\nexclude = ["src"]\n')
    files = [f"models/bad/{name}" for name in ("config.json", "tokenizer.json", "generation_config.json")]
    outcome = llmdoctor("check", *files, "src/train.py", "--format", "json", cwd=tree)
    assert [subject["path"] for subject in outcome.report["result"]["subjects"]] == ["models/bad"]
    assert {"what": "src/train.py", "reason": "excluded by pyproject.toml"} in outcome.report["skipped"]
    assert llmdoctor("check", *files, "src/train.py", cwd=tree).out.startswith("4 paths: ")
    assert codes(llmdoctor("check", "models/bad/tokenizer.json", "--format", "json", cwd=tree)) == ["GEN001"]


def test_a_mistyped_prefix_is_refused(tree: Path, llmdoctor: Run) -> None:
    assert codes(llmdoctor("check", "--select", "gen,pyc001", "--format", "json", cwd=tree)) == ["GEN001", "PYC001"]
    for options in (("--select", "XYZ"), ("--ignore", ""), ("--select", "GEN,,PYC")):
        outcome = llmdoctor("check", *options, cwd=tree)
        assert (outcome.code, "the code of no rule begins with it" in outcome.err) == (2, True)
    (tree / "pyproject.toml").write_text('[tool.llmdoctor.per-path-ignores]\n"src" = ["NOPE"]\n')
    assert "per-path-ignores.src 'NOPE'" in llmdoctor("check", cwd=tree).err


def test_settings_are_those_of_where_one_stands(tree: Path, llmdoctor: Run) -> None:
    """pre-commit names files in an order of its own."""
    (tree / "pyproject.toml").write_text("[tool.llmdoctor]\n")
    (tree / "src" / "pyproject.toml").write_text('[tool.llmdoctor]\nignore = ["PYC"]\n')
    files = ["src/train.py", "models/bad/config.json"]
    for named in (files, files[::-1], files[:1]):
        assert llmdoctor("check", *named, "--format", "json", cwd=tree).report["subject"]["settings"] == "pyproject.toml"
    assert codes(llmdoctor("check", str(tree / "src"), "--format", "json", cwd=tree / "src")) == []


def test_a_baseline_holds_wherever_one_stands(tree: Path, llmdoctor: Run) -> None:
    llmdoctor("check", "--write-baseline", "known.json", cwd=tree)
    for where, path, known in ((tree / "src", "..", "../known.json"), (Path("/"), str(tree), str(tree / "known.json"))):
        assert codes(llmdoctor("check", path, "--baseline", known, "--format", "json", cwd=where)) == []


@pytest.mark.parametrize(
    "options",
    [
        ("--unsafe-fixes",),
        ("--diff", "--format", "json"),
        ("--diff", "--fix"),
        ("--diff", "--write-baseline", "b"),
        ("--baseline", "b", "--write-baseline", "b"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(options: tuple[str, ...], tree: Path, llmdoctor: Run) -> None:
    assert llmdoctor("check", *options, cwd=tree).code == 2
    assert not (tree / "b").exists()


def test_nothing_to_check_may_be_allowed(tree: Path, llmdoctor: Run) -> None:
    (tree / "data.json").write_text("{}")
    assert llmdoctor("check", "data.json", cwd=tree).code == 3
    assert llmdoctor("check", "data.json", "--allow-nothing", cwd=tree).code == 0


def test_a_broken_configuration_is_a_finding(tree: Path, llmdoctor: Run) -> None:
    (tree / "ds.json").write_text('{\n  "zero_optimization": {"stage": 2},\n}')
    report = llmdoctor("check", "ds.json", "--format", "json", cwd=tree).report
    assert [(each["code"], each["location"]["line"]) for each in report["findings"]] == [("DIR001", 3)]


def test_what_is_no_file_does_not_stop_a_walk(tree: Path, llmdoctor: Run) -> None:
    os.mkfifo(tree / "pipe.py")
    (tree / ".gitignore").unlink()
    os.mkfifo(tree / ".gitignore")
    outcome = llmdoctor("check", "--format", "json", cwd=tree, timeout=20)
    assert {"what": "./pipe.py", "reason": "no regular file"} in outcome.report["skipped"]


def test_a_worktree_is_a_repository(tree: Path, llmdoctor: Run) -> None:
    (tree / ".git").rmdir()
    (tree / ".git").write_text("gitdir: elsewhere\n")
    (tree / ".gitignore").write_text("*.gen.py\n")
    shutil.copy(tree / "src" / "train.py", tree / "src" / "x.gen.py")
    assert [subject["path"] for subject in llmdoctor("check", "src", "--format", "json", cwd=tree).report["result"]["subjects"]] == [
        "src/train.py"
    ]


UNSAVED = "model.generate(**x)\ntokenizer.pad_token = tokenizer.eos_token\nlabels[labels == tokenizer.pad_token_id] = -100\n"


def _with_input(*arguments: str, given: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llmdoctor", "check", *arguments]
    env = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, input=given, capture_output=True, text=True, cwd=cwd, env=env, timeout=60, check=False)


def test_an_editor_passes_what_is_not_saved(tmp_path: Path) -> None:
    """A new Python file, and a file of a model whose other files are on the disk."""
    done = _with_input("--stdin-filename", "new/train.py", "-f", "concise", given=UNSAVED, cwd=tmp_path)
    assert "new/train.py:3:1: PYC005 warning" in done.stdout
    model = write_model(tmp_path / "model")
    name = "model/generation_config.json"
    assert (
        "GEN002"
        not in _with_input(
            "--stdin-filename", name, "-f", "concise", given=(model / "generation_config.json").read_text(), cwd=tmp_path
        ).stdout
    )
    done = _with_input("--stdin-filename", name, "-f", "concise", given='{"eos_token_id": 0}', cwd=tmp_path)
    assert re.search(r"model/generation_config\.json:1:\d+: GEN00\d error", done.stdout), done.stdout
    assert done.returncode == 1
    assert json.loads((model / "generation_config.json").read_text())["eos_token_id"] != 0


def test_what_is_not_saved_may_be_damaged_and_alone(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    done = _with_input("--stdin-filename", "model/generation_config.json", "-f", "concise", given="[" * 100_000, cwd=tmp_path)
    assert "model/generation_config.json:1:" in done.stdout
    assert "DIR" in done.stdout
    assert done.returncode == 1
    alone = _with_input("--stdin-filename", "nowhere/generation_config.json", "-f", "concise", given="{}", cwd=tmp_path)
    assert "1 file could not be checked" in alone.stdout
    assert alone.returncode == 3
    assert _with_input("--stdin-filename", "notes.exe", given="x", cwd=tmp_path).returncode == 3
    folder = _with_input("--stdin-filename", ".", given="x", cwd=tmp_path)
    assert (folder.returncode, len(folder.stderr.strip().splitlines())) == (2, 1)


@pytest.mark.parametrize("more", [["other.py"], ["--fix"], ["--write-baseline", "b.json"], ["--watch"]])
def test_what_contradicts_standard_input_is_refused(more: list[str], tmp_path: Path) -> None:
    done = _with_input("--stdin-filename", "train.py", *more, given="", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_watch_reports_again_after_a_change(tmp_path: Path) -> None:
    source = tmp_path / "train.py"
    source.write_text("x = 1\n")
    command = [sys.executable, "-m", "llmdoctor", "check", "--watch", "-f", "concise", "."]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as run:
        assert run.stderr is not None
        assert run.stdout is not None
        assert "waiting for a change" in run.stderr.readline()
        for attempt in range(20):  # the watcher starts a moment after the line
            source.write_text(f"{UNSAVED}# {attempt}\n")
            if select.select([run.stderr], [], [], 1.0)[0]:
                break
        assert "waiting for a change" in run.stderr.readline()
        run.send_signal(signal.SIGINT)
        out = run.stdout.read()
    assert run.returncode == 0
    assert "PYC005" in out

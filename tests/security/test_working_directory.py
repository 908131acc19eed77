"""No command imports from the working directory: a repository that holds modules of usual names is only read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmdoctor.mem.cases import _module
from tests.conftest import write_model

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("llmdoctor")
PLANTED = ("logging", "venv", "pip", "random", "sitecustomize", "llmdoctor", "json", "torch", "yaml", "jinja2", "numpy", "runpy")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    write_model(folder / "model", generation_config={"eos_token_id": 2}, chat_template="{{ messages[0].content }}")
    for name in PLANTED:
        for place in (folder, folder / "model"):
            (place / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n")
    (folder / "outputs.jsonl").write_text('{"token_ids": [1, 2], "finish_reason": "stop"}\n')
    (folder / "config.yaml").write_text("per_device_train_batch_size: 2\noutput_dir: x\n")
    return folder


COMMANDS = (
    ["check"],
    ["look", "."],
    ["gencfg", "show", "model"],
    ["gencfg", "check", "model"],
    ["gencfg", "runaway", "outputs.jsonl", "--model", "model"],
    ["mem", "compare", "model", "--strategy", "config.yaml", "--static"],
    ["env"],
)


@pytest.mark.skipif(not SCRIPT.is_file(), reason="llmdoctor is not installed as a script here")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_static_command_imports_nothing_of_the_repository(command: list[str], repository: Path) -> None:
    for place in (repository, repository / "model"):
        done = subprocess.run([str(SCRIPT), *command], cwd=place, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode in (0, 1, 2, 3), done.stderr
        assert not (repository.parent / "ran").exists()


def test_a_worker_imports_nothing_of_the_working_directory(repository: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(_module("this"), cwd=repository, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "Beautiful is better than ugly" in done.stdout
    command = _module("llmdoctor.mem.live.worker", "nowhere.json")
    done = subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert "nowhere.json" in done.stderr
    assert not (repository.parent / "ran").exists()


def test_the_action_imports_nothing_of_the_checkout(repository: Path, tmp_path: Path) -> None:
    """Up to the installation, which needs a package index: a python that notes how it is called stands in for it."""
    programs, calls = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()
    (programs / "python3").write_text(f'#!/bin/sh\necho "$PWD $*" >> {calls}\nexit 1\n')
    (programs / "python3").chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_ACTION_PATH": str(ROOT),
        "RUNNER_TEMP": str(tmp_path / "temp"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    (tmp_path / "temp").mkdir()
    subprocess.run(["bash", str(ROOT / "action" / "check.sh")], cwd=repository, env=env, capture_output=True, check=False, timeout=60)
    (call,) = calls.read_text().splitlines()
    assert call.startswith(f"{tmp_path}/temp/llmdoctor -I -m venv ")
    real = shutil.which("python3")
    assert real is not None
    done = subprocess.run([real, "-I", "-m", "venv", "--help"], cwd=repository, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="it looks at processes in /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    endless = "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}{% endfor %}{% endfor %}{% endfor %}"
    program = (
        "import os, sys; from concurrent.futures import ProcessPoolExecutor; from llmdoctor.core.processes import end_with_parent\n"
        "from llmdoctor.modeldir.template import ChatTemplate, TemplateWorker\n"
        "pool = ProcessPoolExecutor(2, initializer=end_with_parent); pool.submit(print, end='').result()\n"
        "worker = TemplateWorker(60); worker.start(); print(worker._process.pid, *pool._processes, flush=True)\n"
        f"worker.render(ChatTemplate('default', {endless!r}, 'x'), [])\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        workers = [int(word) for word in process.stdout.readline().split()]
        time.sleep(0.5)
        process.kill()
    assert len(workers) >= 2
    deadline = time.monotonic() + 5
    while (left := [pid for pid in workers if _runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

"""Kills commands at random moments, and looks at what is left: the user's files, the traces, the processes."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.conftest import write_model
from tests.reliability.harness import ROOT

MARK = "LLMDOCTOR_KILLED"  # in the environment of the command and of all that it starts
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# The user's own command: it writes a file line by line, with a process of its own beside it.
WORK = """
import subprocess, sys, time
beside = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.4)"])
with open("own.txt", "w") as file:
    for number in range(40):
        file.write(f"line {number}\\n")
        file.flush()
        time.sleep(0.01)
beside.wait()
"""


@dataclass(slots=True)
class Kills:
    """What came of the kills of one command: how many hit it, how many found it ended, and what was wrong afterwards."""

    killed: int = 0
    ended: int = 0
    faults: list[str] = field(default_factory=list)


def kill_all(count: int, seed: int, scratch: Path, seconds: float = math.inf) -> dict[str, Kills]:
    """Kill each of the commands `count` / 4 times, at moments between its start and its usual end; less often if all of it takes `seconds`."""
    random, found = Random(seed), dict[str, Kills]()
    for name, (command, prepare, look) in COMMANDS.items():
        found[name] = Kills()
        usual = 1.0
        deadline = time.monotonic() + seconds / len(COMMANDS)
        for number in range(-1, count // len(COMMANDS)):  # the first one is not killed: it gives the usual time
            if time.monotonic() > deadline:
                break
            folder = scratch / name.replace(" ", "-") / str(number)
            folder.mkdir(parents=True)
            prepare(folder)
            mark, start = f"{os.getpid()}-{name}-{number}", time.monotonic()
            process = _start(command, folder, mark)
            if number >= 0:
                time.sleep(random.uniform(0.02, usual))
                process.send_signal(random.choice(SIGNALS))
            process.wait()
            usual = time.monotonic() - start if number < 0 else usual
            found[name].killed += number >= 0 and process.returncode not in (0, 1, 3)
            found[name].ended += number >= 0 and process.returncode in (0, 1, 3)
            fault = _left(mark) or look(folder)
            if fault:
                found[name].faults.append(f"{number}, exit {process.returncode}: {fault}")
            shutil.rmtree(folder)
    return found


def _start(command: str, folder: Path, mark: str) -> subprocess.Popen[bytes]:
    arguments = [sys.executable if word == "PYTHON" else word for word in command.split()]
    env = {**os.environ, "PYTHONPATH": str(ROOT), MARK: mark}
    return subprocess.Popen(
        [sys.executable, "-m", "llmdoctor", *arguments], cwd=folder, env=env,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _left(mark: str) -> str:
    """Return which of the command's processes still run after 10 s; "" if none does."""
    deadline = time.monotonic() + 10
    while (left := [pid for pid in os.listdir("/proc") if pid.isdigit() and _is_marked(pid, mark)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return f"processes left: {left}" if left else ""


def _is_marked(pid: str, mark: str) -> bool:
    try:
        return f"{MARK}={mark}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _work(folder: Path) -> None:
    (folder / "work.py").write_text(WORK)
    (folder / "data.jsonl").write_text("the user's own\n")


def _look_at_work(command: str, output: str) -> Callable[[Path], str]:
    def look(folder: Path) -> str:
        lines = (folder / "own.txt").read_text().splitlines() if (folder / "own.txt").exists() else []
        if lines != [f"line {number}" for number in range(len(lines))]:
            return "the command's own file holds other lines than it wrote"
        if (folder / "data.jsonl").read_text() != "the user's own\n":
            return "a file beside it has changed"
        done = subprocess.run(
            [sys.executable, "-m", "llmdoctor", *command.split(), output], cwd=folder, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        unreadable = done.returncode not in (0, 1, 3) and (folder / output).exists()
        return f"the record cannot be read: {done.stderr[:200]}" if unreadable or done.returncode == 70 else ""

    return look


_BROKEN = {"eos_token_id": None, "temperature": 0.7}
_MODELS = 12


def _tree(folder: Path) -> None:
    for number in range(_MODELS):
        write_model(folder / f"m{number}", generation_config=dict(_BROKEN))
    for number in range(3):
        (folder / f"m{number}.py").write_text("x = 'a'\n" * 60_000)


def _look_at_tree(folder: Path) -> str:
    for path in sorted(folder.rglob("*.json")):
        try:
            value = json.loads(path.read_bytes())
        except ValueError:
            return f"{path.name} is no longer JSON"
        if path.name == "generation_config.json" and not set(value) >= {"eos_token_id"}:
            return f"{path} has lost a key"
    names = sum(1 for _ in folder.rglob("*.json"))
    return "" if names == 4 * _MODELS else f"{names} files of {4 * _MODELS}"


COMMANDS: dict[str, tuple[str, Callable[[Path], None], Callable[[Path], str]]] = {
    "gencfg trace": ("gencfg trace -o run.jsonl -- PYTHON work.py", _work, _look_at_work("gencfg trace --summary", "run.jsonl")),
    "mem measure": ("mem measure -o run.jsonl -- PYTHON work.py", _work, _look_at_work("mem measure --summary", "run.jsonl")),
    "check --fix": ("check . --fix --unsafe-fixes", _tree, _look_at_tree),
    "check": ("check .", _tree, _look_at_tree),
}

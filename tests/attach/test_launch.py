"""The user's command as it would run without llmdoctor: its output, its end, its signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

Run = Callable[..., Outcome]
PYTHON = sys.executable
TRACE = [PYTHON, "-m", "llmdoctor", "gencfg", "trace"]


def trace(*command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    """`llmdoctor gencfg trace -o run.jsonl -- COMMAND` in `cwd`."""
    return subprocess.run(
        [*TRACE, "-o", "run.jsonl", "--", *command],
        cwd=cwd,
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "NO_COLOR": "1", **env},
    )


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("code", [0, 1, 3, 77])
def test_the_exit_code_is_the_commands_own(code: int, tmp_path: Path) -> None:
    done = trace(PYTHON, "-c", f"raise SystemExit({code})", cwd=tmp_path)
    assert done.returncode == code
    assert records(tmp_path)[0]["exit_code"] == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_command_that_a_signal_ends(number: signal.Signals, tmp_path: Path) -> None:
    done = trace(PYTHON, "-c", f"import os; os.kill(os.getpid(), {int(number)})", cwd=tmp_path)
    assert done.returncode == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == ["run.jsonl"]


@pytest.mark.parametrize("redirect", ["2>&1 | true; exit ${PIPESTATUS[0]}", "2>/dev/full", "2>&-", ">&-", ">&- 2>&-"])
def test_the_exit_code_survives_streams_that_take_nothing(redirect: str, tmp_path: Path) -> None:
    command = f"{' '.join(TRACE)} -o run.jsonl -- sh -c 'exit 5' {redirect}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (5, "")
    assert "Traceback" not in done.stderr


def test_a_command_that_removes_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    done = trace("sh", "-c", f"rm -r {folder}; exit 3", cwd=folder)
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr


def test_a_parent_that_ignores_the_end_of_children(tmp_path: Path) -> None:
    program = (
        f"import os, signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv({PYTHON!r}, {[*TRACE, '--', 'sh', '-c', 'exit 3']!r})"
    )
    done = subprocess.run([PYTHON, "-c", program], cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert done.returncode == 3


def test_a_traced_pytest_that_turns_warnings_into_errors(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(): assert 1\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    done = trace(PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_output_and_input_are_the_commands_own(tmp_path: Path) -> None:
    program = "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d[::-1]); sys.stderr.buffer.write(b'\\xff\\x00err')"
    data = bytes(range(256)) * 300
    done = subprocess.run(
        [*TRACE, "-o", "run.jsonl", "--", PYTHON, "-c", program], cwd=tmp_path, input=data, capture_output=True, check=True
    )
    assert done.stdout == data[::-1]
    assert done.stderr.startswith(b"\xff\x00err")


def test_the_commands_options_are_its_own(tmp_path: Path) -> None:
    done = trace(PYTHON, "-c", "import sys; print(sys.argv[1:])", "--format", "json", "-o", "x", "--", "--help", cwd=tmp_path)
    assert done.stdout.decode().strip() == "['--format', 'json', '-o', 'x', '--', '--help']"


def test_children_that_fork_and_spawn_are_attached_to(tmp_path: Path) -> None:
    program = "import os, subprocess, sys\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nelse: os._exit(0)\n"
    program += (
        "print(subprocess.run([sys.executable, '-c', 'import sys; print(\"llmdoctor\" in sys.modules)'], capture_output=True).stdout)"
    )
    done = trace(PYTHON, "-c", program, cwd=tmp_path)
    assert done.returncode == 0
    assert b"True" in done.stdout


def test_the_environments_own_sitecustomize_still_runs(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import builtins; builtins.FOUND = __file__\n")
    done = trace(PYTHON, "-c", "print(FOUND); import sys; print(sys.path)", cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert str(tmp_path / "site" / "sitecustomize.py") in done.stdout.decode()
    assert "llmdoctor/attach" not in done.stdout.decode()


def test_a_process_that_cannot_be_attached_to_runs_and_says_so(tmp_path: Path) -> None:
    program = "import os, subprocess, sys; os.environ['LLMDOCTOR_ATTACH'] = '{'; print(subprocess.run([sys.executable, '-c', 'print(5)']).returncode)"
    done = trace(PYTHON, "-c", program, cwd=tmp_path)
    assert b"5\n0\n" in done.stdout or b"0\n" in done.stdout
    assert b"this process is not traced" in done.stderr
    assert b"Traceback" not in done.stderr


def test_ctrl_c_goes_to_the_command_and_the_trace_stays_readable(tmp_path: Path, llmdoctor: Run) -> None:
    program = "import time, sys\ntry:\n print('ready', flush=True)\n time.sleep(30)\nexcept KeyboardInterrupt: print('mine'); sys.exit(9)"
    running = subprocess.Popen([*TRACE, "--", PYTHON, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=20)
    assert (running.returncode, out) == (9, b"mine\n")
    assert b"Traceback" not in err
    assert llmdoctor("gencfg", "trace", "--summary", "run.jsonl", cwd=tmp_path).code == 3


def test_a_terminal_sends_ctrl_c_once(tmp_path: Path) -> None:
    """The whole foreground group is told by the kernel; passing it on would tell the command twice."""
    program = "import signal, time, os\nseen = []\nsignal.signal(signal.SIGINT, lambda *_: seen.append(1))\nprint('ready', flush=True)\n"
    program += "end = time.time() + 2\nwhile time.time() < end: time.sleep(.1)\nprint(len(seen), flush=True)"
    script = tmp_path / "count.py"
    script.write_text(program)
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv(PYTHON, [*TRACE, "--", PYTHON, str(script)])
    seen = b""
    while b"ready" not in seen:
        seen += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    end = time.time() + 20
    while time.time() < end:
        try:
            piece = os.read(terminal, 1000)
        except OSError:
            break
        seen += piece
    os.waitpid(pid, 0)
    assert b"\n1\r\n" in seen.replace(b"^C", b"")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--"], "no command"),
        (["--", "no-such-command"], "no-such-command: command not found"),
        (["--", "./notes.txt"], "not an executable file"),
        (["-o", "run.txt", "--", "true"], "ends in .jsonl"),
        (["-o", "nowhere/run.jsonl", "--", "true"], "cannot be written"),
        (["-o", "folder.jsonl", "--", "true"], "not a regular file"),
        (["--summary", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
        (["--summary", "notes.txt"], "expected a trace, one JSON object a line"),
        (["--summary", "empty.jsonl"], "empty trace"),
        (["--summary", "later.jsonl"], "llmdoctor.trace/2"),
        (["--summary", "folder.jsonl"], "is a directory"),
        (["--summary", "empty.jsonl", "--", "true"], "nothing is run"),
    ],
)
def test_what_cannot_be_asked(arguments: list[str], words: str, tmp_path: Path, llmdoctor: Run) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "notes.txt").write_text("notes\n")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "later.jsonl").write_text('{"kind": "run", "schema": "llmdoctor.trace/2"}\n')
    before = sorted(tmp_path.iterdir())
    outcome = llmdoctor("gencfg", "trace", *arguments, cwd=tmp_path)
    assert outcome.code == 2
    assert words in outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_disk_that_cannot_take_the_merged_file_leaves_the_parts(tmp_path: Path, llmdoctor: Run) -> None:
    """The command removes its own folder's name; what was recorded is still where the sentence says."""
    program = "import os; os.mkdir('run.jsonl')"
    done = trace(PYTHON, "-c", program, cwd=tmp_path)
    assert done.returncode == 0
    assert b"what each process recorded is in" in done.stderr
    assert b"Traceback" not in done.stderr


def test_inherited_descriptors_reach_the_command(tmp_path: Path) -> None:
    """`<(...)`, `3<file`, flock and a job server of make hand on open files."""
    (tmp_path / "held.txt").write_text("held")
    script = f'exec 7<held.txt; {PYTHON} -m llmdoctor gencfg trace -o run.jsonl -- {PYTHON} -c "import os; print(os.read(7, 9))"'
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "b'held'\n")


def test_an_alarm_reaches_the_command(tmp_path: Path) -> None:
    program = "import signal, sys, time; signal.signal(signal.SIGALRM, lambda *_: sys.exit(41)); print('up', flush=True); time.sleep(30)"
    command = [*TRACE, "-o", "run.jsonl", "--", PYTHON, "-c", program]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGALRM)
        assert process.wait(timeout=30) == 41

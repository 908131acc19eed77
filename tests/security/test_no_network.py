"""No static command opens a socket: each is run as a process in which Python's audit hooks end the process at the first socket event."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from llmdoctor.cli.app import make_app
from llmdoctor.report import FORMATS
from tests.conftest import Outcome, run_command, write_model
from tests.reliability.cases import groups
from tests.reliability.harness import harnessed, run, write

ROOT = Path(__file__).parents[2]
# Whatever the code does to reach the network goes through one of these, in the C code too. Python has no audit event for a bare socketpair().
BLOCK = """
import sys
def hook(event, arguments):
    if event.startswith("socket.") or event in ("http.client.connect", "urllib.Request"):
        sys.stderr.write(f"SOCKET {event} {arguments}\\n")
        sys.stderr.flush()
        import os
        os._exit(99)
sys.addaudithook(hook)
"""
# The commands of each kind of input that tests/reliability knows, which name every command but these.
OTHERS = (("rule", "GEN001"), ("rule",), ("env",), ("--version",), ("--help",), ("gencfg", "--help"), ("gencfg", "show", "org/model"))
# They run something: the user's command, or a model.
# mem fit runs torch over meta tensors.
LIVE = {
    ("gencfg", "trace"): "--summary",
    ("mem", "measure"): "--summary",
    ("mask", "test"): "--static",
    ("mem", "fit"): None,
    ("demo",): None,
}  # mem fit runs torch over meta tensors


@pytest.fixture
def blocked(tmp_path: Path) -> dict[str, str]:
    """The environment in which a socket ends the process; a hub id would be looked up if anything did so."""
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "sitecustomize.py").write_text(BLOCK)
    path = os.pathsep.join([str(tmp_path / "block"), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path / "cache"), "HTTPS_PROXY": "http://127.0.0.1:9"}


def judge(outcome: Outcome) -> None:
    assert "SOCKET" not in outcome.err, outcome.err
    assert outcome.code in (0, 1, 2, 3), outcome.err


def test_the_block_blocks(blocked: dict[str, str]) -> None:
    for code in (
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import socket; socket.getaddrinfo('example.org', 80)",
        "import urllib.request; urllib.request.urlopen('http://example.org')",
        "import socket; socket.socket().bind(('', 0))",
    ):
        done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **blocked}, capture_output=True, text=True, check=False)
        assert done.returncode == 99, code


def _commands() -> list[tuple[tuple[str, ...], dict[str, bytes]]]:
    """One of each command line over the first input of each kind."""
    found: dict[tuple[str, ...], tuple[tuple[str, ...], dict[str, bytes]]] = {}
    for group in groups():
        for case in group:
            for command in case.commands:
                options = tuple(word for word in command if word.startswith("--"))
                if case.name != "messages":  # transformers reads those
                    found.setdefault((*command[: 1 + (command[0] != "check")], *options), (command, case.files))
    return list(found.values())


RUNS = _commands()


def test_every_command_is_among_them() -> None:
    import typer.main

    tree = typing.cast("typing.Any", typer.main.get_command(make_app([])))
    every = {
        (name, *rest)
        for name, command in tree.commands.items()
        for rest in [(inner,) for inner in getattr(command, "commands", {})] or [()]
    }
    each = {command[: 1 + (command[0] in ("gencfg", "labels", "mask", "mem", "prompt", "sample"))] for command, _ in RUNS} | {
        ("rule",),
        ("env",),
    }
    assert every - each <= set(LIVE)
    for command, _ in RUNS:  # of a command that runs something only the part that does not
        assert LIVE.get(command[:2]) is None or LIVE[command[:2]] in command or "--snapshot" in command


def test_no_static_command_opens_a_socket(blocked: dict[str, str], tmp_path: Path) -> None:
    """Every command line of tests/reliability over its whole input, one after another in a process that a socket would end."""
    script = "from tests.security.test_no_network import run_all; import sys; sys.exit(run_all(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "scratch")],
        env={**os.environ, **blocked, "PYTHONPATH": os.pathsep.join([blocked["PYTHONPATH"], str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(len(RUNS)), "asked"]


def run_all(scratch: str) -> int:
    """The process's own part: how many commands were run, as it should be; the exit code is the first that broke the contract."""
    with harnessed(Path(scratch)):
        for number, (command, files) in enumerate(RUNS):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            os.chdir(folder)
            write(files)
            outcome = run(command)
            if outcome.fault:
                sys.stderr.write(f"{command}: {outcome.fault}")
                return 1
    sys.stdout.write(f"{len(RUNS)} asked")
    return 0


@pytest.mark.parametrize("name", sorted({command[: 1 + (command[0] != "check")] for command, _ in RUNS} | set(OTHERS)))
def test_no_static_command_opens_a_socket_as_people_run_it(name: tuple[str, ...], blocked: dict[str, str], tmp_path: Path) -> None:
    """As processes of their own, with whatever start-up and the template worker do."""
    command, files = next((each for each in RUNS if each[0][: len(name)] == name), (name, {}))
    write({str(tmp_path / path): data for path, data in files.items()})
    judge(run_command(*command, cwd=tmp_path, env=blocked))


def test_check_in_every_format(blocked: dict[str, str], tmp_path: Path) -> None:
    """All in one run, with a model directory, an adapter of a base model that is not here, code, and a template that would fetch if it could."""
    write_model(tmp_path / "model", generation_config={})
    (tmp_path / "model" / "chat_template.jinja").write_text(
        "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os }}"
    )
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/model"}))
    (tmp_path / "train.py").write_text("model.generation_config.eos_token_id = None\n")
    formats = [word for name in FORMATS for word in ("-f", name if name == "text" else f"{name}:out.{name}")]
    outcome = run_command("check", *formats, cwd=tmp_path, env=blocked)
    judge(outcome)
    assert outcome.code == 1
    assert {path.suffix[1:] for path in tmp_path.glob("out.*")} == set(FORMATS) - {"text"}

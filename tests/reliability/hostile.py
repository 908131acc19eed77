"""What is not a mutated file: other kinds of file in its place, and options that no one gives."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import typer.main

from llmdoctor.cli import app
from tests.reliability.cases import Case

LINKS = {
    "itself": None,
    "endless": "/dev/zero",
    "memory": "/proc/self/mem",
    "full": "/dev/full",
    "outside": "/etc/passwd",
    "nowhere": "no/such/file",
}
# They run a command, load a model's libraries, look at the network, write a file that exists, or colour the screen on purpose.
LEFT_OUT = {
    "--live",
    "--sampler",
    "--mode",
    "--messages",
    "--output",
    "-o",
    "--watch",
    "--write-baseline",
    "--overwrite",
    "--color",
    "--help",
}
VALUES = (
    "", " ", "0", "-1", "1", "2", "8", "1e309", "nan", "inf", "-inf", "9" * 400, "1.5", "0.5", "é", "\udcff", "\x1b[31mred", "\u202eevil", "nope",
    "a" * 300,    "/dev/zero", "/dev/null", "=", "a=", "=1", "a=b", "eos_token_id=null", "eos_token_id=[1,2", "temperature=NaN",
    "top_k=" + "9" * 500, "{}", "[]",
    "null",    '{"a":' * 300, "::error::x", "[/INST]", "%s{0}", "--", "1,2,3", "1,", "0:0", "5:-1", "1:nan", "1:1e400", "@", "vllm@", "vllm@9.9",
    "1." * 200, "24GiB", "24", "1e30GiB", "nanGiB", "0GB", "static:0", "static:99999999999", "chunk:0", "decode", "0x0", "99999999x99999999", "2,6",
    "-1,5",    "1," + "9" * 30, "trl-sft", "axolotl", "deepspeed:zero3,bf16", "trainer:", "float8", "eager", "sdpa", "GEN", str(2**31), str(2**63),
)  # fmt: skip


def put(name: str, kind: str) -> None:
    """Put a file of another kind at `name` below the working directory."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path)
    if kind in LINKS:
        path.symlink_to(LINKS[kind] or path.name)
    else:
        _MADE[kind](path)


def remove(path: Path) -> None:
    """Remove what is at `path`, whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name if len(str(path)) > 90 else str(path))


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**33)


_MADE: dict[str, Callable[[Path], object]] = {
    "directory": Path.mkdir,
    "FIFO": os.mkfifo,
    "socket": _socket,
    "8 GiB": _sparse,
    "empty": Path.touch,
    "nothing": lambda path: None,
}
KINDS = (*LINKS, *_MADE)


def with_options(command: tuple[str, ...], case: Case, random: Random, groups: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command with one to four of its options more, each with a value of no use: they contradict each other too."""
    words, own = list(command), _options(command[: 1 + (command[0] in groups)])
    for _ in range(random.choice((1, 1, 2, 4))):
        option = random.choice(own)
        words.append(random.choice([*option.opts, *option.secondary_opts]))
        if not option.is_flag:
            words.append(random.choice(sorted(case.files)) if random.random() < 0.3 else random.choice(VALUES))
    return tuple(words)


_known: dict[tuple[str, ...], list[Any]] = {}


def _options(name: tuple[str, ...]) -> list[Any]:
    if name not in _known:
        made: Any = app.make_app(list(name))
        found = made if hasattr(made, "params") else typer.main.get_command(made)
        for part in name:
            found = found.commands[part] if hasattr(found, "commands") else found
        _known[name] = [each for each in found.params if each.param_type_name == "option" and not LEFT_OUT & {*each.opts}]
    return _known[name]

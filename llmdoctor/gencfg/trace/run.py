"""`gencfg trace -o FILE -- COMMAND`: run it, merge what its processes wrote, leave one file or none."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from llmdoctor.attach.launch import launch
from llmdoctor.attach.records import Record, encode, merge
from llmdoctor.core.errors import QuestionError
from llmdoctor.files.writing import replacing
from llmdoctor.gencfg.trace.read import PARTS, SCHEMA, joined
from llmdoctor.version import __version__

TARGET = "llmdoctor.gencfg.trace.recorder:attach"


def run_traced(command: list[str], output: str) -> tuple[int, str | None]:
    """Run `command`, traced, and write its merged trace to `output`, replacing a trace that is there.

    Returns the command's own exit code, 128+N where signal N ended it, and why the trace could not be written in the end (None: it was).
    Raises QuestionError, before anything runs, where `output` cannot be written or the command cannot be started.
    """
    target = Path(output).absolute()  # wherever the command leads this folder
    parts = make_parts(Path(output)).absolute()
    run = run_record(command)
    try:
        code = launch(command, TARGET, {}, parts)
    except BaseException:
        shutil.rmtree(parts, ignore_errors=True)
        raise
    try:
        write_merged(target, parts, {**run, "exit_code": code})
    except QuestionError as error:
        return code, str(error)
    return code, None


def run_record(command: list[str]) -> Record:
    """The first record of a trace, as the run begins; its end adds seconds and, of a command, its exit code."""
    return {
        "kind": "run",
        "t": time.time(),
        "schema": SCHEMA,
        "tool": {"name": "llmdoctor", "version": __version__},
        "command": command,
        "cwd": os.getcwd(),
        "exit_code": None,
    }


def make_parts(target: Path) -> Path:
    """A folder beside `target` for what each process writes: proof, before the run, that `target` can be written. Else QuestionError."""
    try:
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            raise QuestionError(f"-o {target}: not a regular file, expected the name of a trace to write")
        if target.suffix != ".jsonl":
            raise QuestionError(f"-o {target}: a trace's name ends in .jsonl, such as {target.with_suffix('.jsonl')}")
        return Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=PARTS, dir=target.parent))
    except OSError as error:
        raise QuestionError(f"-o {target}: cannot be written: {error.strerror or error}") from None


def write_merged(target: Path, parts: Path, run: Record) -> None:
    """The run's record first, then everything by time, each generate() with its number; the parts go when the whole is there."""
    try:
        with replacing(target) as file:
            file.write(encode({**run, "seconds": time.time() - run["t"]}) + b"\n")
            for record in joined(map(json.loads, merge(parts.glob("*.jsonl")))):
                file.write(encode(record) + b"\n")
    except QuestionError as error:
        raise QuestionError(f"{error}; what each process recorded is in {parts}") from None
    shutil.rmtree(parts, ignore_errors=True)

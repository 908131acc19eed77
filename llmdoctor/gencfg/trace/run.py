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
from llmdoctor.gencfg.trace.trace_file import PARTS, SCHEMA, joined
from llmdoctor.version import __version__

TARGET = "llmdoctor.gencfg.trace.recorder:attach"


def run_traced(command: list[str], output: str, *, overwrite: bool = False) -> tuple[int, str | None]:
    """Run `command`, traced, and write its merged trace to `output`; a file that exists is replaced only with `overwrite`.

    Returns the command's own exit code, 128+N where signal N ended it, and why the trace could not be written in the end (None: it was).
    Raises QuestionError, before anything runs, where `output` cannot be written or the command cannot be started.
    """
    target = Path(output).absolute()  # wherever the command leads this folder
    parts = make_parts(Path(output), overwrite=overwrite).absolute()
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
        "cwd": _working_directory(),
        "exit_code": None,
    }


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it has been deleted
        return None


def make_parts(target: Path, *, overwrite: bool = False) -> Path:
    """Make a folder beside `target` for what each process writes. Raises QuestionError, before the run, if `target` cannot be written."""
    try:
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            raise QuestionError(f"-o {target}: not a regular file, expected the name of a trace to write")
        if target.exists() and not overwrite:
            raise QuestionError(f"-o {target}: the file exists and is kept: give --overwrite to replace it, or another name")
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

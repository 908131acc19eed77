"""`labels inspect MODEL -- COMMAND` and `--live module:function`: the labels of a real run, as rows of input_ids and labels in a file."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmdoctor.attach.launch import launch
from llmdoctor.attach.records import merge
from llmdoctor.core.errors import QuestionError
from llmdoctor.files.writing import write_file

TARGET = "llmdoctor.labels.live.attach:attach"
CALL = "llmdoctor.labels.live.call"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOptions:
    """The options of a recording: the file of rows to write, the most batches of each process, and whether the run ends behind them."""

    output: str
    batches: int = 4
    stop: bool = False


def record_command(command: list[str], options: RecordOptions) -> tuple[int, str | None]:
    """Run `command` and write the rows of its first training batches.

    Returns the command's exit code, and the reason if nothing was recorded. Raises QuestionError, before anything runs, if the file cannot be
    written or the command cannot be started.
    """
    return _recorded(command, TARGET, {"most": options.batches, "stop": options.stop}, options.output)


def record_function(name: str, options: RecordOptions) -> None:
    """Write the rows of the batches that a function of the user makes. Raises QuestionError if it fails or makes none."""
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise QuestionError(f"--live {name}: expected module:function, such as train:make_trainer")
    parts = _folder(options.output)
    try:
        code = launch(
            [sys.executable, "-m", CALL, name, str(options.batches), str(parts)], "llmdoctor.labels.live.attach:nothing", {}, parts
        )
        problem = _write(parts, options.output)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    if code or problem is not None:
        raise QuestionError(f"--live {name}: it ended with exit code {code}" if code else f"--live {name}: {problem}")


def _recorded(command: list[str], target: str, arguments: Mapping[str, Any], output: str) -> tuple[int, str | None]:
    parts = _folder(output)
    try:
        code = launch(command, target, arguments, parts)
        return code, _write(parts, output)
    finally:
        shutil.rmtree(parts, ignore_errors=True)


def _folder(output: str) -> Path:
    target = Path(output)
    if os.path.isdir(output) or target.suffix != ".jsonl":
        raise QuestionError(f"-o {output}: expected a file name that ends in .jsonl")
    try:
        return Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".parts", dir=target.parent))
    except OSError as error:
        raise QuestionError(f"-o {output}: cannot be written: {error.strerror or error}") from None


def _write(parts: Path, output: str) -> str | None:
    """Write the rows of all processes; return the reason if there are none."""
    records = [json.loads(line) for line in merge(parts.glob("*.jsonl"))]
    rows = [row for record in records if record.get("kind") == "batch" for row in rows_of(record)]
    if rows:
        write_file(Path(output), "".join(json.dumps(row) + "\n" for row in rows))
        return None
    fault = next((record for record in records if record.get("kind") == "fault"), None)
    if fault is not None:
        return f"no batch was recorded: {fault.get('error')} in the recorder ({fault.get('where')})"
    return "no batch was recorded: no process of the command trained with transformers' Trainer or called a transformers model with labels"


def rows_of(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the sequences of a recorded batch without their padding (the positions whose attention_mask is 0)."""
    masks = record.get("attention_mask")
    for at, (ids, labels) in enumerate(zip(record["input_ids"], record["labels"], strict=True)):
        mask = masks[at] if isinstance(masks, list) and at < len(masks) and len(masks[at]) == len(ids) else [1] * len(ids)
        kept = [place for place, bit in enumerate(mask) if bit]
        yield {"input_ids": [ids[place] for place in kept], "labels": [labels[place] for place in kept], "batch": record.get("number")}

"""Hostile pickles, YAML, JSON and requests in a tree through `check`: nothing runs, nothing hangs, memory is bounded, a reason is given."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.security.test_hostile import EVIL, judge


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def nested_tuples() -> bytes:
    """A tuple of tuples of tuples as a dict's key: hashing it takes 2**60 steps."""
    return b"\x80\x02}N" + b"2\x86" * 60 + b"Ns."


def shared_lists() -> bytes:
    """A list that stands for 10**30 values when it is walked."""
    value: Any = []
    for _ in range(30):
        value = [value] * 10
    return pickle.dumps({"output_dir": "o", "per_device_train_batch_size": 1, "x": value})


def zip_bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"N" * (200 << 20))
    return out.getvalue()


def zip_of_many() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for number in range(8000):
            file.writestr(f"a/{number}", b"")
    return out.getvalue()


PICKLES = {
    "a call": pickle.dumps(Runs()),
    "a call, protocol 0": pickle.dumps(Runs(), 0),
    "a call in the state": pickle.dumps({"output_dir": Runs(), "per_device_train_batch_size": 1}),
    "a memo of 4 billion": b"\x80\x02Nr\xff\xff\xff\xff.",
    "a string of 2 GB": b"\x80\x02X\xff\xff\xff\x7fx.",
    "a number of 1 MB": b"\x80\x02\x8b" + (10**6).to_bytes(4, "little") + b"\x7f" * 10**6 + b".",
    "a frame of 16 EB": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "nested tuples as a key": nested_tuples(),
    "shared lists": shared_lists(),
    "nested 200,000 deep": b"(" * 200_000 + b"t" * 200_000 + b".",
    "nested lists": b"]" * 100_000 + b"a" * 99_999 + b".",
    "a zip bomb": zip_bomb(),
    "a zip of 8,000 files": zip_of_many(),
    "a zip of nothing": b"PK\x03\x04" + b"\0" * 100,
    "legacy torch, cut short": pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1001),
    "an extension": b"\x80\x02\x82\x01.",
    "empty": b"",
    "noise": bytes(range(256)) * 40,
    "1 GB": b"",
}


def check(folder: Path, *more: str) -> tuple[Any, float]:
    """The outcome and the seconds of a process that gets no more than 1 GiB of memory."""
    from tests.conftest import Outcome

    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); from llmdoctor.cli.main import entry; sys.exit(entry())"
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, "check", ".", *more], capture_output=True, text=True, cwd=folder, timeout=30, check=False,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"},
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr), time.monotonic() - start


@pytest.mark.parametrize("name", PICKLES)
def test_a_hostile_pickle(name: str, tmp_path: Path) -> None:
    path = tmp_path / "training_args.bin"
    path.write_bytes(PICKLES[name])
    if name == "1 GB":
        os.truncate(path, 2**30)
    outcome, seconds = check(tmp_path)
    judge(outcome)
    assert outcome.code in (0, 1, 3)
    assert seconds < 5
    assert "training_args.bin" in outcome.out or outcome.code == 0
    assert {entry.name for entry in tmp_path.iterdir()} == {"training_args.bin"}


def test_the_pickles_would_have_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(PICKLES["a call"])
    assert (tmp_path / "ran").exists()


ARGS = "output_dir: o\nper_device_train_batch_size: 1\n"
LINE: dict[str, Any] = {"url": "/v1/chat/completions", "body": {"model": "../" * 50}}
ODD_ZERO = {EVIL: EVIL, "stage": EVIL}
LAUGHS = "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
TEXTS: dict[str, tuple[str, str]] = {
    "aliases": ("train.yaml", "output_dir: o\na0: &a0 [x,x,x,x,x,x,x,x,x]\n" + LAUGHS),
    "a mapping in itself": ("train.yaml", "output_dir: &a {b: *a}\n"),
    "merges": ("train.yaml", "output_dir: o\nb: &b {c: 1}\n" + "".join(f"d{n}: {{<<: [*b, *b, *b]}}\n" for n in range(3000))),
    "python tags": ("train.yaml", "output_dir: !!python/object/apply:os.system [touch ran]\nper_device_train_batch_size: 1\n"),
    "deep": ("train.yaml", "output_dir: " + "[" * 50_000),
    "deep by indentation": ("train.yaml", "output_dir: o\n" + "".join("  " * n + f"a{n}:\n" for n in range(300))),
    "long numbers": ("train.yaml", f"output_dir: o\nper_device_train_batch_size: {'9' * 200_000}\n"),
    "hostile keys": ("train.yaml", f"{ARGS}fp16: true\nbf16: true\n{json.dumps(EVIL)}: 1\n"),
    "DeepSpeed's hostile keys": ("ds.json", json.dumps({"zero_optimization": ODD_ZERO, EVIL: EVIL, "bf16": {EVIL: 1}, "x": {"y": "auto"}})),
    "odd shapes": ("ds.json", json.dumps({"zero_optimization": {"stage": [], "offload_param": [1]}, "bf16": 3, "train_batch_size": {}})),
    "numbers without an end": (
        "ds.json",
        '{"zero_optimization": {"reduce_bucket_size": 1e999, "stage": NaN}, "train_batch_size": ' + "9" * 399 + "}",
    ),
    "a hostile name": ("train.yaml", f"{ARGS}deepspeed: {json.dumps(EVIL + '.json')}\n"),
    "a name that leads out": ("train.yaml", f"{ARGS}deepspeed: /dev/zero.json\n"),
    "a FIFO's name": ("train.yaml", f"{ARGS}deepspeed: fifo.json\n"),
    "a hostile request": (
        "r.json",
        json.dumps({"model": EVIL, "messages": [], "temperature": EVIL, "top_p": [], "stop": {"a": 1}, "n": 10**30}),
    ),
    "a batch of odd lines": (
        "b.jsonl",
        "".join(json.dumps({**LINE, "body": {"temperature": value}}) + "\n" for value in (1, {}, [], "x", 1e308)),
    ),
    "a batch of one line of 40 MB": ("b.jsonl", json.dumps(LINE)[:-1] + ', "x": "' + "y" * (40 << 20) + '"}'),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_hostile_text(name: str, tmp_path: Path) -> None:
    file, text = TEXTS[name]
    (tmp_path / file).write_text(text, "utf-8", "surrogatepass")
    if name == "a FIFO's name":
        os.mkfifo(tmp_path / "fifo.json")
    before = {entry.name for entry in tmp_path.iterdir()}
    outcome, seconds = check(tmp_path, "--format", "text", "--format", "json:/dev/null")
    judge(outcome)
    assert seconds < 5
    assert {entry.name for entry in tmp_path.iterdir()} == before

"""Fixtures that every test may use: the command in a process of its own, and small model directories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.finding import Finding
from llmdoctor.core.report import Report

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # one worker per core: more threads than cores wait for each other in busy loops
EOS, END, PAD, VOCAB = 10, 11, 10, 16
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files with live tests first: they take longest, and the many short files then fill both workers to the end."""
    live = {item.path for item in items if item.get_closest_marker("live")}
    items.sort(key=lambda item: item.path not in live)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out)
        return value


def run_command(*arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = 60) -> Outcome:
    """`llmdoctor ARGUMENTS` as a process."""
    done = subprocess.run(
        [sys.executable, "-m", "llmdoctor", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", **(env or {})},
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def llmdoctor() -> Callable[..., Outcome]:
    return run_command


def by_folder(report: Report, paths: list[Path]) -> dict[str, list[Finding]]:
    """The findings of a report about model directories, by the name of the folder; each must have a place."""
    found: dict[str, list[Finding]] = {path.name: [] for path in paths}
    for finding in report.findings:
        assert finding.location is not None
        found[Path(finding.location.file).parent.name].append(finding)
    return found


def write_model(path: Path, **files: Any) -> Path:
    """A chat model's directory that stops as it should; a keyword such as generation_config=... replaces a file, None leaves it out."""
    contents: dict[str, Any] = {
        "config": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": VOCAB, "eos_token_id": END},
        "generation_config": {"bos_token_id": EOS, "pad_token_id": PAD, "eos_token_id": [END, EOS], "transformers_version": "4.37.0"},
        "tokenizer_config": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": TEMPLATE},
        "tokenizer": {
            "version": "1.0",
            "added_tokens": [
                {"id": EOS, "content": "<|endoftext|>", "special": True},
                {"id": END, "content": "<|im_end|>", "special": True},
                {"id": 12, "content": "<|im_start|>", "special": True},
            ],
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
        },
    }
    contents.update(files)
    path.mkdir(parents=True, exist_ok=True)
    for name, value in contents.items():
        if value is None:
            continue
        (path / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value, indent=2))
    return path


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "model", **files: Any) -> Path:
        return write_model(tmp_path / name, **files)

    return make

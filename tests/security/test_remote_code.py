"""Code that a model directory brings along is not run, nor offered to be run, whoever answers "y"."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CONFIG = {"model_type": "mistral", "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "vocab_size": 16}
TEXT = [{"role": "user", "content": "hi"}]
PICTURE = [{"role": "user", "content": [{"type": "image", "image": "x.png"}]}]
DIRECTORIES: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "a processor": ({"processor_config": {"auto_map": {"AutoProcessor": "evil.Own"}, "processor_class": "Own"}}, PICTURE),
    "a processor's parts": (
        {
            "processor_config": {"processor_class": "Qwen2VLProcessor"},
            "preprocessor_config": {"auto_map": {"AutoImageProcessor": "evil.Own"}, "image_processor_type": "Own"},
            "tokenizer_config": {"auto_map": {"AutoTokenizer": ["evil.Own", None]}, "tokenizer_class": "Own"},
        },
        PICTURE,
    ),
    "a tokenizer": ({"tokenizer_config": {"auto_map": {"AutoTokenizer": ["evil.Own", None]}, "tokenizer_class": "Own"}}, TEXT),
    "a configuration": ({"config": {**CONFIG, "model_type": "own", "auto_map": {"AutoConfig": "evil.Own"}}}, TEXT),
}


@pytest.mark.parametrize("name", DIRECTORIES)
def test_remote_code_is_refused(name: str, tmp_path: Path) -> None:
    files, messages = DIRECTORIES[name]
    model, ran = tmp_path / "model", tmp_path / "ran"
    model.mkdir()
    for file, value in {"config": CONFIG, **files}.items():
        (model / f"{file}.json").write_text(json.dumps(value))
    (model / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Own: pass\n")
    (tmp_path / "chat.json").write_text(json.dumps(messages))
    done = subprocess.run(
        [sys.executable, "-m", "llmdoctor", "mask", "inspect", "model", "--messages", "chat.json"],
        input="y\n" * 20, capture_output=True, text=True, cwd=tmp_path, timeout=100, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert not ran.exists()
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("llmdoctor: ")

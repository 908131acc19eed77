"""assistant_only_loss swaps the chat templates that TRL knows: read from the installed package, or refused by name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.inspect import inspect_report
from llmdoctor.labels.options import LabelsOptions
from llmdoctor.labels.trainers import trl_templates

MODEL = Path(__file__).parent / "models" / "chatml_qwen25"
ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
TRAINING = (
    "{% for m in messages %}<|im_start|>{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% endif %}{% endfor %}"
)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = json.loads((MODEL / "tokenizer_config.json").read_text())["chat_template"]
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"templates": {hashlib.sha256(source.encode()).hexdigest(): {"name": "mine", "since": "1.2.0"}}}))
    monkeypatch.setattr(trl_templates, "_TABLE", table)


def report(tmp_path: Path, release: str) -> Any:
    data, config = tmp_path / "data.jsonl", tmp_path / "config.json"
    data.write_text(json.dumps(ROW) + "\n")
    config.write_text(json.dumps({"assistant_only_loss": True}))
    return inspect_report(LabelsOptions(model=str(MODEL), data=str(data), trainer=f"trl-sft@{release}", config=str(config)))


@pytest.mark.usefixtures("known")
def test_a_known_template_is_replaced_by_that_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site" / "trl" / "chat_templates"
    folder.mkdir(parents=True)
    (folder / "mine_training.jinja").write_text(TRAINING)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    row = report(tmp_path, "1.16.0").result["rows"][0]
    assert row["end_trained"]
    assert [token["text"] for token in row["tokens"] if token["label"] == -100] == ["<|im_start|>", "<|im_start|>"]


@pytest.mark.usefixtures("known")
def test_without_the_package_it_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match=r"\(mine\).*pip install --no-deps trl==1.16.0"):
        report(tmp_path, "1.16.0")


@pytest.mark.parametrize(("release", "kind"), [("1.16.0", "ValueError"), ("1.0.0", "RuntimeError")])
def test_a_template_that_trl_does_not_know_is_the_trainers_error(tmp_path: Path, release: str, kind: str) -> None:
    assert report(tmp_path, release).result["error"]["type"] == kind

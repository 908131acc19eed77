"""`check` reports what a configuration teaches if the repository holds its dataset and its tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llmdoctor.check.check import check_report
from llmdoctor.check.options import CheckOptions

MODELS = Path(__file__).parent / "models"
TALK = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MODELS / "gemma", tmp_path / "model")
    (tmp_path / "train.jsonl").write_text(json.dumps(TALK) + "\n")
    return tmp_path


def config(repository: Path, more: str = "") -> None:
    (repository / "sft.yaml").write_text(
        "base_model: model\ndatasets:\n  - path: train.jsonl\n    type: chat_template\noutput_dir: out\nmicro_batch_size: 1\n"
        f"gradient_accumulation_steps: 1\nnum_epochs: 1\noptimizer: adamw_torch\nlearning_rate: 0.0001\nsequence_len: 512\n{more}"
    )


def codes(repository: Path) -> set[str]:
    return {finding.code for finding in check_report(CheckOptions()).findings if finding.code.startswith("LAB")}


def test_an_end_that_is_not_trained_is_found(repository: Path) -> None:
    config(repository)
    assert codes(repository) == {"LAB001"}


def test_with_the_fix_nothing_is_found(repository: Path) -> None:
    config(repository, 'eot_tokens: ["<end_of_turn>"]\n')
    assert codes(repository) == set()


def test_what_is_not_modelled_is_skipped_by_name(repository: Path) -> None:
    config(repository, "sample_packing: true\n")
    report = check_report(CheckOptions())
    assert codes(repository) == set()
    assert any("sample_packing" in one.reason for one in report.skipped)


def test_a_dataset_that_is_not_in_the_repository_is_no_subject(repository: Path) -> None:
    config(repository)
    (repository / "train.jsonl").unlink()
    assert codes(repository) == set()

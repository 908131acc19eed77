"""The labels of a real run, taken by the import hook."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.attach.records import Memory
from llmdoctor.attach.session import Session
from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.inspect import inspect_report
from llmdoctor.labels.live.attach import Batches
from llmdoctor.labels.options import LabelsOptions
from llmdoctor.labels.recorded import RecordOptions, record_command, record_function, rows_of
from tests.conftest import run_command

MODEL = Path(__file__).parent / "models" / "chatml_pad_eos"
SCRIPT = """
import warnings; warnings.simplefilter("ignore")
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer, TrainingArguments
model = {model!r}
tokenizer = AutoTokenizer.from_pretrained(model)
talk = [{{"role": "user", "content": "Name a river."}}, {{"role": "assistant", "content": "The Ebro."}}]
ids = tokenizer.apply_chat_template(talk, return_dict=True)["input_ids"]
trainer = Trainer(
    model=AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model)),
    args=TrainingArguments(output_dir={out!r}, report_to=[], use_cpu=True, max_steps=2, disable_tqdm=True, save_strategy="no"),
    train_dataset=Dataset.from_list([{{"input_ids": ids}}, {{"input_ids": ids[:8]}}]),
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
)
trainer.train()
"""


def test_padding_is_left_out() -> None:
    record = {
        "input_ids": [[5, 6, 0], [7, 8, 9]],
        "labels": [[5, -100, -100], [7, 8, 9]],
        "attention_mask": [[1, 1, 0], [1, 1, 1]],
        "number": 1,
    }
    assert [row["input_ids"] for row in rows_of(record)] == [[5, 6], [7, 8, 9]]
    assert [row["labels"] for row in rows_of(record)] == [[5, -100], [7, 8, 9]]


def test_only_the_first_batches_are_taken_and_a_batch_without_labels_is_none() -> None:
    sink = Memory()
    batches = Batches(Session(sink), 2, stop=True)
    batches.take({"input_ids": [[1]]}, "x")
    for _ in range(2):
        batches.take({"input_ids": [[1]], "labels": [[1]]}, "x")
    with pytest.raises(SystemExit):
        batches.take({"input_ids": [[1]], "labels": [[1]]}, "x")
    assert [record["number"] for record in sink.records] == [1, 2]


def test_a_command_that_trains_nothing_says_so(tmp_path: Path) -> None:
    output = tmp_path / "labels.jsonl"
    code, problem = record_command([sys.executable, "-c", "raise SystemExit(3)"], RecordOptions(output=str(output)))
    assert code == 3
    assert "no batch was recorded" in (problem or "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["train", "train:", "no_such_module_here:make"])
def test_a_function_that_is_none_is_refused(tmp_path: Path, name: str, capfd: Any) -> None:
    with pytest.raises(QuestionError, match="--live"):
        record_function(name, RecordOptions(output=str(tmp_path / "labels.jsonl")))


def test_an_iterable_of_batches_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("def make():\n    return [{'input_ids': [[5, 402]], 'labels': [[5, 402]]}] * 9\n")
    monkeypatch.chdir(tmp_path)
    record_function("mine:make", RecordOptions(output="labels.jsonl", batches=3))
    rows = [json.loads(line) for line in Path("labels.jsonl").read_text().splitlines()]
    assert [row["input_ids"] for row in rows] == [[5, 402]] * 3
    report = inspect_report(LabelsOptions(model=str(MODEL), data="labels.jsonl", trainer="none"))
    assert report.verdict is not None
    assert report.verdict.status == "ok"


@pytest.mark.live
def test_the_labels_of_a_real_trainer(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    script, output = tmp_path / "train.py", tmp_path / "labels.jsonl"
    script.write_text(SCRIPT.format(model=str(MODEL), out=str(tmp_path / "out")))
    assert record_command([sys.executable, str(script)], RecordOptions(output=str(output))) == (0, None)
    report = inspect_report(LabelsOptions(model=str(MODEL), data=str(output), trainer="none"))
    finding = next(one for one in report.findings if one.code == "LAB001")
    assert finding.fix == 'tokenizer.pad_token = "<|endoftext|>"'


@pytest.mark.parametrize("more", [["--trainer", "trl-dpo"], ["--max-length", "8"], ["--config", "c.yaml"]])
def test_a_setting_of_an_imitated_trainer_beside_a_run_is_refused(more: list[str]) -> None:
    outcome = run_command("labels", "inspect", "model", *more, "--", "python", "train.py")
    assert outcome.code == 2
    assert more[0] in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1

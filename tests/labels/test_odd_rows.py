"""Rows of the wrong types, and rows beyond one inspection: one sentence and exit 2, or what a trainer raises."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.inspect import MOST_ROWS, inspect_report
from llmdoctor.labels.options import LabelsOptions

MODEL = str(Path(__file__).parent / "models" / "bos_eos_base")
ODD = [
    ("trl-sft", {"text": 3}),
    ("trl-sft", {"text": ["a"]}),
    ("trl-sft", {"prompt": "a", "completion": [1]}),
    ("trl-sft", {"prompt": 7, "completion": 8}),
    ("trl-sft", {"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]}),
    ("trl-dpo", {"prompt": "a", "chosen": 1, "rejected": "b"}),
    ("trl-dpo", {"prompt": [1], "chosen": [2], "rejected": [3]}),
    ("transformers-clm", {"text": 3}),
    ("llama-factory", {"instruction": 7, "input": [1], "output": "a"}),
    ("none", {"messages": [1]}),
    ("none", {"input_ids": [1, -5, 10**20], "labels": [1, 2, 3]}),
    ("none", {"input_ids": [1, 2], "labels": [-5, 2]}),
]


def inspected(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Any:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return inspect_report(LabelsOptions(model=MODEL, data=str(path), **options))


@pytest.mark.parametrize(("trainer", "row"), ODD, ids=lambda value: value if isinstance(value, str) else "-".join(value))
def test_a_column_of_another_type_is_refused(trainer: str, row: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="expected"):
        inspected(tmp_path, [row], trainer=trainer)


def test_a_pair_without_its_sides_is_the_trainers_error(tmp_path: Path) -> None:
    report = inspected(tmp_path, [{"prompt": "a", "completion": "b"}], trainer="trl-dpo")
    assert report.result["error"]["type"] == "KeyError"


def test_a_row_behind_the_first_rows_is_shown(tmp_path: Path) -> None:
    rows = [{"text": f"row {number}"} for number in range(MOST_ROWS + 5)]
    found = inspected(tmp_path, rows, trainer="trl-sft", row=MOST_ROWS + 3)
    assert [one["row"] for one in found.result["rows"]] == [MOST_ROWS + 3]
    assert found.result["limits"]
    with pytest.raises(QuestionError, match=r"has 2,005 rows"):
        inspected(tmp_path, rows, trainer="trl-sft", row=MOST_ROWS + 5)


@pytest.mark.parametrize("trainer", ["trl-sft", "none", "transformers-clm"])
def test_half_of_a_surrogate_pair_is_refused(trainer: str, tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="surrogate"):
        inspected(tmp_path, [{"text": "\ud800 a"}], trainer=trainer)


def test_a_text_that_would_take_too_much_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="at most 2,097,152"):
        inspected(tmp_path, [{"text": "a" * (2**21 + 1)}], trainer="trl-sft")


def test_a_limit_of_this_tool_is_not_the_trainers_error(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "a b " * 300_000}, {"role": "assistant", "content": "x"}]}]
    with pytest.raises(QuestionError, match="limits"):
        inspected(tmp_path, rows, trainer="trl-sft@1.16.0")


def test_rows_that_are_tokenized_already_go_to_the_collator(tmp_path: Path) -> None:
    found = inspected(tmp_path, [{"input_ids": [5, 402, 6], "labels": [-100, 402, 6]}], trainer="transformers-clm")
    assert [token["label"] for token in found.result["rows"][0]["tokens"]] == [5, -100, 6]  # 402 is the pad token; labels are made anew


def test_a_folder_of_datasets_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "saved"
    datasets.Dataset.from_list([{"text": "Rome."}, {"text": "Paris."}]).save_to_disk(str(folder), num_shards=2)
    report = inspect_report(LabelsOptions(model=MODEL, data=str(folder), trainer="trl-sft@1.16.0"))
    assert [row["row"] for row in report.result["rows"]] == [0, 1]
    both = tmp_path / "both"
    datasets.DatasetDict({"train": datasets.load_from_disk(str(folder))}).save_to_disk(str(both))
    with pytest.raises(QuestionError, match="name one, such as"):
        inspect_report(LabelsOptions(model=MODEL, data=str(both)))
    with pytest.raises(QuestionError, match=r"no state\.json"):
        inspect_report(LabelsOptions(model=MODEL, data=str(tmp_path)))


def test_images_are_a_limit_of_the_verdict(tmp_path: Path) -> None:
    found = inspected(tmp_path, [{"text": "a</s>", "images": ["a.png"]}], trainer="none")
    assert "images are placeholders" in found.verdict.text


def test_thoughts_reach_the_template_under_each_name_from_transformers_5_21_on(tmp_path: Path) -> None:
    """transformers 5.23.0 chat_template_utils.py:679; 5.20 hands a message over as it is."""
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.thinking }}{{ m.content }}{% endfor %}")
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"messages": [{"role": "assistant", "content": "Rome", "reasoning_content": "It is"}]}))

    def ids(**options: Any) -> Any:
        return inspect_report(LabelsOptions(model=str(folder), data=str(data), trainer="trl-sft@1.0.0", **options))

    old, new, major = ids(transformers="5.20.0"), ids(transformers="5.23.0"), ids(transformers="5")
    assert len(old.result["rows"][0]["tokens"]) < len(new.result["rows"][0]["tokens"]) == len(major.result["rows"][0]["tokens"])
    assert "5.21" in major.verdict.text
    assert "5.21" not in new.verdict.text


def test_a_short_content_is_found_in_its_place_and_not_in_a_header(tmp_path: Path) -> None:
    """ "user" is also what the header of the turn says, "s" is in <|im_start|>."""
    talk = [{"role": "user", "content": "user"}, {"role": "assistant", "content": "s"}]
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"messages": talk}))
    found = inspect_report(LabelsOptions(model=str(Path(MODEL).parent / "chatml_gen"), data=str(data), trainer="trl-sft@1.0.0"))
    tokens = found.result["rows"][0]["tokens"]
    assert [(one["text"], one["role"]) for one in tokens if one["role"]] == [("user", "user"), ("s", "assistant")]
    assert [one["text"] for one in tokens if not one["role"]].count("user") == 1


def test_a_labels_column_of_rows_that_are_not_tokenized_is_refused(tmp_path: Path) -> None:
    """trl 1.16.0 hands it to the collator, which raises for another length and trains on it for the same."""
    with pytest.raises(QuestionError, match="labels of the tokens"):
        inspected(tmp_path, [{"text": "a", "labels": [1]}], trainer="trl-sft@1.16.0")


@pytest.mark.parametrize(
    ("trainer", "rows", "kind"),
    [
        ("trl-kto@1.16.0", [{"prompt": "a", "completion": "b"}], "ValueError"),
        ("trl-dpo@1.16.0", [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b"}], "AttributeError"),
        ("trl-sft@1.16.0", [{"messages": []}], "IndexError"),
    ],
)
def test_what_trl_raises_for_a_missing_column(trainer: str, rows: list[dict[str, Any]], kind: str, tmp_path: Path) -> None:
    assert inspected(tmp_path, rows, trainer=trainer).result["error"]["type"] == kind

"""The tokens of --input-ids are named on a picture's axes if the directory has a tokenizer, those of the row that is drawn."""

from __future__ import annotations

import json
from pathlib import Path

from llmdoctor.mask.drawing import pictures
from llmdoctor.mask.options import MaskOptions
from llmdoctor.mask.sources import inputs_of
from llmdoctor.modeldir.directory import read_model_dir
from tests.conftest import run_command
from tests.mask.models import write_config


def _model(folder: Path, name: str = "llama") -> Path:
    path = write_config(folder, name)
    vocabulary = {"<pad>": 0, "cat": 5, "dog": 6, "sat": 7}
    (path / "tokenizer.json").write_text(json.dumps({"added_tokens": [], "model": {"type": "WordLevel", "vocab": vocabulary}}))
    return path


def test_the_texts_are_those_of_the_row_that_fails(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(
        json.dumps({"input_ids": [[5, 5, 5, 5], [6, 7, 0, 6]], "attention_mask": [[1, 1, 1, 1], [1, 1, 0, 1]]})
    )
    _model(tmp_path)
    shown = run_command("mask", "inspect", "llama", "--input-ids", "in.json", "--backend", "sdpa", cwd=tmp_path).out
    assert "row 1 of 2" in shown
    assert "1 sat" in shown
    assert "cat" not in shown


def test_a_token_without_a_text_keeps_its_number(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps({"input_ids": [[5, 9, 7]]}))
    inputs, _ = inputs_of(read_model_dir(str(_model(tmp_path))), MaskOptions(model="llama", input_ids=str(tmp_path / "in.json")))
    assert inputs.tokens == (("cat", "", "sat"),)
    assert pictures([], inputs) == []


def test_a_decoder_beside_an_encoder_is_not_named_by_the_encoders_tokens(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps({"input_ids": [[5, 6, 7]], "decoder_input_ids": [[7, 7]]}))
    _model(tmp_path, "t5")
    report = json.loads(
        run_command("mask", "inspect", "t5", "--input-ids", "in.json", "--backend", "eager", "--format", "html:out.html", "--format", "json",
                    cwd=tmp_path).out
    )  # fmt: skip
    assert report["verdict"]["status"] == "ok"
    page = (tmp_path / "out.html").read_text()
    assert "1 dog" in page  # the encoder's picture
    assert page.count("full attention") >= 1

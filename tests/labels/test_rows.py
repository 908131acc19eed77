"""Rows of real trainers: the ids and labels that they gave to their model, or the exception they raised.

rows.jsonl, rows_ms_swift.jsonl and rows_trl.jsonl (one release of every minor version of trl)
were made with the releases named in each row (`libraries`);
conformance/make_labels.py makes such rows from any trl release, make_ms_swift_labels.py from
ms-swift.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.labels.built import set_up
from llmdoctor.labels.options import LabelsOptions
from llmdoctor.labels.types import Row, TrainerError
from llmdoctor.modeldir.template import TemplateWorker

FOLDER = Path(__file__).parent
FILES = (
    [Path(os.environ["LABELS_ROWS"])]
    if os.environ.get("LABELS_ROWS")
    else [FOLDER / name for name in ("rows.jsonl", "rows_trl.jsonl", "rows_ms_swift.jsonl")]
)
MODELS = Path(os.environ.get("LABELS_MODELS") or FOLDER / "models")
ROWS = [json.loads(line) for file in FILES for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def worker() -> Iterator[TemplateWorker]:
    with TemplateWorker() as worker:
        yield worker


def built(row: dict[str, Any], worker: TemplateWorker, folder: Path) -> dict[str, Any]:
    config = folder / "config.json"
    config.write_text(json.dumps(row["config"]))
    options = LabelsOptions(model=str(MODELS / row["model"]), data="", trainer=f"{row['trainer']}@{row['version']}", config=str(config))
    try:
        sequences = set_up(options, worker).build([Row(number, columns) for number, columns in enumerate(row["data"])])
    except TrainerError as error:
        return {"error": error.kind}
    for one in sequences:
        assert len(one.ids) == len(one.labels) == len(one.sources)
        assert len(one.roles) in (0, len(one.ids))
    return {"rows": [{"ids": one.ids, "labels": one.labels} for one in sequences]}


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_ids_and_labels_are_the_trainers(row: dict[str, Any], worker: TemplateWorker, tmp_path: Path) -> None:
    assert built(row, worker, tmp_path) == {key: row["expected"][key] for key in ("rows", "error") if key in row["expected"]}

"""resolve() against the transformers that is installed here: every scenario, with a real from_pretrained() and generate()."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from conformance import conform
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.installed import installed_version
from llmdoctor.gencfg.versions import parse

pytestmark = pytest.mark.live
for package in ("torch", "transformers"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

SCENARIOS: list[dict[str, Any]] = json.loads(conform.SCENARIOS.read_text())
PARTS = 12


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Any:
    try:
        parse(str(installed_version("transformers")))
    except QuestionError as error:
        pytest.skip(str(error))
    import torch

    from conformance.run_scenarios import Bench

    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("llama")
    return Bench(folder)


@pytest.mark.parametrize("part", range(PARTS))
def test_the_installed_library_agrees(bench: Any, part: int) -> None:
    rows = [bench.row(entry["scenario"], entry["inputs"]) for entry in SCENARIOS[part::PARTS]]
    found = {row["scenario"]: verdict for row in rows if (verdict := conform.disagreement(row, bench.defaults))}
    unknown = {scenario: verdict for scenario, verdict in found.items() if scenario not in conform.KNOWN}
    assert not unknown

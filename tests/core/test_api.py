"""The Python API: generated from the options, current, lazy, and every example of its page runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import llmdoctor
from llmdoctor.api import __all__ as FUNCTIONS
from tests import schema
from tests.cli.screens import make_inputs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api")
    make_inputs(path)
    return path


def test_the_module_and_the_page_are_current(tmp_path: Path) -> None:
    write = "import sys; from pathlib import Path; from generate_api import write; write(Path(sys.argv[1]), Path(sys.argv[2]))"
    module, page = tmp_path / "api.py", tmp_path / "api.md"
    subprocess.run([sys.executable, "-c", write, str(module), str(page)], cwd=ROOT / "docs", check=True)
    assert module.read_text() == (ROOT / "llmdoctor" / "api.py").read_text(), "run python docs/generate.py"
    assert page.read_text() == PAGE, "run python docs/generate.py"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.strip().splitlines()[0][:60])
def test_every_example_of_the_page_runs(example: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exec(compile(example, "docs/api.md", "exec"), {"llmdoctor": llmdoctor})


def test_every_function_has_an_example() -> None:
    code = "\n".join(EXAMPLES)
    assert [name for name in FUNCTIONS if f"llmdoctor.{name}(" not in code] == []


def test_a_report_renders_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    report = llmdoctor.gencfg_check(paths="endless")
    assert report.verdict is not None
    assert report.verdict.status == "problem"
    assert schema.valid(json.loads(report.to_json()))["arguments"] == []
    assert str(report) == report.to_text(width=80)
    assert report.verdict.text in repr(report)
    page = report._repr_html_()
    assert page.startswith("<iframe sandbox srcdoc=")
    assert "<script" not in page
    assert report.to_html().startswith("<!doctype html>")
    assert "GEN001" in report.to_markdown()
    assert json.loads(report.to_sarif())["version"] == "2.1.0"


def test_what_cannot_be_answered_raises_the_sentence() -> None:
    with pytest.raises(llmdoctor.QuestionError, match="nowhere: no such file"):
        llmdoctor.gencfg_show(model="nowhere")


def test_an_import_loads_nothing_and_an_unknown_name_is_an_attribute_error() -> None:
    code = "import llmdoctor, sys; print([name for name in sys.modules if name.startswith('llmdoctor.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'gencfg_shwo'"):
        llmdoctor.gencfg_shwo  # noqa: B018
    assert {"gencfg_show", "recording", "TraceCallback"} <= set(dir(llmdoctor))
    assert callable(llmdoctor.recording)
    assert callable(llmdoctor.TraceCallback)

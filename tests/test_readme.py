"""The pages: links lead somewhere, and the example that docs/examples.py does not write is the command's own output."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmdoctor.gencfg.trace.options import TraceOptions
from llmdoctor.gencfg.trace.trace import trace_report
from llmdoctor.report import Style, render

README = Path(__file__).parent.parent / "README.md"


def test_the_example_of_trace_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace is that of tests/gencfg/runs/train.py."""
    monkeypatch.chdir(Path(__file__).parent / "gencfg" / "trace" / "data")
    screen = render(trace_report(TraceOptions(path="train.jsonl")), "text", Style(80, False))
    command = "$ llmdoctor gencfg trace -o train.jsonl -- python train.py qwen2-vl-tiny\n"
    assert f"```\n{command}{screen}```" in (README.parent / "docs" / "trace.md").read_text()


def test_no_page_tells_people_to_install_the_other_llmdoctor() -> None:
    root = README.parent
    for page in (README, *root.glob("docs/**/*.md"), root / "CONTRIBUTING.md", root / "CHANGELOG.md"):
        assert "pip install llmdoctor" not in page.read_text()


LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)(?:#([\w-]+))?\)")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"])
def test_links_of_pages_outside_the_site_lead_somewhere(page: str) -> None:
    """`make site` does the same for docs/."""
    links = LINK.findall((README.parent / page).read_text())
    assert links
    for target, anchor in links:
        assert (README.parent / target).exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (README.parent / target).read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings], (target, anchor)

"""The magic and the example notebook, executed by a real kernel."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "notebook.ipynb"


@pytest.mark.live
def test_the_example_notebook_runs_and_shows_what_it_states(tmp_path: Path) -> None:
    book = nbformat.read(EXAMPLE, as_version=4)
    kept = [_texts(cell) for cell in book.cells]
    NotebookClient(book, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [_texts(cell) for cell in book.cells] == kept
    assert any("eos_token_id was cleared by cell In[" in text for text in map(_texts, book.cells))


def _texts(cell: nbformat.NotebookNode) -> str:
    """Return the text form of what a cell shows (the page is compared by the tests of pages)."""
    return "".join(output.data["text/plain"] for output in cell.get("outputs", []) if output.output_type == "execute_result")


def test_another_word_is_refused() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "llmdoctor")
    with pytest.raises(ValueError, match="expected %%llmdoctor trace"):
        shell.run_cell_magic("llmdoctor", "tracee", "1")
    InteractiveShell.clear_instance()
    assert "llmdoctor" in sys.modules

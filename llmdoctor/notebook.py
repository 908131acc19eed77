"""The magic of a notebook: `%load_ext llmdoctor`, then a cell that begins with `%%llmdoctor trace`."""

from __future__ import annotations

from typing import Any


def load_ipython_extension(shell: Any) -> None:
    """Register `%%llmdoctor` with `shell`, the running IPython shell."""

    def llmdoctor(line: str, cell: str) -> Any:
        return _trace(shell, line, cell)

    shell.register_magic_function(llmdoctor, "cell")


def _trace(shell: Any, line: str, cell: str) -> Any:
    """Run `cell` while the recorder watches, and return the report, which the notebook shows below what the cell prints.

    An error of the cell is shown by the shell as always; what was recorded until then is reported all the same.
    """
    from llmdoctor.gencfg.trace.recording import recording
    from llmdoctor.printable import PrintableReport

    if line.split() != ["trace"]:
        raise ValueError(
            f"%%llmdoctor {line.strip()}: expected %%llmdoctor trace, the only cell magic; other commands are functions of llmdoctor"
        )
    first = "" if cell.lstrip().startswith("%%") else "#\n"  # in place of the magic's line, so that the lines have the numbers one sees
    count, shell.execution_count = shell.execution_count, len(shell.user_ns["In"]) - 1  # IPython 9 has counted on to the next cell
    try:
        with recording() as recorded:
            shell.run_cell(first + cell)
    finally:
        shell.execution_count = count
    return PrintableReport.of(recorded.report())

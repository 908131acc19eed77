"""The entry point: it catches what must never reach a person as a traceback."""

from __future__ import annotations

import sys

INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT


def main() -> None:
    """Run the command line. An internal fault exits 70, Ctrl-C 130; a reader that closed the pipe ends it quietly."""
    try:
        from llmdoctor.cli.app import app

        app()
    except KeyboardInterrupt:
        _leave("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _drop_stdout()
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 the last line before a traceback
        _internal_fault(error)


def _internal_fault(error: Exception) -> None:
    import os
    import traceback

    from llmdoctor.core.text import clean

    if os.environ.get("LLMDOCTOR_DEBUG"):
        traceback.print_exc()
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.filename.rsplit('llmdoctor/', 1)[-1]}:{last.lineno}"
    _leave(
        f"internal fault, not a finding: {type(error).__name__} at {where}: {clean(str(error))[:300]}\n"
        "Please report it with the output of `llmdoctor env`; LLMDOCTOR_DEBUG=1 shows the traceback.",
        INTERNAL_ERROR,
    )


def _leave(message: str, code: int) -> None:
    sys.stderr.write(f"llmdoctor: {message}\n")
    sys.exit(code)


def _drop_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not raise once more."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()

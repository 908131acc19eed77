"""The entry point: it turns every exception into one sentence, and starts and ends fast."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress

from llmdoctor.core.exitcodes import INTERNAL_ERROR, INTERRUPTED


def entry() -> None:
    """Run main() and leave without the teardown of the interpreter, which takes longer than the work of most commands."""
    gc.set_threshold(50_000)  # start-up allocates many objects and frees few
    try:
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    else:
        code = 0
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # a pipe without a reader, a full disk, a stream that was closed
            stream.flush()
    os._exit(code)


def main() -> None:
    """Run the command line. An internal fault exits 70, Ctrl-C 130; a reader that closed the pipe ends it quietly."""
    try:
        if sys.argv[1:3] == ["gencfg", "check"] and "--help" not in sys.argv:
            # The command renders chat templates: the worker starts while the imports below run.
            from llmdoctor.modeldir.template import prepare_worker

            prepare_worker()
        from llmdoctor.cli.app import make_app

        make_app(sys.argv[1:])()
    except KeyboardInterrupt:
        _leave("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that no later flush raises again
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 the last line before a traceback
        _internal_fault(error)


def _internal_fault(error: Exception) -> None:
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


if __name__ == "__main__":
    entry()

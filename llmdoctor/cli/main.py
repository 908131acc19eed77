"""The entry point: it turns every exception into one sentence, and starts and ends fast.

Only built-in modules are imported outside functions, so that a Ctrl-C during the other imports is caught too.
"""

import errno
import gc
import os
import sys

from llmdoctor.core.exitcodes import FOUND, INTERNAL_ERROR, INTERRUPTED, OK, REFUSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
_REFUSED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE)


def entry() -> None:
    """Run main() and leave without the teardown of the interpreter, which takes longer than the work of most commands."""
    gc.set_threshold(50_000)  # start-up allocates many objects and frees few
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 it was closed: messages go nowhere, and no other file gets its number
    try:
        main(_keep_interrupting)
        code = OK
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else OK if stop.code is None else FOUND
    except KeyboardInterrupt:  # another one, during the sentence about the first
        code = INTERRUPTED
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # a pipe without a reader, a full disk, a stream that was closed
        except KeyboardInterrupt:
            code = INTERRUPTED
    os._exit(code)


def main(first: "Callable[[], None]" = lambda: None) -> None:
    """Call `first` and run the command line. An internal fault exits 70, Ctrl-C 130; a reader that closed the pipe ends it quietly."""
    try:
        first()
        if sys.argv[1:3] == ["gencfg", "check"] and "--help" not in sys.argv:
            # The command renders chat templates: the worker starts while the imports below run.
            from llmdoctor.modeldir.template import prepare_worker

            prepare_worker()
        from llmdoctor.cli.app import make_app

        make_app(sys.argv[1:])()
    except KeyboardInterrupt:
        _leave("interrupted", INTERRUPTED)
    except SystemExit as stop:
        if stop.__context__ is not None and isinstance(stop.__context__.__cause__, KeyboardInterrupt):
            _leave("interrupted", INTERRUPTED)  # typer caught it, and leaves without a word
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that no later flush raises again
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 the last line before a traceback
        if _interrupts:
            _leave("interrupted", INTERRUPTED)  # an extension module turns a Ctrl-C during its import into an ImportError
        reason = _outside_fault(error)
        if reason is None:
            _internal_fault(error)
        else:
            _leave(reason, REFUSED)


_interrupts: list[int] = []


def _keep_interrupting() -> None:
    """Let Ctrl-C raise KeyboardInterrupt as Python does, and again each second until the command ends: libraries lose one.

    What is raised inside __del__ is only printed, which is kept from the screen, and some code catches every exception.
    """
    import _thread
    import signal
    import time

    caller = _thread.get_ident()

    def again() -> None:
        while True:
            time.sleep(1)
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(caller, signal.SIGINT)  # ends a wait in the kernel too
            else:
                _thread.interrupt_main()

    def interrupt(number: int, _frame: object) -> None:
        if not _interrupts:
            _thread.start_new_thread(again, ())
            sys.unraisablehook = lambda _: None  # "Exception ignored in: __del__" is no news any more
        _interrupts.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have had it ignored
        signal.signal(signal.SIGINT, interrupt)


def _outside_fault(error: Exception) -> str | None:
    """Return the reason, in a sentence, if the machine and not llmdoctor is at fault: a full disk, a closed stream, a deleted working directory."""
    if sys.stdout is None:
        return "standard output is closed, so the answer cannot be written"
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"cannot write the answer: {error.strerror}"
    if isinstance(error, OSError) and error.errno in _REFUSED:
        from llmdoctor.core.text import clean

        return clean(f"{error.filename or 'a file'}: {error.strerror}")
    try:
        os.getcwd()
    except OSError:
        return "the working directory no longer exists" if isinstance(error, OSError) else None
    return None


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
    try:
        sys.stderr.write(f"llmdoctor: {message}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # stderr may be closed or full too
    sys.exit(code)


if __name__ == "__main__":
    entry()

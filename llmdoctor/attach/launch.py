"""Runs the user's own command, with every Python process in it attached to, and passes its signals and its end through."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmdoctor.attach.session import VARIABLE
from llmdoctor.core.errors import QuestionError

SITE = Path(__file__).parent / "site"
# What a shell, a scheduler or a person sends to a command; SIGKILL and SIGSTOP cannot be passed on, SIGTSTP stops both by itself.
_PASSED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
_SENT_BY_KERNEL = 0x80  # SI_KERNEL: the terminal has told the whole foreground group, the command with it


def launch(command: Sequence[str], target: str, options: Mapping[str, Any], folder: Path) -> int:
    """Run `command` unchanged, with `target` ("module:function") called as target(session, **options) in each of its Python processes,
    which write their records to `folder`.

    Returns the command's exit code, 128+N where signal N ended it. stdin, stdout and stderr are the caller's own. Raises QuestionError
    where the command cannot be started.
    """
    told = {"package": str(Path(__file__).parents[1]), "target": target, "folder": str(folder.absolute()), "options": dict(options)}
    paths = [str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, VARIABLE: json.dumps(told), "PYTHONPATH": os.pathsep.join(paths)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED, signal.SIGCHLD})
    ends = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a supervisor may have had it ignored: then no end would be told
    try:
        code = _wait(_start(command, environment, mask, ends))
    finally:
        signal.signal(signal.SIGCHLD, ends or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return 128 - code if code < 0 else code


def _start(command: Sequence[str], environment: Mapping[str, str], mask: Iterable[int], ends: Any) -> subprocess.Popen[bytes]:
    name = command[0]
    if shutil.which(name) is None:
        there = os.path.exists(name)
        raise QuestionError(f"{name}: {'not an executable file' if there else 'command not found'}, expected a command to run after --")

    def as_it_was() -> None:
        if ends is signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        return subprocess.Popen(command, env=environment, preexec_fn=as_it_was)  # noqa: PLW1509 one thread
    except OSError as error:
        raise QuestionError(f"{name}: cannot be started: {error.strerror or error}") from None


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Wait for the command's end, and pass on the signals that were sent to this process alone."""
    while (code := child.poll()) is None:
        told = signal.sigwaitinfo({*_PASSED, signal.SIGCHLD})
        if told.si_signo != signal.SIGCHLD and told.si_code != _SENT_BY_KERNEL and child.poll() is None:
            os.kill(child.pid, told.si_signo)
    return code

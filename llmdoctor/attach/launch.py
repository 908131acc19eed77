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
# What a shell, a scheduler, a timer or a person sends to a command; SIGKILL and SIGSTOP cannot be passed on, SIGTSTP stops both by itself.
_PASSED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM}
_SENT_BY_KERNEL = 0x80  # SI_KERNEL: the terminal has sent it to the whole foreground group, and so to the command too


def launch(command: Sequence[str], target: str, options: Mapping[str, Any], folder: Path) -> int:
    """Run `command` unchanged, with `target` ("module:function") called as target(session, **options) in each of its Python processes,
    which write their records to `folder`.

    Returns the command's exit code, 128+N where signal N ended it. stdin, stdout and stderr are the caller's own. Raises QuestionError
    where the command cannot be started.
    """
    attachment = {"package": str(Path(__file__).parents[1]), "target": target, "folder": str(folder.absolute()), "options": dict(options)}
    paths = [str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, VARIABLE: json.dumps(attachment), "PYTHONPATH": os.pathsep.join(paths)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED, signal.SIGCHLD})
    ends = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a supervisor may ignore SIGCHLD, and then no end of a process would be reported
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
        # What this process has inherited (a pipe of the shell's, a lock, a job server) goes on to the command; its own files are not inheritable.
        return subprocess.Popen(command, env=environment, preexec_fn=as_it_was, close_fds=False)  # noqa: PLW1509 one thread
    except OSError as error:
        raise QuestionError(f"{name}: cannot be started: {error.strerror or error}") from None


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Return the command's exit status; pass on the signals that were sent to this process alone."""
    while (code := child.poll()) is None:
        received = signal.sigwaitinfo({*_PASSED, signal.SIGCHLD})
        to_the_group = received.si_code == _SENT_BY_KERNEL and received.si_signo != signal.SIGALRM  # a timer is this process's alone
        if received.si_signo != signal.SIGCHLD and not to_the_group and child.poll() is None:
            os.kill(child.pid, received.si_signo)
    return code

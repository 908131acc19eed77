"""The errors that end a command before it has an answer."""

from __future__ import annotations


class QuestionError(Exception):
    """The question cannot be answered (exit 2): one sentence that names what is wrong, where, and what was expected."""

    kind = "question"


class MissingExtra(QuestionError):
    """A live command needs packages that are not installed."""

    kind = "missing-extra"

    def __init__(self, command: str, package: str, extra: str) -> None:
        from llmdoctor.core.installing import install_line  # reads metadata: only if it is needed

        super().__init__(f"{command} needs {package}, which is not installed here: {install_line(extra)}")
        self.extra = extra

"""The errors that end a command before it has an answer."""

from __future__ import annotations


class QuestionError(Exception):
    """The question could not be asked (exit 2): one sentence that says what, where and what was expected."""

    kind = "question"


class MissingExtra(QuestionError):
    """A live command was asked for, and the packages it runs on are not installed."""

    kind = "missing-extra"

    def __init__(self, command: str, package: str, extra: str) -> None:
        super().__init__(
            f"{command} needs {package}, which is not installed here: install the '{extra}' extra "
            f"(from a checkout: pip install -e '.[{extra}]')"
        )
        self.extra = extra

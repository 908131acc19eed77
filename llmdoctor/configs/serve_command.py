"""The options of a server's command line, in a shell script, a Dockerfile, a compose file or a YAML file of options; nothing is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

_CONTINUED = re.compile(r"\\\s*\n\s*")
_END = frozenset({"&&", "||", ";", "|", "&", ">", ">>", "2>", "2>&1", "<"})


@dataclass(frozen=True, slots=True)
class ServeCommand:
    """A server's command line: the words after its name that are no options, and the options in order, each with its value.

    `line` is the line of the file on which it begins, from 1. An option without a value has the value "true". A value with a shell
    variable in it is kept as it is written.
    """

    line: int
    words: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)


def find_command(text: str, names: Sequence[Sequence[str]]) -> tuple[int, ServeCommand] | None:
    """Return the first command in `text` that one of `names` begins, such as ("vllm", "serve"), with the index of that name.

    Line breaks behind a backslash and lists as in a Dockerfile (["vllm", "serve", ...]) are understood. None if there is none.
    """
    flat = _CONTINUED.sub(lambda found: "\0" * found.group().count("\n") + " ", text)
    number = 1
    for line in flat.split("\n"):
        words = _words(line.replace("\0", ""))
        for index, name in enumerate(names):
            start = _position(words, name)
            if start is not None:
                return index, _command(words[start + len(name) :], number)
        number += 1 + line.count("\0")
    return None


def _words(line: str) -> list[str]:
    line = re.sub(r"^\s*(?:CMD|ENTRYPOINT|command:|args:)?\s*\[(.*)\]\s*$", lambda found: found[1].replace(",", " "), line)
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a quote without an end
        return line.split()


def _position(words: Sequence[str], name: Sequence[str]) -> int | None:
    for start in range(len(words) - len(name) + 1):
        first, *rest = words[start : start + len(name)]
        if first.rsplit("/", 1)[-1] == name[0] and rest == list(name[1:]):
            return start
    return None


def _command(words: Sequence[str], line: int) -> ServeCommand:
    plain: list[str] = []
    options: dict[str, str] = {}
    at = 0
    while at < len(words) and words[at] not in _END:
        word = words[at]
        at += 1
        if not word.startswith("-"):
            plain.append(word)
            continue
        name, equals, value = word.partition("=")
        if not equals:
            has_value = at < len(words) and not words[at].startswith("--") and words[at] not in _END
            value = words[at] if has_value else "true"
            at += has_value
        options["--" + name.lstrip("-").replace("_", "-")] = value
    return ServeCommand(line, tuple(plain), options)

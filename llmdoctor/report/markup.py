"""Escapes for XML and HTML: text from data can be neither a tag nor an attribute, nor a command of a CI runner."""

from __future__ import annotations

import re

_NAMES = re.compile(r"[\w./-]{16,}")  # holds no reference, which would begin with &
_OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]{0,30}")
_REFERENCES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;", "\n": "&#10;"})


def text(value: str) -> str:
    """Return `value`, which is cleaned, as ASCII text between tags, with its line breaks."""
    return "\n".join(_escape(line) for line in value.split("\n"))


def attribute(name: str, value: str) -> str:
    """Return ` name="value"` with a leading space; `value` is cleaned."""
    return f' {name}="{_escape(value)}"'


def breakable(escaped: str) -> str:
    """Return text that text() has escaped, in which a line may end inside a long name: after an underscore or a slash."""
    return _NAMES.sub(lambda found: found.group().replace("_", "_<wbr>").replace("/", "/<wbr>"), escaped)


def whole_options(escaped: str) -> str:
    """Return text that text() has escaped, in which no line ends inside an option: a browser breaks "--strategy" behind its dashes."""
    return _OPTION.sub(r'<span class="option">\g<0></span>', escaped)


def _escape(value: str) -> str:
    escaped = value.translate(_REFERENCES).encode("ascii", "xmlcharrefreplace").decode("ascii")
    return escaped.replace("::", "&#58;&#58;").replace("##[", "#&#35;[")

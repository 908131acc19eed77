"""Escapes that XML and HTML share: what comes from data can be neither a tag nor an attribute, nor a command of a CI runner."""

from __future__ import annotations

import re

_NAMES = re.compile(r"[\w./-]{16,}")  # holds no reference, which would begin with &
_REFERENCES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;", "\n": "&#10;"})


def text(value: str) -> str:
    """`value`, which is cleaned, as ASCII text between tags, its line breaks kept."""
    return "\n".join(_escape(line) for line in value.split("\n"))


def attribute(name: str, value: str) -> str:
    """` name="value"`, with a space before it; `value` is cleaned."""
    return f' {name}="{_escape(value)}"'


def breakable(escaped: str) -> str:
    """Text that text() has escaped, with places inside long names where a line may end: behind an underscore or a slash."""
    return _NAMES.sub(lambda found: found.group().replace("_", "_<wbr>").replace("/", "/<wbr>"), escaped)


def _escape(value: str) -> str:
    escaped = value.translate(_REFERENCES).encode("ascii", "xmlcharrefreplace").decode("ascii")
    return escaped.replace("::", "&#58;&#58;").replace("##[", "#&#35;[")

"""Escapes that XML and HTML share: what comes from data can be neither a tag nor an attribute, nor a command of a CI runner."""

from __future__ import annotations

_REFERENCES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;", "\n": "&#10;"})


def text(value: str) -> str:
    """`value`, which is cleaned, as ASCII text between tags, its line breaks kept."""
    return "\n".join(_escape(line) for line in value.split("\n"))


def attribute(name: str, value: str) -> str:
    """` name="value"`, with a space before it; `value` is cleaned."""
    return f' {name}="{_escape(value)}"'


def _escape(value: str) -> str:
    escaped = value.translate(_REFERENCES).encode("ascii", "xmlcharrefreplace").decode("ascii")
    return escaped.replace("::", "&#58;&#58;").replace("##[", "#&#35;[")

"""The version of llmdoctor, and where its documentation is published."""

from __future__ import annotations

import os

__version__ = "0.1.0"


def rule_url(code: str) -> str | None:
    """Return the address of a rule's page; None if no documentation is published.

    LLMDOCTOR_DOCS is the address under which `make site` is served, such as https://docs.example.org/llmdoctor: llmdoctor itself has no
    published site yet.
    """
    base = os.environ.get("LLMDOCTOR_DOCS", "")
    return f"{base.rstrip('/')}/rules/{code}/" if base.startswith(("https://", "http://")) else None

"""How a test reads a screen: by what must stand on it, in order, and not by a copy of every character."""

from __future__ import annotations


def read_in_order(screen: str, verdict: str, *parts: str) -> None:
    """Assert that the screen begins with the verdict and then holds each part, in this order; line breaks and spacing do not count."""
    text = " ".join(screen.split())
    assert text.startswith(verdict), f"the screen begins with {text[:200]!r}"
    position = len(verdict)
    for part in parts:
        found = text.find(" ".join(part.split()), position)
        assert found >= 0, f"{part!r} is missing after {text[max(0, position - 80) : position]!r} in:\n{screen}"
        position = found + len(" ".join(part.split()))

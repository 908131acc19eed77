"""The screen of `look`: the evidence, and the commands to try."""

from __future__ import annotations

from llmdoctor.core.document import Block, Code, Note, Table
from llmdoctor.look.types import Recognised, Suggestion

_WIDE = 44  # characters of a command that leave room for its explanation on the same line


def document(found: Recognised, versions: tuple[tuple[str, str], ...] = ()) -> tuple[Block, ...]:
    """Return the blocks below the verdict; `versions` are rows for the installed libraries."""
    rows = (*found.evidence, *versions)
    blocks: list[Block] = [Table(("", ""), rows)] if rows else []
    if found.suggestions:
        blocks.append(Code("Try", _commands(found.suggestions)))
    if any(" MODEL" in one.command for one in found.suggestions):
        blocks.append(Note("Note", "MODEL is a model directory, or a hub id that is in the local cache", "dim"))
    blocks.append(Note("Next", "llmdoctor --help lists all commands", "dim"))
    return tuple(blocks)


def _commands(suggestions: tuple[Suggestion, ...]) -> str:
    width = max(len(one.command) for one in suggestions)
    if width < _WIDE:
        return "\n".join(f"{one.command.ljust(width)}  # {one.answers}" for one in suggestions)
    return "\n".join(f"{one.command}\n  # {one.answers}" for one in suggestions)

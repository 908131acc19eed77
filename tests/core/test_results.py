"""The table of result types: every command is in it, and the schema is made from them."""

from __future__ import annotations

import pytest
import typer.main
from typing_extensions import NotRequired, TypedDict

from llmdoctor import results
from llmdoctor.cli.app import make_app
from llmdoctor.commands import COMMANDS
from tests import schema


class Inner(TypedDict):
    """A part of a result."""

    size: int


class Result(TypedDict):
    """A result."""

    parts: list[Inner]
    note: NotRequired[str]


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "result_types", lambda: {"x": Result})
    schema._strict.cache_clear()
    yield
    schema._strict.cache_clear()


def report(command: str, result: object) -> dict[str, object]:
    return {
        "schema": "llmdoctor.report/1",
        "tool": {"name": "llmdoctor", "version": "0"},
        "command": command,
        "arguments": [],
        "subject": {},
        "verdict": {"text": "", "status": "ok"},
        "result": result,
        "findings": [],
        "skipped": [],
    }


@pytest.mark.usefixtures("declared")
def test_a_result_is_held_against_its_type() -> None:
    schema.valid(report("x", {"parts": [{"size": 1}], "note": "n"}))
    schema.valid(report("x", {"parts": []}))
    for wrong in ({}, {"parts": [{"size": "1"}]}, {"parts": [{}]}, {"parts": [], "more": 1}, {"parts": [{"size": 1, "more": 1}]}, None):
        with pytest.raises(AssertionError, match="differences from the schema"):
            schema.valid(report("x", wrong))


def test_every_command_is_in_the_table() -> None:
    group = typer.main.get_command(make_app([]))
    names = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        names |= {name} if inner is None else {f"{name} {one}" for one in inner}
    assert names - {"demo"} <= {command.name for command in COMMANDS}

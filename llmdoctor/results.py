"""The JSON schema of a report, generated from the types of `result` that the table of commands names.

A type is a TypedDict in its job's results.py; its docstring is the description in the schema. Nothing here is imported by a command.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmdoctor.commands import COMMANDS, load

SCHEMA_FILE = Path(__file__).with_name("schema") / "report.schema.json"
ENVELOPE_FILE = SCHEMA_FILE.with_name("envelope.json")


def result_types() -> dict[str, Any]:
    """Return the TypedDict of every command; None for a command whose job has not declared it."""
    return {command.name: load(command.result) for command in COMMANDS}


def untyped() -> tuple[str, ...]:
    """Return the commands whose result is an object of any shape."""
    return tuple(name for name, declared in result_types().items() if declared is None)


def report_schema() -> dict[str, Any]:
    """Return the JSON schema of a report: the envelope, and for each command the type of `result`."""
    import msgspec

    schema: dict[str, Any] = json.loads(ENVELOPE_FILE.read_text(encoding="utf-8"))
    types = {name: declared for name, declared in result_types().items() if declared is not None}
    references, components = msgspec.json.schema_components(types.values(), ref_template="#/$defs/{name}")
    for command, reference in zip(types, references, strict=True):
        asked = {"not": {"required": ["error"]}, "properties": {"command": {"const": command}}}
        schema["allOf"].append({"if": asked, "then": {"properties": {"result": reference}}})
    schema["$defs"].update(components)
    return schema


def schema_text() -> str:
    """Return the text of schema/report.schema.json."""
    return json.dumps(report_schema(), indent=2) + "\n"

"""Reports held against the schema that is generated from the result types; `valid(report)` is for the tests of every command."""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema

from llmdoctor.results import report_schema


def valid(report: dict[str, Any]) -> dict[str, Any]:
    """Return `report`, the JSON that a command wrote; fail if it has a wrong type, lacks a key, or has a key that its type does not declare."""
    errors = sorted(_strict().iter_errors(report), key=lambda error: list(map(str, error.absolute_path)))
    lines = [f"{error.json_path}: {error.message[:300]}" for error in errors[:5]]
    assert not errors, f"{report.get('command')}: {len(errors)} differences from the schema\n" + "\n".join(lines)
    return report


@cache
def _strict() -> jsonschema.Draft202012Validator:
    """The published schema, in which an object with declared keys has no others: a reader of the schema must learn of every key."""
    schema = report_schema()
    for declared in schema["$defs"].values():
        if declared.get("type") == "object" and "properties" in declared:
            declared.setdefault("additionalProperties", False)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)

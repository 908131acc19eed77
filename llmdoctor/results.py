"""The JSON schema of a report, generated from the types of `result` that the table of commands names.

A type is a TypedDict in its job's results.py; its docstring is the description in the schema. Nothing here is imported by a command.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from typing_extensions import NotRequired, Required, get_type_hints, is_typeddict

from llmdoctor.commands import COMMANDS, load

SCHEMA_FILE = Path(__file__).with_name("schema") / "report.schema.json"
ENVELOPE_FILE = SCHEMA_FILE.with_name("envelope.json")
_PLAIN: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null", list: "array", dict: "object"}


def result_types() -> dict[str, Any]:
    """Return the TypedDict of every command; None for a command whose job has not declared it."""
    return {command.name: load(command.result) for command in COMMANDS}


def untyped() -> tuple[str, ...]:
    """Return the commands whose result is an object of any shape."""
    return tuple(name for name, declared in result_types().items() if declared is None)


def report_schema() -> dict[str, Any]:
    """Return the JSON schema of a report: the envelope, and for each command the type of `result`."""
    schema: dict[str, Any] = json.loads(ENVELOPE_FILE.read_text(encoding="utf-8"))
    for command, declared in result_types().items():
        if declared is not None:
            condition = {"not": {"required": ["error"]}, "properties": {"command": {"const": command}}}
            schema["allOf"].append({"if": condition, "then": {"properties": {"result": schema_of(declared, schema["$defs"])}}})
    return schema


def schema_of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a type; a TypedDict is added to `definitions` and referred to.

    Understands TypedDict, list, tuple[X, ...], Mapping and dict with text as keys, Literal, unions, enums, the types of JSON and Any. Raises
    TypeError for any other type.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return {"anyOf": [schema_of(one, definitions) for one in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if kind in (Any, object):
        return {}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if origin in (list, tuple, Sequence):
        return {"type": "array", "items": schema_of(arguments[0], definitions)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": schema_of(arguments[1], definitions)}
    if origin in (Required, NotRequired):
        return schema_of(arguments[0], definitions)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [one.value for one in kind]}
    if is_typeddict(kind):
        return _typed_dict(kind, definitions)
    raise TypeError(f"{kind!r} has no JSON schema")


def _typed_dict(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a reference to the definition of a TypedDict, which has the name of its package too: two jobs may use one name."""
    name = f"{kind.__module__.removeprefix('llmdoctor.').removesuffix('.results')}.{kind.__name__}"
    if name not in definitions:
        definitions[name] = {}  # a type that contains itself refers to the place where the definition will be
        fields = get_type_hints(kind)
        definitions[name].update(
            title=kind.__name__,
            description=inspect.getdoc(kind) or "",
            type="object",
            required=[field for field in fields if field in _required(kind)],
            properties={field: schema_of(declared, definitions) for field, declared in fields.items()},
        )
    return {"$ref": f"#/$defs/{name}"}


def _required(kind: Any) -> set[str]:
    """Return the keys that a TypedDict must have; `__required_keys__` is wrong for NotRequired in annotations that are text."""
    bases = [base for base in getattr(kind, "__orig_bases__", ()) if is_typeddict(base)]
    required = {key for base in bases for key in _required(base)}
    inherited = {key for base in bases for key in get_type_hints(base)}
    for key, declared in get_type_hints(kind, include_extras=True).items():
        origin: Any = get_origin(declared)
        if key not in inherited and origin is not NotRequired and (kind.__total__ or origin is Required):
            required.add(key)
    return required


def schema_text() -> str:
    """Return the text of schema/report.schema.json."""
    return json.dumps(report_schema(), indent=2) + "\n"

"""The type of `result` for every command, and the JSON schema of a report that is generated from these types.

A type is a TypedDict in its job's results.py; its docstring is the description in the schema. Nothing here is imported by a command.
"""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SCHEMA_FILE = Path(__file__).with_name("schema") / "report.schema.json"
ENVELOPE_FILE = SCHEMA_FILE.with_name("envelope.json")

TYPES: dict[str, str] = {
    "gencfg show": "gencfg.results:ShowResult",
    "gencfg diff": "gencfg.results:DiffResult",
    "gencfg check": "gencfg.results:CheckResult",
    "gencfg trace": "gencfg.results:TraceResult",
    "gencfg runaway": "gencfg.results:RunawayResult",
    "gencfg presets": "gencfg.results:PresetsResult",
    "mask inspect": "mask.results:InspectResult",
    "mask test": "mask.results:TestResult",
    "mem compare": "mem.results:CompareResult",
    "mem fit": "mem.results:FitResult",
    "mem measure": "mem.results:MeasureResult",
    "mem kvcache": "mem.results:KvcacheResult",
    "mem oom": "mem.results:OomResult",
    "sample replay": "sample.results:ReplayResult",
    "sample compare": "sample.results:CompareResult",
    "sample engines": "sample.results:EnginesResult",
    "sample draw": "sample.results:DrawResult",
    "labels inspect": "labels.results:InspectResult",
    "labels audit": "labels.results:AuditResult",
    "prompt diff": "labels.results:PromptDiffResult",
    "check": "check.results:CheckResult",
    "look": "look.results:LookResult",
    "env": "look.results:EnvResult",
    "rule": "rules:RuleResult",
}


def result_type(command: str) -> Any:
    """Return the TypedDict of `command`; None for a command whose job has not declared it."""
    module, name = TYPES[command].split(":")
    found = f"llmdoctor.{module}"
    if find_spec(found.rpartition(".")[0]) is None or find_spec(found) is None:
        return None
    return getattr(import_module(found), name, None)


def untyped() -> tuple[str, ...]:
    """Return the commands whose result is an object of any shape."""
    return tuple(command for command in TYPES if result_type(command) is None)


def report_schema() -> dict[str, Any]:
    """Return the JSON schema of a report: the envelope, and for each command the type of `result`."""
    import msgspec

    schema: dict[str, Any] = json.loads(ENVELOPE_FILE.read_text(encoding="utf-8"))
    types = {command: declared for command in TYPES if (declared := result_type(command)) is not None}
    references, components = msgspec.json.schema_components(types.values(), ref_template="#/$defs/{name}")
    for command, reference in zip(types, references, strict=True):
        asked = {"properties": {"command": {"const": command}, "result": {"type": "object"}}}
        schema["allOf"].append({"if": asked, "then": {"properties": {"result": reference}}})
    schema["$defs"].update(components)
    return schema


def schema_text() -> str:
    """Return the text of schema/report.schema.json."""
    return json.dumps(report_schema(), indent=2) + "\n"

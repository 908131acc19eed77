"""Claim files: JSON, JSON lines of a `gencfg trace`, YAML, and Python code with one call of SamplingParams or GenerationConfig."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.opening import Refusal, read_bytes
from llmdoctor.files.yamlfile import parse_yaml
from llmdoctor.sample.keys import changes_no_draw

_LIMIT = 256 << 20
_CONSTRUCTORS: Mapping[str, str] = {"SamplingParams": "vllm", "GenerationConfig": "transformers", "BeamSearchParams": "vllm"}
_MODULES: Mapping[str, str] = {"vllm": "vllm", "sglang": "sglang", "transformers": "transformers"}


def read_claim(path: str) -> dict[str, Any]:
    """Return the keys of a claim file: an object of settings, a stored request, or a `gencfg trace` (its last generate(); FILE#N the N-th).

    Raises QuestionError.
    """
    name, _, number = path.rpartition("#") if "#" in path and path.rpartition("#")[2].isdigit() else (path, "", "")
    data = read_bytes(name, _LIMIT)
    if data is None:
        raise QuestionError(f"{name}: no such file")
    if isinstance(data, Refusal):
        raise QuestionError(f"{name} {data.reason}")
    if name.endswith(".py") or data.lstrip()[:32].split(b"(")[0].decode("ascii", "replace") in _CONSTRUCTORS:
        return _called(name, data)
    if name.endswith((".yaml", ".yml")):
        return _from_yaml(name, data)
    try:
        value: Any = json.loads(data)
    except (ValueError, RecursionError):
        return _traced(name, data, int(number) if number else None)
    if not isinstance(value, dict):
        raise QuestionError(f"{name}: holds a JSON {type(value).__name__}, expected an object of settings")
    if value.get("kind") == "generate":
        return _effective(value)
    request = value.get("request")
    return request if isinstance(request, dict) else value


def _from_yaml(name: str, data: bytes) -> dict[str, Any]:
    found = parse_yaml(data, name, name)
    if found.problems:
        raise QuestionError(found.problems[0].message)
    if not isinstance(found.value, dict):
        raise QuestionError(f"{name}: expected a YAML mapping of settings")
    return dict(found.value)


def _called(name: str, data: bytes) -> dict[str, Any]:
    """The keywords of the one call of a known constructor; the engine is that of the module it is imported from."""
    try:
        tree = ast.parse(data.decode("utf-8", "replace"))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise QuestionError(f"{name}: not Python: {str(error)[:100]}") from None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _callee(node) in _CONSTRUCTORS]
    if len(calls) != 1:
        lines = ", ".join(str(call.lineno) for call in calls[:5])
        what = f"{len(calls)} calls of them (lines {lines})" if calls else "none"
        raise QuestionError(f"{name}: expected one call of {' or '.join(_CONSTRUCTORS)}, found {what}")
    call = calls[0]
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise QuestionError(f"{name}:{call.lineno}: expected keyword arguments with literal values")
    found: dict[str, Any] = {}
    for keyword in call.keywords:
        try:
            found[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, RecursionError):
            if changes_no_draw(str(keyword.arg)):
                found[str(keyword.arg)] = ast.unparse(keyword.value)  # output_kind=RequestOutputKind.DELTA, as vLLM logs it
                continue
            raise QuestionError(f"{name}:{keyword.value.lineno}: {keyword.arg} is not a literal value: its value is unknown here") from None
    modules = [str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    engine = next((_MODULES[module] for module in modules if module in _MODULES), _CONSTRUCTORS[_callee(call)])
    return {"engine": engine, **found}


def _callee(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _traced(name: str, data: bytes, number: int | None) -> dict[str, Any]:
    calls = []
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and record.get("kind") == "generate":
            calls.append(record)
    if not calls:
        raise QuestionError(f"{name}: not JSON, and not a trace with a generate() in it")
    if number is not None and not 1 <= number <= len(calls):
        raise QuestionError(f"{name}#{number}: the trace holds {len(calls)} generate() calls")
    return _effective(calls[-1 if number is None else number - 1])


def _effective(record: dict[str, Any]) -> dict[str, Any]:
    effective = record.get("effective")
    return {"engine": "transformers", "do_sample": False, **effective} if isinstance(effective, dict) else {}

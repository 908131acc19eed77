"""What is claimed of a generation: the engine and the settings, from a file, a stored request, a model, a trace, or options."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.modeldir.directory import read_model_dir
from llmdoctor.modeldir.files import Refusal, read_bytes
from llmdoctor.sample.model import Settings
from llmdoctor.sample.stages import refusal
from llmdoctor.sample.tables import ENGINES, Engine

_LIMIT = 256 << 20
_COLDEST = 1e-30  # a temperature by which a logit of 1e8 can still be divided in float32
_INTEGERS = frozenset({"top_k", "penalty_last_n"})
_OFF: Mapping[str, tuple[float, ...]] = {
    "top_k": (0, -1),
    "top_p": (1.0,),
    "min_p": (0.0,),
    "typical_p": (1.0,),
    "repetition_penalty": (1.0,),
    "frequency_penalty": (0.0,),
    "presence_penalty": (0.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
}
_ALIASES = {"typ_p": "typical_p", "repeat_penalty": "repetition_penalty", "repeat_last_n": "penalty_last_n"}


@dataclass(frozen=True, slots=True)
class Claim:
    """The engine, the settings as it would read them, where they come from; `beams` and `length_penalty` for beam search."""

    engine: Engine
    settings: Settings
    source: str
    beams: int = 1
    length_penalty: float = 1.0

    def words(self) -> str:
        """The claim in words: "transformers, temperature 0.7, top_p 0.9"."""
        named = self.settings.named()
        greedy = named.pop("do_sample", True) is False
        named.pop("logit_bias", None)
        parts = [f"{name} {value:g}" for name, value in named.items()]
        how = f"beam search with {self.beams} beams" if self.beams > 1 else "greedy" if greedy else ""
        return ", ".join([self.engine.name, *([how] if how else []), *parts])


def make_claim(
    file: str | None, options: Settings, engine: str | None, model: str | None, stored: Mapping[str, Any] | None = None, default: str = ""
) -> Claim:
    """The claim of one replay. Options add to a file; they must not contradict it.

    `stored` is a request kept beside its response. Raises QuestionError, also for settings that the engine would refuse.
    """
    said, source = _said(file, model, stored)
    named = options.named()
    for name, value in named.items():
        if name in said and not _same(name, said[name], value):
            raise QuestionError(f"contradictory claims: {source} says {name} {said[name]}, the options say {value}")
    told = said.get("engine")
    if told is not None and engine is not None and told != engine:
        raise QuestionError(f"contradictory claims: {source} says engine {told}, the options say {engine}")
    name = engine or told or default or "transformers"
    if not isinstance(name, str) or name not in ENGINES:
        raise QuestionError(f"{source}: engine {str(name)[:40]!r}: expected one of {', '.join(ENGINES)}")
    if options.do_sample is False and named.keys() & {"temperature", "top_k", "top_p", "min_p"}:
        raise QuestionError(f"contradictory claims: --greedy samples nothing, --{next(iter(named)).replace('_', '-')} is about sampling")
    settings = _settings({**said, **named}, source)
    refused = refusal(ENGINES[name], settings)
    if refused is not None:
        raise QuestionError(f"{source}: {name} refuses this claim: {refused}")
    beams, penalty = said.get("num_beams") or 1, said.get("length_penalty", 1.0)
    if not isinstance(beams, int) or not isinstance(penalty, int | float) or not abs(penalty) <= sys.float_info.max:
        raise QuestionError(f"{source}: num_beams {repr(beams)[:40]}, length_penalty {repr(penalty)[:40]}: expected numbers")
    return Claim(ENGINES[name], settings, source, beams, float(penalty))


def _said(file: str | None, model: str | None, stored: Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    if file is not None:
        return read_claim(file), file
    if stored is not None:
        return _flat(stored), "the request"
    if model is not None:
        config = read_model_dir(model).generation_config
        value = config.value if config is not None else None
        return (_flat(value) if isinstance(value, dict) else {}), f"{model}/generation_config.json"
    return {}, "the options"


def read_claim(path: str) -> dict[str, Any]:
    """A claim file: a JSON object of settings, a stored request, or a `gencfg trace` (its last generate(); FILE#N the N-th)."""
    name, _, number = path.rpartition("#") if "#" in path and path.rpartition("#")[2].isdigit() else (path, "", "")
    data = read_bytes(name, _LIMIT)
    if data is None:
        raise QuestionError(f"{name}: no such file")
    if isinstance(data, Refusal):
        raise QuestionError(f"{name} {data.reason}")
    try:
        value: Any = json.loads(data)
    except (ValueError, RecursionError):
        return _flat(_traced(name, data, int(number) if number else None))
    if not isinstance(value, dict):
        raise QuestionError(f"{name}: holds a JSON {type(value).__name__}, expected an object of settings")
    if value.get("kind") == "generate":
        return _flat(_effective(value))
    request = value.get("request")
    return _flat(request if isinstance(request, dict) else value)


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


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among what a file says: nested sampling_params, extra_body and generation_config are unfolded, aliases renamed."""
    found: dict[str, Any] = {}
    for key in ("generation_config", "extra_body", "sampling_params", "parameters", "options"):
        inner = value.get(key)
        if isinstance(inner, dict):
            found |= _flat(inner)
    known = {field.name for field in fields(Settings)} | {"engine", "num_beams", "length_penalty"}
    for key, item in value.items():
        name = _ALIASES.get(key, key)
        if name in known and item is not None:
            found[name] = item
    return found


def _settings(said: Mapping[str, Any], source: str) -> Settings:
    values: dict[str, Any] = {}
    for field in fields(Settings):
        value = said.get(field.name)
        if value is None or field.name in ("do_sample", "logit_bias"):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            raise QuestionError(f"{source}: {field.name} is {str(value)[:40]!r}, expected a finite number")
        if field.name == "temperature" and value > 0 and not _COLDEST <= value <= 1 / _COLDEST:
            raise QuestionError(f"{source}: temperature is {value}: logits divided by that are beyond float32")
        if field.name in _INTEGERS and value != int(value):
            raise QuestionError(f"{source}: {field.name} is {value}, expected a whole number")
        if value not in _OFF.get(field.name, ()):
            values[field.name] = int(value) if field.name in _INTEGERS else float(value)
    bias = said.get("logit_bias")
    if bias:
        try:
            values["logit_bias"] = {int(token): float(by) for token, by in bias.items()}
        except (AttributeError, TypeError, ValueError, OverflowError):
            raise QuestionError(f"{source}: logit_bias is not an object of ids and numbers") from None
    sample = said.get("do_sample", True)
    if not isinstance(sample, bool):
        raise QuestionError(f"{source}: do_sample is {str(sample)[:40]!r}, expected true or false")
    if not sample or values.get("temperature") == 0:
        values = {name: value for name, value in values.items() if name.endswith("penalty") or name in ("penalty_last_n", "logit_bias")}
        return replace(Settings(**values), do_sample=False)
    return Settings(**values)


def _same(name: str, left: Any, right: Any) -> bool:
    off = _OFF.get(name, ())
    return bool(left == right or (left in off and right in off))

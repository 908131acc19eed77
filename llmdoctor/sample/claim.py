"""What is claimed of a generation: the engine and the settings, from a file, a stored request, a model, a trace, or options."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.opening import Refusal, read_bytes
from llmdoctor.modeldir.directory import read_model_dir
from llmdoctor.sample.keys import ClaimKeys, ids_of, read_keys
from llmdoctor.sample.layering import config_field, model_call
from llmdoctor.sample.stages import as_read, refusal
from llmdoctor.sample.tables import ENGINES, SamplingEngine, find_engine
from llmdoctor.sample.types import SamplingParams

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
_SAMPLING = frozenset({"temperature", "top_k", "top_p", "min_p", "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff"})


@dataclass(frozen=True, slots=True)
class Claim:
    """The engine, the settings as it would read them, where they come from; `beams` and `length_penalty` for beam search.

    `eos` are the ids that end a sequence, `unmodelled` what the claim turns on that is not modelled here, `unknown` its keys that nobody knows.
    """

    engine: SamplingEngine
    settings: SamplingParams
    source: str
    beams: int = 1
    length_penalty: float = 1.0
    eos: tuple[int, ...] = ()
    unmodelled: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def on_scores(self) -> Claim:
        """What of the claim can be asked again of scores it has made already: the cuts that change nothing the second time."""
        order = self.engine.order
        again = "joint" in order or order.index("temperature") < order.index("min_p" if "min_p" in order else "greedy")
        kept = SamplingParams(top_k=self.settings.top_k, min_p=self.settings.min_p if again else None, do_sample=self.settings.do_sample)
        return replace(self, settings=kept)

    def words(self) -> str:
        """The claim in words: "transformers, temperature 0.7, top_p 0.9"."""
        named = self.settings.named()
        greedy = named.pop("do_sample", True) is False
        named.pop("logit_bias", None)
        parts = [f"{name} {value:g}" for name, value in named.items()]
        how = f"beam search with {self.beams} beams" if self.beams > 1 else "greedy" if greedy else ""
        return ", ".join([self.engine.name, *([how] if how else []), *parts])


def make_claim(
    file: str | None,
    options: SamplingParams,
    engine: str | None,
    model: str | None,
    stored: Mapping[str, Any] | None = None,
    default: str = "",
) -> Claim:
    """The claim of one replay. Options add to a file, and must not contradict it; over what a model's files say they win, as in a call.

    `stored` is a request kept beside its response. Raises QuestionError, also for settings that the engine would refuse.
    """
    source = file if file is not None else "the request" if stored is not None else "the options"
    told = read_keys(read_claim(file) if file is not None else stored or {}, source)
    named = _without_do_sample(options)
    for name, value in named.items():
        if name in told.settings and not _same(name, told.settings[name], value):
            raise QuestionError(f"contradictory claims: {source} says {name} {told.settings[name]}, the options say {value}")
    said_engine = told.settings.get("engine")
    if said_engine is not None and engine is not None and said_engine != engine:
        raise QuestionError(f"contradictory claims: {source} says engine {said_engine}, the options say {engine}")
    name = engine or said_engine or default or "transformers"
    chosen = find_engine(name) if isinstance(name, str) else None
    if chosen is None:
        raise QuestionError(f"{source}: engine {str(name)[:40]!r}: expected one of {', '.join(ENGINES)}")
    if options.do_sample is False and named.keys() & _SAMPLING:
        raise QuestionError(f"contradictory claims: --greedy samples nothing, --{next(iter(named)).replace('_', '-')} is about sampling")
    if file is None and stored is None and model is not None:
        told, source = _of_model(model, chosen, named, source)
    said = {**told.settings, **named, **({} if options.do_sample else {"do_sample": False})}
    if not chosen.has_do_sample and options.do_sample:
        said.pop("do_sample", None)  # no option of theirs
    settings = _settings(said, source)
    refused = refusal(chosen, settings)
    if refused is not None:
        raise QuestionError(f"{source}: {chosen.name} refuses this claim: {refused}")
    if not as_read(chosen, settings).do_sample:
        settings = _greedy(settings)
    beams, penalty = said.get("num_beams") or 1, said.get("length_penalty", 1.0)
    if not isinstance(beams, int) or isinstance(penalty, bool) or not isinstance(penalty, int | float) or not abs(penalty) < 1e6:
        raise QuestionError(f"{source}: num_beams {str(beams)[:40]!r}, length_penalty {str(penalty)[:40]!r}: expected numbers")
    return Claim(chosen, settings, source, beams, float(penalty), told.eos, tuple(told.unmodelled), tuple(told.unknown))


def doubts_of(claim: Claim, prompt_known: bool) -> list[str]:
    """Why tokens drawn by this very claim may look as if they were not: what it turns on and is not modelled, or looks at and is not known."""
    doubts = [f"the claim's {name} is not modelled here" for name in claim.unmodelled]
    if not prompt_known:
        doubts += [
            f"{claim.engine.name}'s {option} looks at the prompt too, which is not known: --prompt FILE"
            for option, scope in claim.engine.scope.items()
            if scope != "output" and getattr(claim.settings, option) is not None
        ]
    return doubts


def _of_model(model: str, engine: SamplingEngine, named: Mapping[str, Any], source: str) -> tuple[ClaimKeys, str]:
    """What a call with these options comes to on the model. Options about sampling mean a call that samples."""
    directory = read_model_dir(model)
    call = model_call(directory, engine)
    if named.keys() & _SAMPLING:
        call["do_sample"] = True
    told = read_keys(call, f"{model}/generation_config.json")
    told.eos = ids_of(config_field(directory, "eos_token_id"))
    if engine.model_files == "none":
        return told, source
    over = f" over {engine.name}'s defaults" if engine.model_files == "generation_config" else ""
    return told, f"{model}/generation_config.json{over}"


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
        return _traced(name, data, int(number) if number else None)
    if not isinstance(value, dict):
        raise QuestionError(f"{name}: holds a JSON {type(value).__name__}, expected an object of settings")
    if value.get("kind") == "generate":
        return _effective(value)
    request = value.get("request")
    return request if isinstance(request, dict) else value


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


def _settings(said: Mapping[str, Any], source: str) -> SamplingParams:
    values: dict[str, Any] = {}
    for field in fields(SamplingParams):
        value = said.get(field.name)
        if value is None or field.name in ("do_sample", "logit_bias"):
            continue
        most = 2**63 if field.name in _INTEGERS else sys.float_info.max
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= most:
            raise QuestionError(f"{source}: {field.name} is {str(value)[:40]!r}, expected a finite number")
        if field.name == "temperature" and value > 0 and not _COLDEST <= value <= 1 / _COLDEST:
            raise QuestionError(f"{source}: temperature is {value}: logits divided by that are beyond float32")
        if field.name in _INTEGERS and value != int(value):
            raise QuestionError(f"{source}: {field.name} is {value}, expected a whole number")
        if value not in _OFF.get(field.name, ()):
            values[field.name] = int(value) if field.name in _INTEGERS else float(value)
    bias = said.get("logit_bias")
    if bias:
        values["logit_bias"] = _biases(bias, source)
    sample = said.get("do_sample", True)
    if not isinstance(sample, bool):
        raise QuestionError(f"{source}: do_sample is {str(sample)[:40]!r}, expected true or false")
    settings = SamplingParams(**values)
    return settings if sample and settings.temperature != 0 else _greedy(settings)


def _biases(bias: Any, source: str) -> dict[int, float]:
    """Ids and numbers; -inf bans a token."""
    try:
        found = {int(token): float(by) for token, by in bias.items()}
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise QuestionError(f"{source}: logit_bias is not an object of ids and numbers") from None
    odd = next((token for token, by in found.items() if not by < math.inf or not abs(token) < 2**62), None)
    if odd is not None:
        raise QuestionError(f"{source}: logit_bias of token {str(odd)[:40]} is {found[odd]}, expected a number or -inf")
    return found


def _greedy(settings: SamplingParams) -> SamplingParams:
    values = {
        name: value for name, value in settings.named().items() if name.endswith("penalty") or name in ("penalty_last_n", "logit_bias")
    }
    return replace(SamplingParams(**values), do_sample=False)


def _without_do_sample(options: SamplingParams) -> dict[str, Any]:
    return {name: value for name, value in options.named().items() if name != "do_sample"}


def _same(name: str, left: Any, right: Any) -> bool:
    off = _OFF.get(name, ())
    return bool(left == right or (left in off and right in off))

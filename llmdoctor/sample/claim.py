"""What is claimed of a generation: the engine and the settings, from a file, a stored request, a model, a trace, or options."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.inputs import Inputs
from llmdoctor.core.text import plural
from llmdoctor.modeldir.directory import read_model_dir
from llmdoctor.sample.claim_file import read_claim
from llmdoctor.sample.entry import SamplingEngine
from llmdoctor.sample.keys import ClaimKeys, ids_of, read_keys
from llmdoctor.sample.known_engines import find_engine
from llmdoctor.sample.layering import config_field, model_call
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.stages import as_read, refusal
from llmdoctor.sample.tables import ENGINES
from llmdoctor.sample.types import SamplingParams

_COLDEST = 1e-30  # a temperature by which a logit of 1e8 can still be divided in float32
_INTEGERS = frozenset({"top_k", "penalty_last_n", "min_tokens"})
_IDS = ("suppress_tokens", "stop_token_ids")
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
    "min_tokens": (0,),
}
_KEPT = ("penalty_last_n", "logit_bias", "suppress_tokens", "min_tokens", "stop_token_ids")  # beside greedy decoding
_SAMPLING = frozenset({"temperature", "top_k", "top_p", "min_p", "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff"})


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed: the engine, the settings as it would read them, where they come from; `beams` and `length_penalty` for beam search.

    `eos` are the ids that end a sequence, `unmodelled` what the claim turns on that is not modelled here, `engine_stated` whether it names its
    engine, `inputs` what became of every key.
    """

    engine: SamplingEngine
    settings: SamplingParams
    source: str
    beams: int = 1
    length_penalty: float = 1.0
    eos: tuple[int, ...] = ()
    unmodelled: tuple[str, ...] = ()
    engine_stated: bool = True
    inputs: Inputs = field(default_factory=Inputs)

    def on_scores(self) -> Claim:
        """What of the claim can be asked again of scores it has made already: the cuts that change nothing the second time."""
        order = self.engine.order
        again = "joint" in order or order.index("temperature") < order.index("min_p" if "min_p" in order else "greedy")
        kept = SamplingParams(top_k=self.settings.top_k, min_p=self.settings.min_p if again else None, do_sample=self.settings.do_sample)
        return replace(self, settings=kept)

    def words(self) -> str:
        """Return the claim in words: "transformers 5.23.0, temperature 0.7, top_p 0.9"."""
        named = self.settings.named()
        greedy = named.pop("do_sample", True) is False
        parts = [f"{name} {value:g}" for name, value in named.items() if isinstance(value, int | float)]
        parts += [f"{name} of {plural(len(value), 'token')}" for name, value in named.items() if not isinstance(value, int | float)]
        how = f"beam search with {self.beams} beams" if self.beams > 1 else "greedy" if greedy else ""
        return ", ".join([self.engine.label, *([how] if how else []), *parts])


def make_claim(options: ReplayOptions, *, stored: Mapping[str, Any] | None = None, default: str = "") -> Claim:
    """Return the claim of one replay. Options add to a file, and must not contradict it; they replace what a model's files set, as in a call.

    `stored` is a request kept beside its response, `default` the engine if nothing names one. Raises QuestionError, also for settings that
    the engine would refuse and for keys that are unknown.
    """
    file, given = options.claim, options.settings
    source = file if file is not None else "the request" if stored is not None else "the options"
    values = read_claim(file) if file is not None else stored or {}
    keys = read_keys(values, source, options.without)
    _check_without(options.without, keys, source)
    _check_known(keys, source)
    named = {name: value for name, value in given.named().items() if name != "do_sample"}
    for name, value in named.items():
        if name in keys.settings and not _same(name, keys.settings[name], value):
            raise QuestionError(f"contradictory claims: {source} sets {name} {keys.settings[name]}, the options set {value}")
    engine = _engine_of(options, keys, source, default)
    if given.do_sample is False and named.keys() & _SAMPLING:
        raise QuestionError(f"contradictory claims: --greedy samples nothing, --{next(iter(named)).replace('_', '-')} is about sampling")
    if file is None and stored is None and options.model is not None:
        keys, source = _of_model(options.model, engine, named, source)
    merged = {**keys.settings, **named, **({} if given.do_sample else {"do_sample": False})}
    if not engine.has_do_sample and given.do_sample:
        merged.pop("do_sample", None)
    claim = _claim_of(engine, keys, merged, source)
    return replace(claim, engine_stated=options.engine is not None or "engine" in keys.settings)


def _claim_of(engine: SamplingEngine, keys: ClaimKeys, merged: dict[str, Any], source: str) -> Claim:
    """The claim of the merged keys. Raises QuestionError."""
    used = dict(merged)
    if not merged.get("min_tokens"):
        if merged.pop("stop_token_ids", None):
            keys.ignored["stop_token_ids"] = "ends a sequence: without min_tokens it changes no draw"  # noqa: S105
    else:
        merged["stop_token_ids"] = [*ids_of(merged.get("stop_token_ids")), *keys.eos]
    settings = _settings(merged, source)
    refused = refusal(engine, settings)
    if refused is not None:
        raise QuestionError(f"{source}: {engine.name} refuses this claim: {refused}")
    if not as_read(engine, settings).do_sample:
        settings = _greedy(settings)
    beams, penalty = merged.get("num_beams") or 1, merged.get("length_penalty", 1.0)
    if not isinstance(beams, int) or isinstance(penalty, bool) or not isinstance(penalty, int | float) or not abs(penalty) < 1e6:
        raise QuestionError(f"{source}: num_beams {str(beams)[:40]!r}, length_penalty {str(penalty)[:40]!r}: expected numbers")
    unmodelled = [*keys.unmodelled, *sorted(keys.harmless & engine.not_harmless)]
    if beams > 1 and settings.do_sample:
        unmodelled.append(f"num_beams {beams} with do_sample (beam sampling)")
    inputs = Inputs(used=_plain({"engine": engine.name, **used}), ignored=keys.ignored, assumed=_assumed(engine, keys, settings))
    return Claim(
        engine=engine,
        settings=settings,
        source=source,
        beams=beams,
        length_penalty=float(penalty),
        eos=keys.eos,
        unmodelled=tuple(unmodelled),
        inputs=inputs,
    )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _assumed(engine: SamplingEngine, keys: ClaimKeys, settings: SamplingParams) -> dict[str, Any]:
    """What nothing sets, and the answer depends on."""
    found: dict[str, Any] = {} if engine.wanted else {"engine version": engine.version}
    if settings.do_sample and settings.temperature is None:
        found["temperature"] = 1.0
    if settings.min_tokens and not keys.eos:
        found["eos_token_id"] = "unknown: min_tokens bans it too"  # noqa: S105
    return found


def _check_known(keys: ClaimKeys, source: str) -> None:
    if keys.unknown:
        name = keys.unknown[0]
        more = f" (and {len(keys.unknown) - 1} more: {', '.join(keys.unknown[1:6])})" if len(keys.unknown) > 1 else ""
        raise QuestionError(
            f"{source}: {name} is no known setting{more}: it could change what is drawn. --without {name} answers as if it were not set"
        )


def _check_without(without: Sequence[str], keys: ClaimKeys, source: str) -> None:
    for name in without:
        if name not in keys.ignored:
            raise QuestionError(f"--without {name}: {source} does not set it")


def _engine_of(options: ReplayOptions, keys: ClaimKeys, source: str, default: str) -> SamplingEngine:
    """The claimed engine; transformers if nothing names one and the file does not tell. Raises QuestionError."""
    stated = keys.settings.get("engine")
    if stated is not None and options.engine is not None and str(stated).partition("@")[0] != options.engine.partition("@")[0]:
        raise QuestionError(f"contradictory claims: {source} sets engine {stated}, the options set {options.engine}")
    name = options.engine or stated or default or "transformers"
    found = find_engine(name) if isinstance(name, str) else None
    if found is None:
        raise QuestionError(f"{source}: engine {str(name)[:40]!r}: expected one of {', '.join(ENGINES)}")
    return found


def doubts_of(claim: Claim, prompt_known: bool) -> list[str]:
    """Why tokens drawn by this very claim may look as if they were not: what it turns on and is not modelled, or looks at and is not known."""
    doubts = [f"the claim's {name} is not modelled here (--without answers as if it were not set)" for name in claim.unmodelled]
    if not prompt_known:
        doubts += [
            f"{claim.engine.name}'s {option} looks at the prompt too, which is not known (--prompt FILE)"
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
    keys = read_keys(call, f"{model}/generation_config.json")
    keys.eos = ids_of(config_field(directory, "eos_token_id"))
    if engine.model_files == "none":
        return keys, source
    over = f" over {engine.name}'s defaults" if engine.model_files == "generation_config" else ""
    return keys, f"{model}/generation_config.json{over}"


def _settings(given: Mapping[str, Any], source: str) -> SamplingParams:
    values: dict[str, Any] = {}
    for parameter in fields(SamplingParams):
        value = given.get(parameter.name)
        if value is None or parameter.name in ("do_sample", "logit_bias", *_IDS):
            continue
        most = 2**63 if parameter.name in _INTEGERS else sys.float_info.max
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= most:
            raise QuestionError(f"{source}: {parameter.name} is {str(value)[:40]!r}, expected a finite number")
        if parameter.name == "temperature" and value > 0 and not _COLDEST <= value <= 1 / _COLDEST:
            raise QuestionError(f"{source}: temperature is {value}: logits divided by that are beyond float32")
        if parameter.name in _INTEGERS and value != int(value):
            raise QuestionError(f"{source}: {parameter.name} is {value}, expected a whole number")
        if value not in _OFF.get(parameter.name, ()):
            values[parameter.name] = int(value) if parameter.name in _INTEGERS else float(value)
    bias = given.get("logit_bias")
    if bias:
        values["logit_bias"] = _biases(bias, source)
    for name in _IDS:
        if (ids := ids_of(given.get(name))) and (name == "suppress_tokens" or values.get("min_tokens")):
            values[name] = tuple(dict.fromkeys(ids))
    sample = given.get("do_sample", True)
    if not isinstance(sample, bool):
        raise QuestionError(f"{source}: do_sample is {str(sample)[:40]!r}, expected true or false")
    settings = SamplingParams(**values)
    return settings if sample and settings.temperature != 0 else _greedy(settings)


def _biases(bias: Any, source: str) -> dict[int, float]:
    """Ids and numbers; -inf bans a token."""
    try:
        pairs = bias if isinstance(bias, list) else bias.items()  # llama.cpp: [[id, bias], ...]
        found = {int(token): float(by) for token, by in pairs}
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise QuestionError(f"{source}: logit_bias is not an object of ids and numbers") from None
    odd = next((token for token, by in found.items() if not by < math.inf or not abs(token) < 2**62), None)
    if odd is not None:
        raise QuestionError(f"{source}: logit_bias of token {str(odd)[:40]} is {found[odd]}, expected a number or -inf")
    return found


def _greedy(settings: SamplingParams) -> SamplingParams:
    values = {name: value for name, value in settings.named().items() if name.endswith("penalty") or name in _KEPT}
    return replace(SamplingParams(**values), do_sample=False)


def _same(name: str, left: Any, right: Any) -> bool:
    off = _OFF.get(name, ())
    return bool(left == right or (left in off and right in off))

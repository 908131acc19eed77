"""A row of logits through one engine's stages. Each stage is a small function; which run, and in which order, the tables say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from llmdoctor.sample import cuts
from llmdoctor.sample.tables import Engine
from llmdoctor.sample.types import Before, Floats, Row, Settings, first_row

WINDOW = 64  # llama.cpp's penalty_last_n
_VLLM_LEAST, _GPT_FAST_LEAST, _SGLANG_GREEDY = 0.01, 1e-5, 1e-6
_NOBODY = Before()


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage left of the row before it."""

    name: str
    row: Row
    before: Row

    @property
    def mass_kept(self) -> float:
        """The share of the mass before it that the stage kept; 1.0 where it removed nothing."""
        return 1.0 if self.row is self.before else share(self.before, self.row)


@dataclass(frozen=True, slots=True)
class Call:
    """What a stage may ask: the engine, the settings as it reads them, the tokens before the step."""

    engine: Engine
    read: Settings
    before: Before


def refusal(engine: Engine, settings: Settings) -> str | None:
    """What the engine says to settings that it does not take; None where it takes them."""
    named = settings.named()
    named.pop("do_sample", None)
    strange = [name for name in named if name not in engine.takes]
    if strange:
        names = str(strange) if engine.name == "transformers" else ", ".join(strange)
        return engine.unknown.format(names=names, first=repr(strange[0]))
    for rule in engine.ranges:
        value = named.get(rule.option)
        sampling = settings.do_sample or rule.option.endswith("penalty")  # transformers makes no warper without do_sample
        if value is not None and (sampling or engine.name != "transformers") and not rule.accepts(value):
            return rule.says.format(value=value)
    return None


def as_read(engine: Engine, settings: Settings) -> Settings:
    """The settings as the engine reads them: clamped temperatures, temperature 0 as greedy, its "off" values as not named."""
    values = {name: value for name, value in settings.named().items() if value not in engine.off.get(name, ())}
    temperature = values.get("temperature")
    if temperature is not None:
        if engine.name == "vllm":
            values["temperature"] = max(temperature, _VLLM_LEAST) if temperature > 0 else temperature
            if temperature == 0:
                values = {name: value for name, value in values.items() if name not in ("temperature", "top_k", "top_p", "min_p")}
                values["do_sample"] = False
        elif engine.name == "sglang" and temperature < _SGLANG_GREEDY:
            values |= {"temperature": 1.0, "top_k": 1}
        elif engine.name == "llama.cpp" and temperature <= 0:
            del values["temperature"]
            values["do_sample"] = False
        elif engine.name == "gpt-fast":
            values["temperature"] = max(temperature, _GPT_FAST_LEAST)
    if engine.name == "sglang" and values.get("top_k") == 1:
        values["do_sample"] = False
    return Settings(**values)


def run(engine: Engine, settings: Settings, logits: Floats, before: Before = _NOBODY) -> list[Stage]:
    """The row after each stage that is on, first the raw one. `logits` [V] float32; `settings` must not be refused."""
    call = Call(engine, as_read(engine, settings), before)
    row = first_row(logits)
    passed = [Stage("logits", row, row)]
    for name in _active(engine, call.read):
        after = _STAGES[name](row, call)
        passed.append(Stage(name, after, row))
        row = after
    return passed


def active(engine: Engine, settings: Settings) -> list[str]:
    """The engine's stages that these settings turn on, in its order. Greedy ends the chain, but for llama.cpp, which filters first."""
    return _active(engine, as_read(engine, settings))


def _active(engine: Engine, read: Settings) -> list[str]:
    found: list[str] = []
    for name in engine.order:
        if name == "greedy":
            if not read.do_sample:
                return [*found, name]
        elif name == "joint":
            if any(value is not None for value in (read.top_k, read.top_p, read.min_p)):
                found.append(name)
        elif getattr(read, name) is not None:
            found.append(name)
    return found


def share(before: Row, after: Row) -> float:
    """The mass of the tokens of `after` in the distribution `before`; 1.0 where none are gone."""
    if len(after.x) == len(before.x):
        return 1.0
    e, total = before.weights()
    at = after.tokens() if before.ids is None else np.searchsorted(before.ids, after.tokens())
    return min(1.0, float(e[at].sum(dtype=np.float64)) / total)


def _temperature(row: Row, call: Call) -> Row:
    return Row(row.x / np.float32(call.read.temperature), row.ids)


def _top_k(row: Row, call: Call) -> Row:
    k = call.read.top_k or 0
    return row if k <= 0 else cuts.top_k(row, k, call.engine.ties)


def _top_p(row: Row, call: Call) -> Row:
    p = 1.0 if call.read.top_p is None else call.read.top_p
    if p >= 1.0:
        return row
    return cuts.top_p_descending(row, p) if call.engine.name == "llama.cpp" else cuts.top_p_ascending(row, p)


def _min_p(row: Row, call: Call) -> Row:
    p = call.read.min_p or 0.0
    if p <= 0.0:
        return row
    return cuts.min_p_logits(row, p) if call.engine.name == "llama.cpp" else cuts.min_p_probs(row, p)


def _typical(row: Row, call: Call) -> Row:
    mass = 1.0 if call.read.typical_p is None else call.read.typical_p
    if mass >= 1.0:
        return row
    return cuts.typical_exact(row, mass) if call.engine.name == "llama.cpp" else cuts.typical(row, mass)


def _joint(row: Row, call: Call) -> Row:
    return cuts.joint(row, call.read.top_k, 1.0 if call.read.top_p is None else call.read.top_p, call.read.min_p or 0.0)


def _epsilon(row: Row, call: Call) -> Row:
    least = call.read.epsilon_cutoff or 0.0
    return cuts.floor(row, least) if 0 < least < 1 else row


def _eta(row: Row, call: Call) -> Row:
    least = call.read.eta_cutoff or 0.0
    return cuts.eta(row, least) if 0 < least < 1 else row


def _bias(row: Row, call: Call) -> Row:
    bias = call.read.logit_bias or {}
    limit = 100.0 if call.engine.name == "vllm" else np.inf  # sampling_params.py from_optional clamps it
    changed = _changed(row, {token: np.float32(min(limit, max(-limit, value))) for token, value in bias.items()}, lambda x, by: x + by)
    return changed.keep(~np.isneginf(changed.x)) if np.isneginf(changed.x.min()) else changed


def _repetition(row: Row, call: Call) -> Row:
    penalty = np.float32(call.read.repetition_penalty or 1.0)
    tokens = dict.fromkeys(counted(call, "repetition_penalty"), penalty)
    return _changed(row, tokens, lambda x, by: np.where(x < 0, x * by, x / by))


def _frequency(row: Row, call: Call) -> Row:
    counts = Counter(counted(call, "frequency_penalty"))
    size = max(1, sum(counts.values())) if call.engine.name == "tgi" else 1
    penalty = np.float32(call.read.frequency_penalty or 0.0)
    return _changed(row, {token: np.float32(count / size) * penalty for token, count in counts.items()}, lambda x, by: x - by)


def _presence(row: Row, call: Call) -> Row:
    penalty = np.float32(call.read.presence_penalty or 0.0)
    return _changed(row, dict.fromkeys(counted(call, "presence_penalty"), penalty), lambda x, by: x - by)


def counted(call: Call, option: str) -> tuple[int, ...]:
    """The tokens that the engine's penalty `option` looks at."""
    scope, before, last_n = call.engine.scope[option], call.before, call.read.penalty_last_n
    if scope == "output":
        return before.output
    both = before.prompt + before.output
    window = WINDOW if last_n is None else last_n
    return both if scope == "all" or window < 0 else both[max(0, len(both) - window) :]  # -1: llama.cpp's whole context


def _changed(row: Row, tokens: dict[int, np.float32], change: Callable[[Floats, Floats], Floats]) -> Row:
    ids = np.fromiter(tokens, np.int64, len(tokens))
    by = np.fromiter(tokens.values(), np.float32, len(tokens))
    if row.ids is None:
        known = (ids >= 0) & (ids < len(row.x))
        at = ids[known]
    else:
        at = np.searchsorted(row.ids, ids)
        known = (at < len(row.ids)) & (row.ids[np.minimum(at, len(row.ids) - 1)] == ids)
        at = at[known]
    x = row.x.copy()
    x[at] = change(x[at], by[known])
    return Row(x, row.ids)


_STAGES: dict[str, Callable[[Row, Call], Row]] = {
    "logit_bias": _bias,
    "repetition_penalty": _repetition,
    "frequency_penalty": _frequency,
    "presence_penalty": _presence,
    "greedy": lambda row, _: cuts.greedy(row),
    "temperature": _temperature,
    "top_h": lambda row, call: cuts.top_h(row, call.read.top_h or 1.0),
    "top_k": _top_k,
    "top_p": _top_p,
    "min_p": _min_p,
    "typical_p": _typical,
    "epsilon_cutoff": _epsilon,
    "eta_cutoff": _eta,
    "joint": _joint,
}


def without_filters(settings: Settings) -> Settings:
    """The same call with every cut off: what is left is penalties, bias and temperature."""
    return replace(settings, top_k=None, top_p=None, min_p=None, typical_p=None, top_h=None, epsilon_cutoff=None, eta_cutoff=None)

"""A row of logits through one engine's stages. Each stage is a small function; the tables hold which of them run, and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmdoctor.sample import cuts
from llmdoctor.sample.entry import SamplingEngine
from llmdoctor.sample.types import Floats, LogitRow, SamplingParams, TokenContext, first_row

WINDOW = 64  # llama.cpp's penalty_last_n
_NO_TOKENS = TokenContext()


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage left of the row before it."""

    name: str
    row: LogitRow
    before: LogitRow

    @property
    def mass_kept(self) -> float:
        """The share of the mass before the stage that the stage kept; 1.0 if it removed nothing."""
        return 1.0 if self.row is self.before else share(self.before, self.row)


@dataclass(frozen=True, slots=True)
class StageContext:
    """What a stage may use: the engine, the parameters as the engine reads them, the tokens before the step."""

    engine: SamplingEngine
    read: SamplingParams
    before: TokenContext


def refusal(engine: SamplingEngine, settings: SamplingParams) -> str | None:
    """Return the engine's error message for settings that it does not accept; None if it accepts them."""
    named = settings.named()
    named.pop("do_sample", None)
    strange = [name for name in named if name not in engine.takes]
    if strange:
        return engine.unknown.format(names=", ".join(strange), list=strange, first=repr(strange[0]))
    for rule in engine.ranges:
        value = named.get(rule.option)
        used = settings.do_sample or engine.checks_unused or rule.option.endswith("penalty")
        if value is not None and used and not rule.accepts(value):
            return rule.says.format(value=value)
    return None


def as_read(engine: SamplingEngine, settings: SamplingParams) -> SamplingParams:
    """Return the settings as the engine reads them: clamped temperatures, temperature 0 as greedy, its "off" values as not set."""
    values = {name: value for name, value in settings.named().items() if value not in engine.off.get(name, ())}
    return SamplingParams(**engine.reads(values))


def run(engine: SamplingEngine, settings: SamplingParams, logits: Floats, before: TokenContext = _NO_TOKENS) -> list[Stage]:
    """The row after each stage that is on, first the raw one. `logits` [V] float32; `settings` must not be refused."""
    call = StageContext(engine, as_read(engine, settings), before)
    row = first_row(logits)
    passed = [Stage("logits", row, row)]
    for name in _active(engine, call.read):
        after = _STAGES[name](row, call)
        passed.append(Stage(name, after, row))
        row = after
    return passed


def active(engine: SamplingEngine, settings: SamplingParams) -> list[str]:
    """The engine's stages that these settings turn on, in its order. Greedy ends the chain, but for llama.cpp, which filters first."""
    return _active(engine, as_read(engine, settings))


def _active(engine: SamplingEngine, read: SamplingParams) -> list[str]:
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


def share(before: LogitRow, after: LogitRow) -> float:
    """The mass of the tokens of `after` in the distribution `before`; 1.0 where none are gone."""
    if len(after.x) == len(before.x):
        return 1.0
    e, total = before.weights()
    at = after.tokens() if before.ids is None else np.searchsorted(before.ids, after.tokens())
    return min(1.0, float(e[at].sum(dtype=np.float64)) / total)


def _temperature(row: LogitRow, call: StageContext) -> LogitRow:
    return LogitRow(row.x / np.float32(call.read.temperature), row.ids)


def _top_k(row: LogitRow, call: StageContext) -> LogitRow:
    k = call.read.top_k or 0
    return row if k <= 0 else cuts.top_k(row, k, call.engine.ties)


def _top_p(row: LogitRow, call: StageContext) -> LogitRow:
    p = 1.0 if call.read.top_p is None else call.read.top_p
    return row if p >= 1.0 else call.engine.top_p(row, p)


def _min_p(row: LogitRow, call: StageContext) -> LogitRow:
    p = call.read.min_p or 0.0
    return row if p <= 0.0 else call.engine.min_p(row, p)


def _typical(row: LogitRow, call: StageContext) -> LogitRow:
    mass = 1.0 if call.read.typical_p is None else call.read.typical_p
    return row if mass >= 1.0 else call.engine.typical_p(row, mass)


def _joint(row: LogitRow, call: StageContext) -> LogitRow:
    return cuts.joint(row, call.read.top_k, 1.0 if call.read.top_p is None else call.read.top_p, call.read.min_p or 0.0)


def _epsilon(row: LogitRow, call: StageContext) -> LogitRow:
    least = call.read.epsilon_cutoff or 0.0
    return cuts.floor(row, least) if 0 < least < 1 else row


def _eta(row: LogitRow, call: StageContext) -> LogitRow:
    least = call.read.eta_cutoff or 0.0
    return cuts.eta(row, least) if 0 < least < 1 else row


def _bias(row: LogitRow, call: StageContext) -> LogitRow:
    bias = call.read.logit_bias or {}
    limit = call.engine.bias_limit
    changed = _changed(row, {token: np.float32(min(limit, max(-limit, value))) for token, value in bias.items()}, lambda x, by: x + by)
    return changed.keep(~np.isneginf(changed.x)) if np.isneginf(changed.x.min()) else changed


def _suppress(row: LogitRow, call: StageContext) -> LogitRow:
    return _banned(row, call.read.suppress_tokens or ())


def _min_tokens(row: LogitRow, call: StageContext) -> LogitRow:
    ends = call.read.stop_token_ids or ()
    return _banned(row, ends) if len(call.before.output) < (call.read.min_tokens or 0) else row


def _banned(row: LogitRow, ids: Sequence[int]) -> LogitRow:
    mask = ~np.isin(row.tokens(), np.asarray(ids, np.int64))
    return row if mask.all() or not mask.any() else row.keep(mask)


def _repetition(row: LogitRow, call: StageContext) -> LogitRow:
    penalty = np.float32(call.read.repetition_penalty or 1.0)
    tokens = dict.fromkeys(counted(call, "repetition_penalty"), penalty)
    return _changed(row, tokens, lambda x, by: np.where(x < 0, x * by, x / by))


def _frequency(row: LogitRow, call: StageContext) -> LogitRow:
    counts = Counter(counted(call, "frequency_penalty"))
    size = max(1, sum(counts.values())) if call.engine.frequency_by_length else 1
    penalty = np.float32(call.read.frequency_penalty or 0.0)
    return _changed(row, {token: np.float32(count / size) * penalty for token, count in counts.items()}, lambda x, by: x - by)


def _presence(row: LogitRow, call: StageContext) -> LogitRow:
    penalty = np.float32(call.read.presence_penalty or 0.0)
    return _changed(row, dict.fromkeys(counted(call, "presence_penalty"), penalty), lambda x, by: x - by)


def counted(call: StageContext, option: str) -> tuple[int, ...]:
    """The tokens that the engine's penalty `option` looks at."""
    scope, before, last_n = call.engine.scope[option], call.before, call.read.penalty_last_n
    if scope == "output":
        return before.output
    both = before.prompt + before.output
    window = WINDOW if last_n is None else last_n
    return both if scope == "all" or window < 0 else both[max(0, len(both) - window) :]  # -1: llama.cpp's whole context


def _changed(row: LogitRow, tokens: dict[int, np.float32], change: Callable[[Floats, Floats], Floats]) -> LogitRow:
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
    return LogitRow(x, row.ids)


_STAGES: dict[str, Callable[[LogitRow, StageContext], LogitRow]] = {
    "suppress_tokens": _suppress,
    "min_tokens": _min_tokens,
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


def without_filters(settings: SamplingParams) -> SamplingParams:
    """The same call with every cut off: what is left is penalties, bias and temperature."""
    return replace(settings, top_k=None, top_p=None, min_p=None, typical_p=None, top_h=None, epsilon_cutoff=None, eta_cutoff=None)

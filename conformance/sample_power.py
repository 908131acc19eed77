"""Accusation rates, power and interval coverage of `sample replay`, simulated: python conformance/sample_power.py [--runs 200] [--seed 0] [--only PART]

PART is one of logits, lists, power, coverage. Rows are made like a chat model's (V = 2,000, logits falling with the log of the rank by a slope that
differs from step to step; calibrated in the first lines of the output). Goals: at alpha .01 at most 1.5% of true claims accused, in each cell of
60 runs at most 5%; 95% intervals that cover in 93 to 97% of true claims and in at least 85% of false ones; the power of each test and of the
corrected verdict is printed. The numbers to reach in `power` are those of the literature this was built from: a ratio test of T 1.0 against .7
with power .76, .96, 1.0 at 50, 100, 200 tokens; an impossible token for certain by 88 tokens (top_p .9 claimed, none in truth), by 182 (llama.cpp's
order); the crossing token, 1.0 at 200.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import math
import sys
import time
from collections.abc import Callable
from datetime import date

import numpy as np

from llmdoctor.requests.listed import Listed, Responses
from llmdoctor.sample.claim import Claim
from llmdoctor.sample.draws import draw, generator
from llmdoctor.sample.estimate import estimate
from llmdoctor.sample.fits import Estimates, FittedClaim
from llmdoctor.sample.judge import Judgement, judge, run_tests
from llmdoctor.sample.laws import one_short
from llmdoctor.sample.listed import judge_listed
from llmdoctor.sample.logits import Logits
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.sketch import make_sketch
from llmdoctor.sample.stages import run
from llmdoctor.sample.steps import Tolerance, replay_steps
from llmdoctor.sample.tables import ENGINES
from llmdoctor.sample.testing import Test
from llmdoctor.sample.types import SamplingParams

VOCAB, ALPHA = 2_000, 0.01
TOLERANCE = Tolerance(1e-4, 1e-4, "recorded logits")
Setting = tuple[str, SamplingParams]
TRUE_CLAIMS: tuple[Setting, ...] = (
    ("transformers", SamplingParams(temperature=0.7, top_p=0.9)),
    ("vllm", SamplingParams(temperature=1.0, top_k=50)),
    ("llama.cpp", SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)),
    ("sglang", SamplingParams(temperature=1.2, top_k=20, top_p=0.9)),
    ("transformers", SamplingParams()),
    ("transformers", SamplingParams(temperature=1.5, min_p=0.1)),
    ("transformers", SamplingParams(temperature=0.3)),
    ("tgi", SamplingParams(typical_p=0.9)),
    ("gpt-fast", SamplingParams(temperature=0.8, top_k=200)),
    ("transformers", SamplingParams(do_sample=False)),
)
LISTED_CLAIMS: tuple[Setting, ...] = (
    ("vllm", SamplingParams()),
    ("vllm", SamplingParams(temperature=0.7, top_p=0.9)),
    ("vllm", SamplingParams(temperature=1.0, top_k=20, top_p=0.8)),
    ("vllm", SamplingParams(temperature=1.3, top_p=0.95)),
    ("vllm", SamplingParams(temperature=1.5, min_p=0.1)),
    ("vllm", SamplingParams(temperature=0.6, top_k=20, top_p=0.95)),
    ("sglang", SamplingParams(temperature=0.8, top_k=30, top_p=0.9)),
    ("llama.cpp", SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)),
)
# truth, claim: the false claims of the coverage table
FALSE_CLAIMS: tuple[tuple[str, Setting, Setting], ...] = (
    ("T off by 3%", ("vllm", SamplingParams(temperature=0.721, top_p=0.9)), ("vllm", SamplingParams(temperature=0.7, top_p=0.9))),
    ("T off by 5%", ("vllm", SamplingParams(temperature=0.735, top_p=0.9)), ("vllm", SamplingParams(temperature=0.7, top_p=0.9))),
    ("T off by 10%", ("vllm", SamplingParams(temperature=0.77, top_p=0.9)), ("vllm", SamplingParams(temperature=0.7, top_p=0.9))),
    ("k 21 for 20", ("vllm", SamplingParams(temperature=1.0, top_k=21)), ("vllm", SamplingParams(temperature=1.0, top_k=20))),
    ("orders swapped", ("llama.cpp", SamplingParams(temperature=0.7, top_p=0.9)), ("vllm", SamplingParams(temperature=0.7, top_p=0.9))),
    ("nucleus of k", ("vllm", SamplingParams(top_k=20, top_p=0.7)), ("sglang", SamplingParams(top_k=20, top_p=0.7))),
    ("min_p .05 for .1", ("vllm", SamplingParams(temperature=1.0, min_p=0.05)), ("vllm", SamplingParams(temperature=1.0, min_p=0.1))),
    ("min_p .2 for .1", ("vllm", SamplingParams(temperature=1.0, min_p=0.2)), ("vllm", SamplingParams(temperature=1.0, min_p=0.1))),
)


def make_rows(random: np.random.Generator, count: int) -> np.ndarray:
    """Logits [count, VOCAB] float32."""
    slope = 1.2 + random.gamma(0.8, 5.0, (count, 1))
    rows = -slope * np.log(np.arange(1, VOCAB + 1)) + 0.7 * random.standard_normal((count, VOCAB))
    return random.permuted(rows, axis=1).astype(np.float32)


def sample(random: np.random.Generator, rows: np.ndarray, truth: Setting, short: bool = False) -> list[int]:
    """One token per row, by that engine's distribution; `short`: with a nucleus one token short."""
    tokens = []
    for row in rows:
        probs = run(ENGINES[truth[0]], truth[1], row)[-1].row.probs(len(row))
        tokens.append(int(draw(one_short(probs) if short else probs, 1, random)[0]))
    return tokens


def replayed(rows: np.ndarray, tokens: list[int], claim: Setting, fit: bool = False) -> tuple[dict[str, Test], Judgement, Estimates | None]:
    """The tests by name, the verdict, and the estimates if they are wanted."""
    logits, claimed = Logits("simulated", rows, "float32", {}), Claim(ENGINES[claim[0]], claim[1], "simulated")
    steps = replay_steps(logits, tokens, claimed, TOLERANCE)
    sketch = make_sketch(logits, tokens, claimed)
    tests = run_tests(steps, sketch, claimed)
    found = estimate(sketch, steps, claimed) if fit else None
    return {test.name: test for test in tests}, judge(tests, steps, sketch, claimed, ALPHA), found


def listed(rows: np.ndarray, tokens: list[int], size: int, decimals: int | None, scale: float, processed: Setting | None) -> Responses:
    """The steps as a server lists them: the `size` likeliest, rounded, divided by `scale` or after all stages of a setting."""
    steps = []
    for row, token in zip(rows, tokens, strict=True):
        x = row.astype(np.float64) / scale
        if processed is not None:
            last = run(ENGINES[processed[0]], processed[1], row)[-1].row
            x = np.full(len(row), -np.inf)
            x[last.tokens()] = last.x
        x = x - x.max()
        logs = x - math.log(np.exp(x).sum())
        logs = logs if decimals is None else np.round(logs, decimals)
        top = np.argsort(-logs, kind="stable")[:size]
        steps.append(Listed(str(token), float(logs[token]), tuple((str(at), float(logs[at])) for at in top)))
    return Responses("simulated", steps, [(1, None)], sizes=[len(steps)])


def calibration() -> None:
    """What the rows are like, in the terms that the power depends on."""
    rows = make_rows(generator(99), 2_000).astype(float)
    x = np.sort(rows - rows.max(axis=1, keepdims=True), axis=1)[:, ::-1]
    p, q = (np.exp(x / t) / np.exp(x / t).sum(axis=1, keepdims=True) for t in (1.0, 0.7))
    beyond = (p * (np.cumsum(p, axis=1) - p > 0.9)).sum(axis=1).mean()
    mean = (q * x).sum(axis=1, keepdims=True)
    variance = (q * (x - mean) ** 2).sum(axis=1).mean()
    print(f"rows: {beyond:.1%} of the mass lies beyond a nucleus of .9 (the literature's chat text: 5.2%)")
    print(f"rows: standard error of the temperature {0.49 / math.sqrt(200 * variance):.3f} at T .7, 200 tokens (.054)")


def false_alarms(runs: int, seed: int) -> bool:
    """True claims from logits, every engine."""
    random = generator(seed)
    outcomes: collections.Counter[str] = collections.Counter()
    alone: collections.Counter[str] = collections.Counter()
    for index in range(runs):
        engine, settings = claim = TRUE_CLAIMS[index % len(TRUE_CLAIMS)]
        rows = make_rows(random, (60, 200, 400)[index // len(TRUE_CLAIMS) % 3])
        tests, verdict, _ = replayed(rows, sample(random, rows, (engine, settings)), claim)
        outcomes[verdict.outcome] += 1
        alone.update(name for name, test in tests.items() if test.p_value < ALPHA)
    rate = outcomes["inconsistent"] / runs
    print(
        f"true claims from logits: {dict(outcomes)} of {runs} at alpha {ALPHA} ({rate:.1%} accused); alone below alpha: {dict(alone) or 'none'}"
    )
    return outcomes["inconsistent"] <= max(0.015 * runs, _chance(runs))


def _chance(runs: int) -> float:
    """The 99% point of the count of accusations at a rate of 1%."""
    return runs * ALPHA + 2.33 * math.sqrt(runs * ALPHA) + 0.5


def list_alarms(runs: int, seed: int) -> bool:
    """True claims from lists: settings, list length, rounding, kind; `runs` for each cell of settings and length."""
    good, total, count = True, 0, 0
    decisions: collections.Counter[str] = collections.Counter()
    for (number, claim), size in itertools.product(enumerate(LISTED_CLAIMS), (1, 5, 20)):
        random = generator(seed + 1000 * number + size)
        accused = 0
        raw: collections.Counter[str] = collections.Counter()
        for index in range(runs):
            rows = make_rows(random, (60, 150, 300)[index % 3])
            tokens = sample(random, rows, claim)
            decimals = (None, 3, 4, 6)[index % 4]
            kind = ("raw", "raw", "temperature", "processed")[index // 4 % 4]
            scale = (claim[1].temperature or 1.0) if kind == "temperature" else 1.0
            response = listed(rows, tokens, size=size, decimals=decimals, scale=scale, processed=claim if kind == "processed" else None)
            options = ReplayOptions(engine=claim[0], settings=claim[1], kind=None if index % 2 else kind)
            verdict = judge_listed(options, response, ALPHA).verdict
            decisions[verdict.outcome] += 1
            accused += verdict.outcome == "inconsistent"
            if kind == "raw" and len(rows) == 300:
                raw[verdict.outcome] += 1
        total, count = total + accused, count + runs
        mark = "ok  " if accused <= max(1, 0.05 * runs) else "MISS"
        good &= mark == "ok  "
        print(f"{mark} lists of {size:2}, {words(claim)}: {accused} of {runs} accused; raw ones of 300 tokens: {dict(raw)}")
        sys.stdout.flush()
    print(f"true claims from lists: {total} of {count} accused ({total / count:.2%}); {dict(decisions)}")
    return good and total <= max(0.015 * count, _chance(count))


def power(
    runs: int, seed: int, count: int, truth: Setting, claim: Setting, names: tuple[str, ...], *, wanted: float | None, short: bool = False
) -> bool:
    """How often the tests `names` alone, and the corrected verdict, reject a false claim; `wanted` is for the first of them."""
    random = generator(seed)
    hits: collections.Counter[str] = collections.Counter()
    for _ in range(runs):
        rows = make_rows(random, count)
        tests, verdict, _ = replayed(rows, sample(random, rows, truth, short=short), claim)
        hits.update(name for name, test in tests.items() if test.p_value < ALPHA)
        hits["verdict"] += verdict.outcome == "inconsistent"
    seen = hits[names[0]] / runs
    error = math.sqrt(max(seen * (1 - seen), 1 / runs) / runs)
    good = wanted is None or seen >= wanted - 2 * error
    texts = ", ".join(f"{name} {hits[name] / runs:.2f}" for name in names)
    mark = "    " if wanted is None else "ok  " if good else "MISS"
    aim = "" if wanted is None else f" (to reach: {wanted:.2f}, standard error {error:.3f})"
    drawn = words(truth) + (" one short" if short else "")
    print(f"{mark} {drawn}, claimed {words(claim)}, {count} tokens: {texts}{aim}; verdict {hits['verdict'] / runs:.2f}")
    sys.stdout.flush()
    return good


def all_power(runs: int, seed: int) -> bool:
    """The false claims of the literature, and those of the coverage table at 200 and 600 tokens."""
    hot, cold = ("transformers", SamplingParams(temperature=1.0)), ("transformers", SamplingParams(temperature=0.7))
    nucleus = ("transformers", SamplingParams(temperature=0.7, top_p=0.9))
    lr, good = ("temperature_lr", "log_likelihood_z"), []
    for count, wanted in ((50, 0.76), (100, 0.96), (200, 1.0)):
        good.append(power(runs, seed + 1, count=count, truth=hot, claim=cold, names=("unscaled_lr", *lr), wanted=wanted))
        power(runs, seed + 2, count=count, truth=cold, claim=hot, names=lr, wanted=None)
    one, llama = ("transformers", SamplingParams(top_p=0.9)), ("llama.cpp", SamplingParams(temperature=0.7, top_p=0.9))
    good.append(
        power(runs, seed + 3, count=88, truth=("transformers", SamplingParams()), claim=one, names=("impossible_tokens",), wanted=0.99)
    )
    good.append(power(runs, seed + 4, count=182, truth=llama, claim=nucleus, names=("impossible_tokens",), wanted=0.99))
    good.append(
        power(runs, seed + 5, count=200, truth=nucleus, claim=nucleus, names=("crossing_token", "log_likelihood_z"), wanted=1.0, short=True)
    )
    wide = ("transformers", SamplingParams(top_k=50)), ("transformers", SamplingParams(top_k=20))
    power(runs // 4, seed + 6, count=400, truth=wide[1], claim=wide[0], names=("rank_beyond",), wanted=None)
    power(
        runs // 4, seed + 7, count=400, truth=one, claim=("transformers", SamplingParams(top_p=0.97)), names=("mass_beyond",), wanted=None
    )
    for (_, truth, claim), count in itertools.product(FALSE_CLAIMS, (200, 600)):
        power(runs // 4, seed + 8, count=count, truth=truth, claim=claim, names=lr, wanted=None)
    return all(good)


def coverage(runs: int, seed: int, match: str) -> bool:
    """How often the 95% intervals hold the truth, for true claims and for each false one, 400 tokens; and what is named as the cause.

    A fit is named if no other distribution is within 3 nats of it; else the fits within 3 nats are listed, and the truth should be one of them.
    """
    good = True
    cases = [("true claim", claim, claim) for claim in TRUE_CLAIMS[:6]] + list(FALSE_CLAIMS)
    off = {"temperature": 1.0, "top_p": 1.0, "top_k": math.inf, "min_p": 0.0}
    held_true: collections.Counter[str] = collections.Counter()
    total = 0
    for number, (name, truth, claim) in enumerate(cases):
        if match not in f"{name}: {words(truth)}":
            continue
        random = generator(seed + 31 * number)
        held: collections.Counter[str] = collections.Counter()
        named: collections.Counter[str] = collections.Counter()
        for _ in range(runs):
            rows = make_rows(random, 400)
            _, _, found = replayed(rows, sample(random, rows, truth), claim, fit=True)
            if found is None:
                continue
            named[_named(found, truth)] += 1
            for key, without in off.items():
                value = getattr(truth[1], key)
                interval = found.intervals.get(key)
                held[key] += interval is not None and interval.low - 1e-6 <= (without if value is None else value) <= interval.high + 1e-6
        rates = {key: held[key] / runs for key in off}
        if name == "true claim":
            held_true.update(held)
            total += runs
        least = 0.85 - 2 * math.sqrt(0.85 * 0.15 / runs)
        mark = "ok  " if min(rates.values()) >= least and named["wrong"] <= max(1, 0.05 * runs) else "MISS"
        good &= mark == "ok  "
        texts = ", ".join(f"{key} {rate:.2f}" for key, rate in rates.items())
        says = ", ".join(f"{key} {named[key]}" for key in ("right", "listed", "missed", "wrong"))
        print(f"{mark} {name}: {words(truth)}, claimed {words(claim)}: covered {texts}; the fit: {says}")
        sys.stdout.flush()
    rate = held_true["temperature"] / max(1, total)
    error = math.sqrt(0.95 * 0.05 / max(1, total))
    if not total:
        return good
    print(f"true claims: the temperature's 95% intervals cover in {rate:.1%} of {total} runs (93 to 97% wanted)")
    return good and 0.93 - 2 * error <= rate <= 0.97 + 2 * error


def _named(found: Estimates, truth: Setting) -> str:
    """Whether the fit is the truth: right or wrong if one is named, listed or missed if several are within 3 nats."""
    near = found.near(3.0)
    if len(near) == 1:
        return "right" if _same(near[0], truth) else "wrong"
    return "listed" if any(_same(fit, truth) for fit in near) else "missed"


def _same(fit: FittedClaim, truth: Setting) -> bool:
    """Whether a fit is the truth: the same cuts, near values."""
    if fit.law is not None:
        return False
    ours, theirs = fit.settings, truth[1]
    near = abs(math.log((ours.temperature or 1.0) / (theirs.temperature or 1.0))) < 0.1
    cuts = all((getattr(ours, key) is None) == (getattr(theirs, key) is None) for key in ("top_k", "top_p", "min_p"))
    return near and cuts


def words(what: Setting) -> str:
    return " ".join([what[0], *(f"{name} {value:g}" for name, value in what[1].named().items())])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["logits", "lists", "power", "coverage"])
    parser.add_argument("--match", default="", help="of the coverage: only lines that contain this text")
    arguments = parser.parse_args()
    start = time.monotonic()
    print(f"{date.today()}, --runs {arguments.runs} --seed {arguments.seed}")
    calibration()
    parts: dict[str, Callable[[], bool]] = {
        "logits": lambda: false_alarms(arguments.runs, arguments.seed),
        "lists": lambda: list_alarms(max(4, arguments.runs * 3 // 10), arguments.seed + 10),
        "power": lambda: all_power(arguments.runs, arguments.seed),
        "coverage": lambda: coverage(max(4, arguments.runs // 2), arguments.seed + 20, arguments.match),
    }
    good = [work() for name, work in parts.items() if arguments.only in (None, name)]
    print(f"{'everything holds' if all(good) else 'SOMETHING DOES NOT HOLD'} ({time.monotonic() - start:.0f} s)")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())

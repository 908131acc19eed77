"""False alarms and power of `sample replay`, simulated: python conformance/sample_power.py [--runs 200] [--seed 0]

Rows are made like a chat model's (V = 2,000, logits falling with the log of the rank by a slope that differs from step to step; calibrated in the first
lines of the output). True claims must not be accused more often than --most times; each named test alone is printed beside the corrected verdict.
The numbers to reach are those of the literature this was built from: a ratio test of T 1.0 against .7 with power .76, .96, 1.0 at 50, 100, 200 tokens;
an impossible token for certain by 88 tokens (top_p .9 claimed, none in truth), by 182 (llama.cpp's order); the crossing token, 1.0 at 200.
"""

from __future__ import annotations

import argparse
import collections
import math
import sys
import time

import numpy as np

from llmdoctor.files.arrays import Logits
from llmdoctor.sample.claim import Claim
from llmdoctor.sample.draws import draw, generator
from llmdoctor.sample.judge import Judgement, Test, judge, run_tests
from llmdoctor.sample.laws import one_short
from llmdoctor.sample.sketch import make_sketch
from llmdoctor.sample.stages import run
from llmdoctor.sample.steps import Tolerance, replay_steps
from llmdoctor.sample.tables import ENGINES
from llmdoctor.sample.types import SamplingParams

VOCAB, ALPHA = 2_000, 0.01
TOLERANCE = Tolerance(1e-4, 1e-4, "recorded logits")
TRUE_CLAIMS = (
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


def make_rows(random: np.random.Generator, count: int) -> np.ndarray:
    """Logits [count, VOCAB] float32."""
    slope = 1.2 + random.gamma(0.8, 5.0, (count, 1))
    rows = -slope * np.log(np.arange(1, VOCAB + 1)) + 0.7 * random.standard_normal((count, VOCAB))
    return random.permuted(rows, axis=1).astype(np.float32)


def sample(random: np.random.Generator, rows: np.ndarray, engine: str, settings: SamplingParams, short: bool = False) -> list[int]:
    """One token a row, by that engine's distribution; `short`: with a nucleus one token short."""
    tokens = []
    for row in rows:
        probs = run(ENGINES[engine], settings, row)[-1].row.probs(len(row))
        tokens.append(int(draw(one_short(probs) if short else probs, 1, random)[0]))
    return tokens


def replayed(rows: np.ndarray, tokens: list[int], engine: str, settings: SamplingParams) -> tuple[dict[str, Test], Judgement]:
    """The tests by name, and the verdict."""
    logits, claim = Logits("simulated", rows, "float32", {}), Claim(ENGINES[engine], settings, "simulated")
    steps = replay_steps(logits, tokens, claim, TOLERANCE)
    sketch = make_sketch(logits, tokens, claim)
    tests = run_tests(steps, sketch, claim)
    return {test.name: test for test in tests}, judge(tests, steps, sketch, claim, ALPHA)


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


def false_alarms(runs: int, seed: int, most: int) -> bool:
    """True claims, every engine."""
    random = generator(seed)
    outcomes: collections.Counter[str] = collections.Counter()
    alone: collections.Counter[str] = collections.Counter()
    for index in range(runs):
        engine, settings = TRUE_CLAIMS[index % len(TRUE_CLAIMS)]
        rows = make_rows(random, (60, 200, 400)[index // len(TRUE_CLAIMS) % 3])
        tests, verdict = replayed(rows, sample(random, rows, engine, settings), engine, settings)
        outcomes[verdict.outcome] += 1
        alone.update(name for name, test in tests.items() if test.p_value < ALPHA)
    print(f"true claims: {dict(outcomes)} of {runs} at alpha {ALPHA}; alone below alpha: {dict(alone) or 'none'}")
    return outcomes["inconsistent"] <= most


def power(
    runs: int,
    seed: int,
    count: int,
    truth: tuple[str, SamplingParams],
    claim: tuple[str, SamplingParams],
    names: tuple[str, ...],
    wanted: float | None,
    short: bool = False,
) -> bool:
    """How often the tests `names` alone, and the corrected verdict, call a wrong claim; `wanted` is for the first of them."""
    random = generator(seed)
    hits: collections.Counter[str] = collections.Counter()
    for _ in range(runs):
        rows = make_rows(random, count)
        tests, verdict = replayed(rows, sample(random, rows, *truth, short=short), *claim)
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


def words(what: tuple[str, SamplingParams]) -> str:
    return " ".join([what[0], *(f"{name} {value:g}" for name, value in what[1].named().items())])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=5)
    asked = parser.parse_args()
    start = time.monotonic()
    calibration()
    good = [false_alarms(asked.runs, asked.seed, asked.most)]
    hot, cold = ("transformers", SamplingParams(temperature=1.0)), ("transformers", SamplingParams(temperature=0.7))
    nucleus = ("transformers", SamplingParams(temperature=0.7, top_p=0.9))
    lr = ("temperature_lr", "log_likelihood_z")
    for count, wanted in ((50, 0.76), (100, 0.96), (200, 1.0)):
        good.append(power(asked.runs, asked.seed + 1, count, hot, cold, ("unscaled_lr", *lr), wanted))
        power(asked.runs, asked.seed + 2, count, cold, hot, lr, None)
    one = ("transformers", SamplingParams(top_p=0.9))
    good.append(power(asked.runs, asked.seed + 3, 88, ("transformers", SamplingParams()), one, ("impossible_tokens",), 0.99))
    llama = ("llama.cpp", SamplingParams(temperature=0.7, top_p=0.9))
    good.append(power(asked.runs, asked.seed + 4, 182, llama, nucleus, ("impossible_tokens",), 0.99))
    good.append(power(asked.runs, asked.seed + 5, 200, nucleus, nucleus, ("crossing_token", "log_likelihood_z"), 1.0, short=True))
    wide = ("transformers", SamplingParams(top_k=50)), ("transformers", SamplingParams(top_k=20))
    power(asked.runs // 4, asked.seed + 6, 400, wide[1], wide[0], ("rank_beyond",), None)
    power(asked.runs // 4, asked.seed + 7, 400, one, ("transformers", SamplingParams(top_p=0.97)), ("mass_beyond",), None)
    print(f"{'everything holds' if all(good) else 'SOMETHING DOES NOT HOLD'} ({time.monotonic() - start:.0f} s)")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Draws: reproducible, the same as numpy's searchsorted; samplers judged; the broken ones named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdoctor.report import Style, render
from llmdoctor.sample import laws
from llmdoctor.sample.draw import draw_report
from llmdoctor.sample.draws import draw, draw_counts, generator
from llmdoctor.sample.goodness import goodness_of_fit, judge_draws, needed, power
from llmdoctor.sample.options import DrawOptions
from tests.conftest import Outcome
from tests.reading import read_in_order

CASE = np.array([0.5, 0.4, 0.1])
SAMPLERS = """
import random

def loop(probs):
    chosen = None
    for token in probs:
        if random.random() <= probs[token]:
            chosen = token
    if not chosen:
        chosen = token
    return chosen

def once(probs, rng):
    return rng.choices(list(probs), weights=list(probs.values()))[0]

def outside(probs):
    return 99

def keyword(probs, *, rng):
    return once(probs, rng)

def leaves(probs):
    raise SystemExit(3)

def fails(probs):
    raise RuntimeError("no luck")
"""


def test_the_loops_law_and_how_many_draws_tell_it() -> None:
    law = laws.last_pass_wins(CASE)
    assert law == pytest.approx([0.27, 0.36, 0.37])
    assert (law * np.log(law / CASE)).sum() == pytest.approx(0.28, abs=1e-3)
    assert needed(CASE, law, 0.05) == 43
    assert power(CASE, law, 110, 1e-6) > 0.99


def test_the_law_is_what_the_loop_draws() -> None:
    space: dict[str, Any] = {}
    exec(SAMPLERS, space)
    space["random"].seed(0)
    keys = {1: 0.5, 2: 0.4, 3: 0.1}
    counts = np.bincount([space["loop"](keys) for _ in range(20_000)], minlength=4)[1:]
    assert goodness_of_fit(laws.last_pass_wins(CASE), counts)[2] > 0.001
    assert goodness_of_fit(CASE, counts)[2] < 1e-12


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), size=st.sampled_from([2, 7, 300, 5000]), spread=st.sampled_from([0.1, 3.0, 12.0]))
def test_draws_are_searchsorteds(seed: int, size: int, spread: float) -> None:
    x = np.random.default_rng(seed).standard_normal(size) * spread
    probs = np.exp(x - x.max())
    probs[0] = 0.0
    probs /= probs.sum()
    for count in (10, 30_000):
        cumulated = np.cumsum(probs)
        expected = np.searchsorted(cumulated / cumulated[-1], generator(seed).random(count), "right")
        assert np.array_equal(draw(probs, count, generator(seed)), np.minimum(expected, np.flatnonzero(probs)[-1]))
    counts = draw_counts(probs, 10_000, generator(seed))
    assert (counts.sum(), counts[0]) == (10_000, 0)
    assert goodness_of_fit(probs, counts)[2] > 1e-6


def test_p_values_are_uniform_enough() -> None:
    random = generator(0)
    for probs in (CASE, np.full(400, 1 / 400)):
        values = np.array([goodness_of_fit(probs, random.multinomial(60, probs))[2] for _ in range(400)])
        assert (values < 0.05).mean() <= 0.09
        assert values.mean() > 0.4


@pytest.mark.parametrize(("size", "slope", "count"), [(1000, 0.0, 5000), (400, 0.0, 60), (2000, 1.0, 4000)])
def test_true_draws_are_rarely_accused(size: int, slope: float, count: int) -> None:
    """Many cells of five expected draws each: where a G-test calls one true sampler in eight a broken one."""
    probs = np.arange(1, size + 1) ** -slope
    probs /= probs.sum()
    random = generator(1)
    alarms = sum(goodness_of_fit(probs, random.multinomial(count, probs))[2] < 0.01 for _ in range(300))
    assert alarms <= 10


def test_the_power_is_that_of_the_test_that_is_made() -> None:
    probs = 1 / np.arange(1, 5001)
    other = probs * np.exp(-0.5 * np.abs(np.random.default_rng(0).standard_normal(5000)))
    probs, other = probs / probs.sum(), other / other.sum()
    random = generator(2)
    for count in (500, 1500, 4000):
        seen = np.mean([goodness_of_fit(probs, random.multinomial(count, other))[2] < 0.01 for _ in range(100)])
        assert power(probs, other, count, 0.01) == pytest.approx(seen, abs=0.13)


def test_a_law_that_would_not_have_shown_leaves_it_undecided(tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    (tmp_path / "mine.py").write_text(SAMPLERS)
    base = ("sample", "draw", "--probs", ".02,.5,.48", "--sampler", "mine:keyword", "--format", "json", "-n")
    few, many = (llmdoctor(*base, count, cwd=tmp_path).report["result"] for count in ("150", "2000"))
    assert (few["verdict"], many["verdict"]) == ("undecided", "consistent")
    assert few["powers"][laws.NEVER_ZERO] < 0.5 < many["powers"][laws.NEVER_ZERO]


def test_every_broken_sampler_is_named() -> None:
    logits = np.array([2.0, 1.5, 1.0, 0.2, -1.0])
    plain = np.exp(logits) / np.exp(logits).sum()
    hot = np.exp(logits / 0.7) / np.exp(logits / 0.7).sum()
    ids = np.arange(5)
    down = np.argsort(-hot)
    wanted = {
        laws.LOOP_BY_ID: laws.last_pass_wins(hot),
        laws.LOOP_UP: laws.last_pass_wins(hot[down[::-1]])[np.argsort(down[::-1])],
        laws.NEVER_ZERO: laws.never_zero(hot, ids),
        laws.ONE_SHORT: laws.one_short(hot),
        laws.TEMPERATURE_ON_PROBS: laws.softmax_of_probs(plain, 0.7),
    }
    for name, law in wanted.items():
        counts = generator(1).multinomial(3000, law)
        assert judge_draws(hot, counts, 0.01, plain, 0.7).law == name
    true = judge_draws(hot, generator(1).multinomial(3000, hot), 0.01, plain, 0.7)
    assert (true.law, true.p_value > 0.01) == (None, True)


def test_a_sampler_of_ones_own(tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    (tmp_path / "mine.py").write_text(SAMPLERS)
    base = ("sample", "draw", "--probs", "0,.5,.4,.1", "-n", "110", "--alpha", "1e-6", "--sampler")
    outcome = llmdoctor(*base, "mine:loop", "--format", "json", cwd=tmp_path)
    result = outcome.report["result"]
    assert (outcome.code, result["verdict"], result["law"], result["n"]) == (1, "inconsistent", laws.LOOP_BY_ID, 110)
    assert result["power"] > 0.99
    assert [result["law_probs"][key] for key in "123"] == pytest.approx([0.27, 0.36, 0.37])
    good = llmdoctor(*base[:5], "400", *base[6:], "mine:once", "--format", "json", cwd=tmp_path)
    assert (good.code, good.report["result"]["verdict"]) == (0, "consistent")
    for name, said in (
        ("mine:outside", "returned '99'"),
        ("mine:fails", "RuntimeError: no luck"),
        ("mine:leaves", "raised SystemExit: 3"),
        ("mine:none", "AttributeError"),
        ("mine", "module:function"),
    ):
        outcome = llmdoctor(*base, name, cwd=tmp_path)
        assert outcome.code == 2
        assert said in outcome.err
        assert "Traceback" not in outcome.err


def test_draws_are_reproducible_and_written_whole(tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    base = ("sample", "draw", "--logits", "4,3,2.5,2,1,0", "--temperature", "0.7", "--top-p", "0.9", "-n", "500", "--seed", "7")
    outcome = llmdoctor(*base, "--output", "out.npy", "--format", "json", cwd=tmp_path)
    drawn = outcome.report["result"]["draws"]
    assert np.load(tmp_path / "out.npy").tolist() == drawn
    assert llmdoctor(*base, "--format", "json", cwd=tmp_path).report["result"]["draws"] == drawn
    assert set(drawn) <= {0, 1, 2}
    (tmp_path / "d.json").write_text(json.dumps(drawn))
    judged = llmdoctor(*base[:8], "--draws", "d.json", "--format", "json", cwd=tmp_path).report["result"]
    assert (judged["verdict"], judged["n"]) == ("consistent", 500)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--probs", ".5,.4"], "the sum is 0.9"),
        (["--probs", "1.5,-.5"], "expected probabilities"),
        (["--probs", ".5,x"], "not a list of numbers"),
        (["--probs", "nan,.5,.5"], "token 0 is NaN"),
        (["--probs", ".5,.5", "--draws", "d.json", "--output", "x.npy"], "not with --sampler or --draws"),
        ([], "which distribution"),
        (["--probs", ".5,.5", "--temperature", "2"], "settings go with --logits"),
        (["--logits", "1,2", "--temperature", "0"], "refuses"),
        (["--logits", "1,2", "-n", "0"], "--n 0"),
        (["--logits", "1,2", "--engine", "onnx"], "expected one of"),
        (["--probs", ".5,.5", "--draws", "nowhere.json"], "no such file"),
    ],
)
def test_what_cannot_be_asked(arguments: list[str], said: str, llmdoctor: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = llmdoctor("sample", "draw", *arguments, cwd=tmp_path)
    assert outcome.code == 2
    assert said in outcome.err


def test_the_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    law = laws.last_pass_wins(np.array([0.5, 0.4, 0.1]))
    (tmp_path / "draws.json").write_text(json.dumps((1 + draw(law, 110, generator(0))).tolist()))
    report = draw_report(DrawOptions(probs="0,.5,.4,.1", draws="draws.json", alpha=1e-6))
    read_in_order(
        render(report, "text", Style(width=80)),
        "Inconsistent: draws.json, 110 draws, p = 7e-20 (exact multinomial, alpha 1e-06).",
        "error SMP003 the draws follow the law of a broken sampler: last pass wins, keys in the order of their ids",
        "Fix Draw once: one random number against the cumulative sum",
        "token claimed drawn law count 1 0.5000 0.2364 0.2700 26 3 0.1000 0.4364 0.3700 48",
        "Power last pass wins, keys in the order of their ids: 99% (99% from 109 draws)",
        "a nucleus one short: 3% (99% from 284 draws)",
    )


@pytest.mark.parametrize("count", [7, 100, 25_000])
def test_draws_in_parts_are_those_of_one_pass(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probs = np.random.default_rng(5).dirichlet(np.ones(300))
    cumulated = np.cumsum(probs)
    whole = np.searchsorted(cumulated / cumulated[-1], generator(3).random(count), "right")
    monkeypatch.setattr("llmdoctor.sample.draws.PART", 10)
    assert (draw(probs, count, generator(3)) == whole).all()
    given, out = tmp_path / "probs.npy", tmp_path / "out.npy"
    np.save(given, probs)
    draw_report(DrawOptions(probs=str(given), count=count, seed=3, output=str(out)))
    assert (np.load(out) == whole).all()
    np.save(tmp_path / "whole.npy", whole)
    assert out.read_bytes() == (tmp_path / "whole.npy").read_bytes()

"""`sample draw`: draws from a distribution, or a sampler tested against it."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llmdoctor.core.document import Bar, Bars, Block, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding, Location
from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.text import plural
from llmdoctor.files.writing import replacing
from llmdoctor.sample.distribution import claimed_probs, given_probs
from llmdoctor.sample.draws import draw_counts, draw_parts, generator, write_header
from llmdoctor.sample.goodness import DrawTest, judge_draws
from llmdoctor.sample.known_engines import known_engine
from llmdoctor.sample.logits import parse_logits
from llmdoctor.sample.options import DrawOptions, check_alpha
from llmdoctor.sample.result_parts import STATUSES
from llmdoctor.sample.results import DrawResult
from llmdoctor.sample.rules import BROKEN, IMPOSSIBLE, OTHER
from llmdoctor.sample.tokens import read_tokens
from llmdoctor.sample.types import Doubles, Ids, SamplingParams

_SHOWN = 10
_MOST = 100_000_000
_LISTED = 100_000  # draws that the result holds one by one


def draw_report(options: DrawOptions) -> Report:
    """Draw, or test a sampler or a file of draws. Raises QuestionError."""
    if not 0 < options.count <= _MOST:
        raise QuestionError(f"--n {options.count}: expected 1 to {_MOST:,}")
    if options.seed < 0:
        raise QuestionError(f"--seed {options.seed}: expected 0 or more")
    check_alpha(options.alpha)
    if options.sampler is not None and options.draws is not None:
        raise QuestionError("--sampler and --draws: expected one of them")
    if options.output is not None and (options.sampler is not None or options.draws is not None):
        raise QuestionError("--output writes draws that this command makes: not with --sampler or --draws")
    probs, plain = _distribution(options)
    if options.sampler is None and options.draws is None:
        return _drawn(options, probs)
    drawn = _from_file(options.draws, len(probs)) if options.draws is not None else _from_sampler(options, probs)
    counts = np.bincount(drawn, minlength=len(probs))
    outcome = judge_draws(probs, counts, options.alpha, plain, options.settings.temperature or 1.0)
    return _judged(options, probs, counts, outcome)


def _distribution(options: DrawOptions) -> tuple[Doubles, Doubles]:
    """The claimed distribution [V], and the one before its temperature."""
    if (options.probs is None) == (options.logits is None):
        raise QuestionError("which distribution? expected --probs or --logits, one of them")
    if options.probs is not None:
        if options.settings.named():
            raise QuestionError("--probs is the distribution itself: settings go with --logits")
        probs = given_probs(options.probs, options.step)
        return probs, probs
    recorded = parse_logits(options.logits or "")
    if not 0 <= options.step < recorded.steps:
        raise QuestionError(f"{recorded.path}: --step {options.step}: expected 0 to {recorded.steps - 1}")
    row = recorded.rows(options.step, options.step + 1)[0]
    engine = known_engine(options.engine)
    return claimed_probs(engine, options.settings, row), claimed_probs(engine, SamplingParams(), row)


def _drawn(options: DrawOptions, probs: Doubles) -> Report:
    rng = generator(options.seed)
    few: list[Ids] = []  # the draws themselves, for the result
    if options.only_counts:
        counts = draw_counts(probs, options.count, rng)
        if options.output is not None:
            _save(options.output, len(counts), (counts,))
    else:
        counts = np.zeros(len(probs), np.int64)

        def parts() -> Iterator[Ids]:
            for part in draw_parts(probs, options.count, rng):
                counts[:] += np.bincount(part, minlength=len(probs))
                few.extend([part] if options.count <= _LISTED else [])
                yield part

        if options.output is not None:
            _save(options.output, options.count, parts())
        else:
            deque(parts(), 0)
    result: DrawResult = {
        "n": options.count,
        "seed": options.seed,
        "generator": "numpy PCG64",
        "counts": {str(token): int(counts[token]) for token in np.flatnonzero(counts)},
        "statistic": None,
        "p_value": None,
        "power": None,
        "law": None,
        "verdict": None,
    }
    if few:
        result["draws"] = np.concatenate(few).tolist()
    blocks: list[Block] = [_picture(probs, counts, None)]
    if options.output is not None:
        blocks.append(Note("Wrote", f"{options.output}: {'counts [V]' if options.only_counts else 'token ids [n]'}, int64", "dim"))
    text = f"{options.count:,} draws, seed {options.seed} (numpy PCG64{', counts only' if options.only_counts else ''})."
    return Report("sample draw", _subject(options, probs), result, document=tuple(blocks), verdict=Verdict(text))


def _save(path: str, count: int, parts: Iterable[Ids]) -> None:
    """Write `count` values as numpy's .npy, all of them or nothing. Raises QuestionError."""
    with replacing(Path(path)) as file:
        write_header(file, count)
        for part in parts:
            file.write(part.astype("<i8", copy=False).tobytes())


def _from_file(path: str, vocab: int) -> Ids:
    tokens = read_tokens(path)
    wrong = next((at for at, token in enumerate(tokens) if not 0 <= token < vocab), None)
    if wrong is not None:
        raise QuestionError(f"{path}: draw {wrong} is token {tokens[wrong]}, expected 0 to {vocab - 1}")
    return np.asarray(tokens, np.int64)


def _from_sampler(options: DrawOptions, probs: Doubles) -> Ids:
    """Calls the user's own function: f(probs) or f(probs, rng), with {token: probability} of the tokens that have any."""
    sampler = _load(options.sampler or "")
    keys = {int(token): float(probs[token]) for token in np.flatnonzero(probs)}
    rng = random.Random(options.seed)  # noqa: S311 a reproducible one
    random.seed(options.seed)
    np.random.seed(options.seed % 2**32)
    arguments, named = _wants_rng(sampler, rng)
    found = np.zeros(options.count, np.int64)
    with contextlib.redirect_stdout(sys.stderr):
        for at in range(options.count):
            try:
                token = sampler(dict(keys), *arguments, **named)
            except (Exception, SystemExit) as error:  # noqa: BLE001 it is the user's code
                raise QuestionError(f"--sampler {options.sampler} raised {type(error).__name__}: {error}") from None
            if isinstance(token, bool) or not isinstance(token, int | np.integer) or not 0 <= int(token) < len(probs):
                raise QuestionError(
                    f"--sampler {options.sampler} returned {str(token)[:40]!r}, expected a token from 0 to {len(probs) - 1}"
                )
            found[at] = int(token)
    return found


def _load(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    if not module or not function:
        raise QuestionError(f"--sampler {name}: expected module:function")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # noqa: BLE001 importing the user's module runs it
        raise QuestionError(f"--sampler {name}: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise QuestionError(f"--sampler {name}: not a function")
    loaded: Callable[..., Any] = found
    return loaded


def _wants_rng(sampler: Callable[..., Any], rng: random.Random) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The generator as a second argument, or by its name if the sampler has no other; else nothing."""
    try:
        kinds = [parameter for parameter in inspect.signature(sampler).parameters.values() if parameter.default is parameter.empty]
    except (TypeError, ValueError):
        return (), {}
    plain = [parameter for parameter in kinds if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)]
    named = [parameter.name for parameter in kinds if parameter.kind is parameter.KEYWORD_ONLY]
    return ((rng,) if len(plain) > 1 else ()), {named[0]: rng} if len(named) == 1 else {}


def _judged(options: DrawOptions, probs: Doubles, counts: Ids, outcome: DrawTest) -> Report:
    wrong = outcome.p_value < options.alpha
    nearest = outcome.law or min(outcome.powers, key=lambda name: outcome.powers[name], default=None)
    strength = 0.0 if nearest is None else outcome.powers[nearest]
    verdict = "inconsistent" if wrong else "consistent" if outcome.decided else "undecided"
    result: DrawResult = {
        "n": outcome.n,
        "test": outcome.test,
        "statistic": outcome.statistic,
        "p_value": outcome.p_value,
        "power": strength,
        "powers": outcome.powers,
        "needed": outcome.needed,
        "law": outcome.law,
        "law_probs": None
        if outcome.law_probs is None
        else {str(at): float(outcome.law_probs[at]) for at in np.flatnonzero(outcome.law_probs)[:1000]},
        "verdict": verdict,
        "counts": {str(token): int(counts[token]) for token in np.flatnonzero(counts)},
        "alpha": options.alpha,
    }
    what = options.sampler or options.draws
    findings = _findings(Location(options.draws or str(options.sampler)), outcome, verdict)
    text = (
        f"{verdict.capitalize()}: {what}, {plural(outcome.n, 'draw')}, p = {outcome.p_value:.2g} ({outcome.test}, alpha {options.alpha:g})."
    )
    document = (*findings, *_document(probs, counts, outcome, verdict))
    return Report("sample draw", _subject(options, probs), result, findings, document=document, verdict=Verdict(text, STATUSES[verdict]))


def _findings(where: Location, outcome: DrawTest, verdict: str) -> tuple[Finding, ...]:
    if verdict != "inconsistent":
        return ()
    if outcome.law is not None:
        return (BROKEN.at(where, f"the draws follow the law of a broken sampler: {outcome.law}", n=outcome.n, p_value=outcome.p_value),)
    if outcome.impossible:
        message = f"{plural(outcome.impossible, 'draw')} of tokens without probability"
        return (IMPOSSIBLE.at(where, message, n=outcome.n, p_value=outcome.p_value),)
    return (OTHER.at(where, f"{outcome.n:,} draws do not follow the claimed distribution", n=outcome.n, p_value=outcome.p_value),)


def _document(probs: Doubles, counts: Ids, outcome: DrawTest, verdict: str) -> tuple[Block, ...]:
    blocks: list[Block] = [_picture(probs, counts, outcome.law_probs)]
    if verdict != "inconsistent" and outcome.open:
        far = max(outcome.apart[name] for name in outcome.open)
        text = f"{', '.join(outcome.open)}: at most {far:.3g} of the mass moves"
        blocks.append(
            Note("Limits", f"not distinguishable with {plural(outcome.n, 'draw')}: {text}", "warn" if verdict == "undecided" else "dim")
        )
    lines = [
        f"{name}: {outcome.powers[name]:.0%}" + (f" (99% from {outcome.needed[name]:,} draws)" if outcome.needed[name] else "")
        for name in outcome.powers
    ]
    if lines:
        blocks.append(Note("Power", "\n".join(lines), "dim"))
    return tuple(blocks)


def _picture(probs: Doubles, counts: Ids, law: Doubles | None) -> Bars:
    """The likeliest and the most drawn tokens: claimed, drawn, and what the broken sampler's law would give."""
    n = max(1, int(counts.sum()))
    order = np.argsort(-np.maximum(probs, counts / n), kind="stable")[:_SHOWN]
    tokens = [int(token) for token in order if probs[token] > 0 or counts[token]]
    named = {"claimed": probs, "drawn": counts / n, **({} if law is None else {"law": law})}
    rows = tuple((str(token), *(f"{row[token]:.4f}" for row in named.values()), f"{counts[token]:,}") for token in tokens)
    bars = tuple(
        Bar(
            f"token {token}",
            tuple(float(row[token]) for row in named.values()),
            plural(int(counts[token]), "draw") + ("" if probs[token] > 0 else ", of no probability"),
            chosen=not probs[token] > 0,
        )
        for token in tokens
    )
    table = Table(("token", *named, "count"), rows)
    return Bars("Probability claimed and drawn", "", tuple(named), bars, stacked=False, digits=4, instead=(table,))


def _subject(options: DrawOptions, probs: Doubles) -> dict[str, Any]:
    return {
        "distribution": options.probs or options.logits,
        "settings": options.settings.named(),
        "engine": options.engine,
        "vocab": len(probs),
        "sampler": options.sampler,
        "draws": options.draws,
    }

"""Samplers that are known to be broken, as exact laws: what they draw instead of the distribution."""

from __future__ import annotations

import numpy as np

from llmdoctor.sample.types import Doubles, Ids, LogitRow

LOOP_BY_ID = "last pass wins, keys in the order of their ids"
LOOP_DOWN = "last pass wins, keys from the likeliest down"
LOOP_UP = "last pass wins, keys from the least likely up"
TEMPERATURE_ON_PROBS = "temperature on probabilities"
NEVER_ZERO = "token 0 never drawn"
ONE_SHORT = "a nucleus one short"
LAWS = (LOOP_BY_ID, LOOP_DOWN, LOOP_UP, NEVER_ZERO, ONE_SHORT)


def last_pass_wins(probs: Doubles) -> Doubles:
    """What the loop draws that asks a fresh random number of each key and lets the last that passes win: `probs` [n] in key order -> law [n].

    P(i) = p_i prod_{j>i} (1 - p_j); where none passes the last key is taken.
    """
    survive = np.cumprod((1 - probs)[::-1])[::-1]
    law: Doubles = probs * np.append(survive[1:], 1.0)
    law[-1] += survive[0]
    return law


def softmax_of_probs(probs: Doubles, temperature: float) -> Doubles:
    """What softmax(p / T) draws where softmax(logits / T) was meant; `probs` [n] without a temperature."""
    e = np.exp((probs - probs.max()) / temperature)
    law: Doubles = e / e.sum()
    return law


def never_zero(probs: Doubles, ids: Ids) -> Doubles:
    """What is drawn where `if not chosen` takes the last key instead of token 0; `ids` [n] are the keys in order."""
    law: Doubles = probs.copy()
    zero = np.flatnonzero(ids == 0)
    if len(zero) and len(ids) > 1:
        last = len(ids) - 1 if zero[0] != len(ids) - 1 else len(ids) - 2
        law[last] += law[zero[0]]
        law[zero[0]] = 0.0
    return law


def one_short(probs: Doubles) -> Doubles:
    """What a nucleus draws that leaves out the token with which it is full: the least likely one of `probs` [n]."""
    law = probs.copy()
    if np.count_nonzero(law) > 1:
        law[int(np.where(law > 0, law, np.inf).argmin())] = 0.0
    total: Doubles = law / law.sum()
    return total


def law_logprobs(row: LogitRow, token: int) -> Doubles:
    """log P(token) under each of LAWS, for the claimed distribution `row`; -inf where the law cannot draw it."""
    ids = row.tokens()
    at = np.flatnonzero(ids == token)
    if not len(at):
        return np.full(len(LAWS), -np.inf)
    e, total = row.weights()
    probs = e.astype(np.float64) / total
    down = np.argsort(-probs, kind="stable")
    place = int(np.flatnonzero(down == at[0])[0])
    drawn = (
        last_pass_wins(probs)[at[0]],
        last_pass_wins(probs[down])[place],
        last_pass_wins(probs[down[::-1]])[len(down) - 1 - place],
        never_zero(probs, ids)[at[0]],
        one_short(probs)[at[0]],
    )
    with np.errstate(divide="ignore"):
        logs: Doubles = np.log(np.array(drawn, np.float64))
    return logs

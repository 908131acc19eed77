"""What a replay works on: logits or scores, the tokens that were drawn from them, the prompt, and how exact the numbers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.text import plural
from llmdoctor.files.arrays import Logits, open_logits
from llmdoctor.modeldir.directory import read_model_dir
from llmdoctor.sample.claim import Claim
from llmdoctor.sample.keys import ids_of
from llmdoctor.sample.layering import config_field
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.rounding import rounded
from llmdoctor.sample.steps import Tolerance
from llmdoctor.sample.tokens import beside, read_tokens
from llmdoctor.sample.types import SamplingParams

_RECORDED = Tolerance(1e-4, 1e-4, "recorded logits")
_FORCED = {
    "float32": Tolerance(1e-3, 1e-2, "teacher forcing in float32"),
    "float16": Tolerance(0.01, 0.05, "teacher forcing in float16"),
    "bfloat16": Tolerance(0.03, 0.3, "teacher forcing in bfloat16"),
}
_BITS = {"bfloat16": 7, "float16": 10}  # of the mantissa
_LOOKED = 64  # steps that are looked at to tell scores from logits, and the precision
_TAIL = 4  # the same token so often at the end is padding, where no end is known


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation. `prompt` is None where it is not known; `scores`: the settings are applied to these logits already.

    `notes` are sentences about what was taken for what.
    """

    logits: Logits
    tokens: list[int]
    prompt: tuple[int, ...] | None
    tolerance: Tolerance
    scores: bool
    notes: tuple[str, ...]


def read_generation(options: ReplayOptions, claim: Claim) -> Generation:
    """Read, or run the model. Raises QuestionError, MissingExtra."""
    prompt: tuple[int, ...] | None
    if options.logits is None:
        logits, tokens, prompt, tolerance = _forced(options)
        scores, why = False, ""
    else:
        logits = open_logits(options.logits, options.sequence)
        tokens, prompt = _drawn(options, logits)
        scores, why = is_scores(logits, claim.settings, options.scores)
        tolerance = _recorded(logits)
    if len(tokens) != logits.steps:
        raise QuestionError(f"{len(tokens)} tokens and {logits.steps} steps of logits in {logits.path}: expected one token a step")
    known = claim.eos if claim.eos or options.model is None else ids_of(config_field(read_model_dir(options.model), "eos_token_id"))
    end, ended = ending(tokens, options.eos, known)
    notes = tuple(note for note in (why, ended) if note)
    return Generation(logits.first(end), tokens[:end], prompt, tolerance, scores, notes)


def _forced(options: ReplayOptions) -> tuple[Logits, list[int], tuple[int, ...], Tolerance]:
    if options.model is None or options.prompt is None or options.tokens is None:
        raise QuestionError("nothing to replay: expected recorded logits, or --model DIR --prompt FILE --tokens FILE")
    from llmdoctor.sample.live import teacher_forced

    tokens = read_tokens(options.tokens, options.sequence)
    dtype = options.dtype or "float32"
    array, prompt = teacher_forced(options.model, options.prompt, tokens, dtype, options.images)
    return Logits(options.model, array, "float32", {}), tokens, tuple(prompt), _FORCED[dtype]


def _drawn(options: ReplayOptions, logits: Logits) -> tuple[list[int], tuple[int, ...] | None]:
    """The tokens and the prompt. generate()'s `sequences` hold both: the last ones, one a step, were drawn."""
    prompt = None if options.prompt is None else tuple(read_tokens(options.prompt))
    if options.tokens is not None:
        return read_tokens(options.tokens, options.sequence), prompt
    name, tokens = beside(logits.others, logits.path, options.sequence)
    if not tokens:
        raise QuestionError(f"{logits.path}: which tokens were drawn? --tokens FILE with their ids")
    start = len(tokens) - logits.steps
    if name == "sequences" and start > 0:
        return tokens[start:], tuple(tokens[:start]) if prompt is None else prompt
    return tokens, prompt


def is_scores(logits: Logits, claim: SamplingParams, said: bool | None) -> tuple[bool, str]:
    """Whether the settings are applied already, and the sentence that says why it is thought so ("" where nothing is to be said)."""
    if said is not None:
        return said, "scores, as --scores says: tested against themselves, the settings are not applied again" if said else ""
    picked = np.unique(np.linspace(0, logits.steps - 1, min(_LOOKED, logits.steps)).astype(np.int64))
    holed = np.mean([bool(np.isneginf(logits.rows(int(step), int(step) + 1)).any()) for step in picked])
    cuts = (claim.top_k, claim.top_p, claim.min_p, claim.typical_p, claim.top_h, claim.epsilon_cutoff, claim.eta_cutoff)
    cut = claim.do_sample and any(value is not None for value in cuts)
    if logits.scores and cut and not holed:
        return False, "named scores, but no token is cut off although the claim cuts: taken for logits (--scores says otherwise)"
    if logits.scores:
        return True, "scores by their name: tested against themselves, the settings are not applied again (--raw says otherwise)"
    if logits.scores is None and cut and holed > 0.5:
        share = f"tokens are cut off (-inf) in {holed:.0%} of the steps"
        return True, f"{share}: taken for scores, the settings are not applied again (--raw says that they are masked logits)"
    return False, ""


def _recorded(logits: Logits) -> Tolerance:
    """The tolerance of recorded logits: of those in half precision, or of numbers that are all in its grid, as far as its neighbours lie apart."""
    dtype = logits.dtype
    if dtype not in _BITS:
        rows = logits.rows(0, min(4, logits.steps))
        dtype = next((name for name in _BITS if np.array_equal(rounded(rows, name), rows)), dtype)
    if dtype not in _BITS:
        return _RECORDED
    return Tolerance(_RECORDED.mass, _RECORDED.logit, f"recorded logits in {dtype}", _BITS[dtype])


def ending(tokens: Sequence[int], said: Sequence[int], known: Sequence[int]) -> tuple[int, str]:
    """How many of the tokens were drawn, and a sentence where the others are padding: behind an end that was named; behind one that the
    files name, and behind none that is known, only one token again and again, for a call may have ignored its end."""
    for ids, name in ((said, "--eos"), (known, "the claim's or the model's eos_token_id")):
        at = next((at for at, token in enumerate(tokens) if token in ids), None)
        if at is not None and (name == "--eos" or len(set(tokens[at + 1 :])) == 1):
            rest = len(tokens) - at - 1
            text = f"{plural(rest, 'token')} behind the end at step {at} ({tokens[at]}, by {name}) left out as padding"
            return at + 1, text if rest else ""
    end = len(tokens)
    while end and tokens[end - 1] == tokens[-1]:
        end -= 1
    run = len(tokens) - end
    if end and run >= _TAIL:
        return end, f"the last {run} tokens, all {tokens[-1]}, left out as padding (--eos ID says where a sequence ends)"
    return len(tokens), ""

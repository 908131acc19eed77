"""What a replay works on: logits or scores, the tokens that were drawn from them, the prompts, and how exact the numbers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.text import plural
from llmdoctor.modeldir.directory import read_model_dir
from llmdoctor.sample.claim import Claim
from llmdoctor.sample.keys import ids_of
from llmdoctor.sample.layering import config_field
from llmdoctor.sample.logits import Logits, open_logits
from llmdoctor.sample.options import ReplayOptions
from llmdoctor.sample.repeats import beyond_chance
from llmdoctor.sample.rounding import rounded
from llmdoctor.sample.steps import Tolerance
from llmdoctor.sample.tokens import beside, read_sequences, read_tokens
from llmdoctor.sample.types import Ids, SamplingParams, Sequences

_RECORDED = Tolerance(1e-4, 1e-4, "recorded logits")
_FORCED = {
    "float32": Tolerance(1e-3, 1e-2, "teacher forcing in float32"),
    "float16": Tolerance(0.01, 0.05, "teacher forcing in float16"),
    "bfloat16": Tolerance(0.03, 0.3, "teacher forcing in bfloat16"),
}
_BITS = {"bfloat16": 7, "float16": 10}  # of the mantissa
_LOOKED = 64  # steps that are examined to tell scores from logits, and for the precision
_TAIL = 4  # the same token so often at the end is padding, if no end is known


@dataclass(frozen=True, slots=True)
class Generation:
    """The recorded steps of one call, all its sequences one after another.

    `prompt_known` is False if the tokens in front are not known; `scores`: the settings are applied to these logits already. `notes` are
    sentences about what was read as what; `repeats` pairs of equal sequences, of which only the first is kept.
    """

    logits: Logits
    tokens: list[int]
    sequences: Sequences
    prompt_known: bool
    tolerance: Tolerance
    scores: bool
    notes: tuple[str, ...]
    repeats: tuple[tuple[int, int], ...] = ()


class _Rows:
    """Rows of logits [steps, batch, V] as one array [S, V], read a slice at a time: row i is array[step[i], sequence[i]]."""

    def __init__(self, array: NDArray[Any], steps: Ids, sequence: Ids) -> None:
        self._array, self._steps, self._sequence = array, steps, sequence
        self.shape = (len(steps), array.shape[-1])
        self.dtype, self.ndim = array.dtype, 2

    def __getitem__(self, at: slice) -> NDArray[Any]:
        found: NDArray[Any] = self._array[self._steps[at], self._sequence[at]]
        return found


def read_generation(options: ReplayOptions, claim: Claim) -> Generation:
    """Read the recording, or run the model. Raises QuestionError, MissingExtra."""
    options = _with_kind(options)
    ends = claim.eos if claim.eos or options.model is None else ids_of(config_field(read_model_dir(options.model), "eos_token_id"))
    if options.logits is None:
        return _forced(options, ends)
    logits = open_logits(options.logits, options.sequence, batch=True)
    if logits.array.ndim == 3:
        return _batch(options, claim, logits, ends)
    tokens, prompt = _drawn(options, logits)
    scores, why = is_scores(logits, claim.settings, options.scores)
    _same_length(tokens, logits.steps, logits.path)
    end, ended = ending(tokens, options.eos, ends)
    notes = tuple(note for note in (why, ended) if note)
    sequences = Sequences((0,), (prompt or (),))
    return Generation(
        logits=logits.first(end),
        tokens=tokens[:end],
        sequences=sequences,
        prompt_known=prompt is not None,
        tolerance=_recorded(logits),
        scores=scores,
        notes=notes,
    )


def _with_kind(options: ReplayOptions) -> ReplayOptions:
    """--kind of logits: raw ones are logits, processed ones scores."""
    if options.kind is None:
        return options
    if options.kind not in ("raw", "processed"):
        raise QuestionError(
            f"--kind {options.kind}: expected raw or processed for logits; temperature is a kind of listed log-probabilities"
        )
    return replace(options, scores=options.kind == "processed")


def _same_length(tokens: Sequence[int], steps: int, path: str) -> None:
    if len(tokens) != steps:
        raise QuestionError(f"{len(tokens)} tokens and {steps} steps of logits in {path}: expected one token per step")


def _forced(options: ReplayOptions, ends: Sequence[int]) -> Generation:
    if options.model is None or options.prompt is None or options.tokens is None:
        raise QuestionError("nothing to replay: expected recorded logits, or --model DIR --prompt FILE --tokens FILE")
    from llmdoctor.sample.live import teacher_forced

    tokens = read_tokens(options.tokens, options.sequence)
    dtype = options.dtype or "float32"
    array, prompt = teacher_forced(options.model, options.prompt, tokens, dtype, options.images)
    end, ended = ending(tokens, options.eos, ends)
    logits = Logits(options.model, array, "float32", {}).first(end)
    notes = (ended,) if ended else ()
    return Generation(
        logits=logits,
        tokens=tokens[:end],
        sequences=Sequences((0,), (tuple(prompt),)),
        prompt_known=True,
        tolerance=_FORCED[dtype],
        scores=False,
        notes=notes,
    )


def _batch(options: ReplayOptions, claim: Claim, logits: Logits, ends: Sequence[int]) -> Generation:
    """All sequences of logits [steps, batch, V]; padding is left out, and of equal sequences one is kept."""
    if options.step is not None:
        raise QuestionError(f"--step {options.step}: of which sequence? --sequence 0 to {logits.array.shape[1] - 1}")
    steps, count = logits.array.shape[:2]
    every, prompts, known = _all_drawn(options, logits, steps)
    if len(every) != count and len(every) == steps and all(len(tokens) == count for tokens in every):
        logits, steps, count = replace(logits, array=logits.array.swapaxes(0, 1)), count, steps  # [batch, steps, V]
    if len(every) != count:
        raise QuestionError(f"{len(every)} sequences of tokens and {count} of logits in {logits.path}: expected as many of both")
    kept: list[list[int]] = []
    repeats, padded = [], 0
    numbers: list[int] = []
    for index, tokens in enumerate(every):
        _same_length(tokens, steps, f"{logits.path}: sequence {index}")
        end, _ = ending(tokens, options.eos, ends)
        padded += steps - end
        first = next((numbers[at] for at, other in enumerate(kept) if other == tokens[:end]), None)
        drawn = (logits.array[step, index] for step in range(end))
        scale = claim.settings.temperature or 1.0
        if first is not None and claim.settings.do_sample and beyond_chance(drawn, tokens, scale, count=count):
            repeats.append((first, index))
            continue
        kept.append(tokens[:end])
        numbers.append(index)
    lengths = [len(tokens) for tokens in kept]
    rows = np.concatenate([np.arange(length) for length in lengths])
    columns = np.repeat(np.array(numbers), lengths)
    one = replace(logits, array=logits.array[:, 0])
    scores, why = is_scores(one, claim.settings, options.scores)
    flat: Any = _Rows(logits.array, rows, columns)
    starts = tuple(int(start) for start in np.cumsum([0, *lengths[:-1]]))
    notes = [note for note in (why, f"{plural(padded, 'token')} of padding left out" if padded else "") if note]
    found = Sequences(starts, tuple(prompts[number] for number in numbers))
    flat_tokens = [token for tokens in kept for token in tokens]
    return Generation(
        logits=replace(logits, array=flat),
        tokens=flat_tokens,
        sequences=found,
        prompt_known=known,
        tolerance=_recorded(one),
        scores=scores,
        notes=tuple(notes),
        repeats=tuple(repeats),
    )


def _all_drawn(options: ReplayOptions, logits: Logits, steps: int) -> tuple[list[list[int]], list[tuple[int, ...]], bool]:
    """The tokens of every sequence, the prompts (empty if unknown), and whether those are known."""
    prompt = None if options.prompt is None else tuple(read_tokens(options.prompt))
    if options.tokens is not None:
        every = read_sequences(options.tokens)
    else:
        name, array = next(((name, logits.others[name]) for name in (*TOKEN_NAMES, "sequences") if name in logits.others), ("", None))
        if array is None or np.ndim(array) != 2 or np.asarray(array).dtype.kind not in "iu":
            raise QuestionError(f"{logits.path}: which tokens were drawn? --tokens FILE with their ids, one list per sequence")
        every = [[int(token) for token in row] for row in np.asarray(array)]
        if name == "sequences" and len(every[0]) > steps:
            fronts = [tuple(row[: len(row) - steps]) for row in every]
            return [row[len(row) - steps :] for row in every], fronts, True
    return every, [prompt or ()] * len(every), prompt is not None


TOKEN_NAMES = ("token_ids", "tokens", "output_token_ids", "output_ids", "ids")


def _drawn(options: ReplayOptions, logits: Logits) -> tuple[list[int], tuple[int, ...] | None]:
    """The tokens and the prompt. generate()'s `sequences` hold both: the last ones, one per step, were drawn."""
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


def is_scores(logits: Logits, claim: SamplingParams, given: bool | None) -> tuple[bool, str]:
    """Return whether the settings are applied to the logits already, and the sentence that gives the reason ("" if there is none to give)."""
    if given is not None:
        return given, "scores, as --scores states: tested against themselves, the settings are not applied again" if given else ""
    picked = np.unique(np.linspace(0, logits.steps - 1, min(_LOOKED, logits.steps)).astype(np.int64))
    holed = np.mean([bool(np.isneginf(logits.rows(int(step), int(step) + 1)).any()) for step in picked])
    cuts = (claim.top_k, claim.top_p, claim.min_p, claim.typical_p, claim.top_h, claim.epsilon_cutoff, claim.eta_cutoff)
    cut = claim.do_sample and any(value is not None for value in cuts)
    if logits.scores and cut and not holed:
        return False, "named scores, but no token is cut off although the claim cuts: read as logits (--scores states otherwise)"
    if logits.scores:
        return True, "scores by their name: tested against themselves, the settings are not applied again (--raw states otherwise)"
    if logits.scores is None and cut and holed > 0.5:
        share = f"tokens are cut off (-inf) in {holed:.0%} of the steps"
        return True, f"{share}: read as scores, the settings are not applied again (--raw states that they are masked logits)"
    return False, ""


def _recorded(logits: Logits) -> Tolerance:
    """The tolerance of recorded logits: if they are in half precision, or all lie on its grid, the distance of two neighbours."""
    dtype = logits.dtype
    if dtype not in _BITS:
        rows = logits.rows(0, min(4, logits.steps))
        dtype = next((name for name in _BITS if np.array_equal(rounded(rows, name), rows)), dtype)
    if dtype not in _BITS:
        return _RECORDED
    return Tolerance(_RECORDED.mass, _RECORDED.logit, f"recorded logits in {dtype}", _BITS[dtype])


def ending(tokens: Sequence[int], given: Sequence[int], known: Sequence[int]) -> tuple[int, str]:
    """Return how many of the tokens were drawn, and a sentence if the others are padding.

    Padding is what follows an end that --eos names; what follows an end that the files name, if it is one token again and again; and without
    a known end only one token again and again, because a call may have ignored its end.
    """
    for ids, name in ((given, "--eos"), (known, "the claim's or the model's eos_token_id")):
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
        return end, f"the last {run} tokens, all {tokens[-1]}, left out as padding (--eos ID names the end of a sequence)"
    return len(tokens), ""

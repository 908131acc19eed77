"""The rules about recorded outputs."""

from __future__ import annotations

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule, declared

PASSED = Rule(
    code="GEN014",
    name="terminator-passed",
    severity=Severity.ERROR,
    summary="A sequence holds a token that ends a turn, and decoding went on after it.",
    reason="The model had ended its answer, but decoding went on: what follows is text of another speaker or a repetition. It costs the full budget, and a reward "
    "model or a judge reads it as part of the answer. The model produced the token; the ids at which the call stops did not hold it. "
    "The usual reasons are a trainer that sets model.generation_config.eos_token_id to None, a generation_config.json without the chat template's "
    "terminator, and ignore_eos left on from a benchmark. It is a warning if every such sequence stopped in the end (records of several turns), and if less "
    "than one text in a hundred holds a token that neither the user nor the model's files name.",
    bad='{"token_ids": [40, 2776, 6915, 151645, 198, 151644, 872, ...], "finish_reason": "length"}   and 151645 is <|im_end|>',
    good='{"token_ids": [40, 2776, 6915, 151645], "finish_reason": "stop"}',
    fix="llmdoctor gencfg check MODEL says whether the files stop there; llmdoctor gencfg trace -- COMMAND names the line that took the id away.",
)
LOOP = Rule(
    code="GEN015",
    name="repetition-loop",
    severity=Severity.ERROR,
    summary="A sequence ends in one unit that repeats: at least three times and over at least 32 tokens (96 characters if there are no ids).",
    reason="Once greedy or nearly greedy decoding has written the same passage a few times, the repetition is the likeliest continuation, and only the "
    "length limit ends it. A terminator that was passed is a frequent beginning; so are a prompt without the chat template and training data whose eos was masked. It is a "
    "warning where less than one sequence in a hundred does so without an end.",
    bad='{"token_ids": [9, 8, 5, 6, 7, 5, 6, 7, 5, 6, 7, ...], "finish_reason": "length"}',
    good='{"token_ids": [9, 8, 5, 6, 7, 151645], "finish_reason": "stop"}',
    fix="Look at the tokens before the loop. If a terminator is among them, correct the stop ids; else sample, or set repetition_penalty, and check the chat template of the prompt.",
)
LENGTH = Rule(
    code="GEN016",
    name="ended-by-length",
    severity=Severity.ERROR,
    summary="Sequences ended because they reached their limit of tokens, not because the model was done.",
    reason="A few are ordinary. If nearly all sequences do, nothing can end a sequence, the model never learned to end one, or the limit is "
    "shorter than an answer. Truncated answers are scored as they are, and a rollout takes its longest possible time. It is an error from nine in ten on, a warning "
    "from one in ten on and where it was only inferred.",
    bad='160 rows of {"finish_reason": "length", "max_tokens": 512}',
    good='160 rows, 150 of them {"finish_reason": "stop"}',
    fix="If terminators were produced, see GEN014. If not, raise the limit for a few prompts; if those do not end either, check that the training data's eos is a target.",
)
RULES = declared(globals())

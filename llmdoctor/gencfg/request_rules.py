"""Declarations of the rules about requests to vLLM (read in 0.33.0) and OpenAI, GEN017 to GEN020."""

from __future__ import annotations

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule, declared

REFUSED = Rule(
    code="GEN017",
    name="request-refused",
    severity=Severity.ERROR,
    summary="The server answers this request with 400 Bad Request.",
    reason="A value outside its range, a whole number written with a fraction, an empty stop string, more than one greedy answer: in a batch file the line comes back as "
    "an error after the batch has run, and the answers are short of as many.",
    bad='{"model": "m", "messages": [...], "temperature": 0.7, "top_p": 0}',
    good='{"model": "m", "messages": [...], "temperature": 0.7, "top_p": 1}',
    fix="Correct the value that the message names.",
)
IDLE = Rule(
    code="GEN018",
    fixable=True,
    name="request-setting-without-effect",
    severity=Severity.WARNING,
    summary="A setting of the request does nothing.",
    reason="Below a temperature of 0.00001 vLLM takes the likeliest token and sets top_p, top_k and min_p to off: a reader of the file thinks that the answers were sampled, and n "
    "answers of one request would be the same. max_tokens beside max_completion_tokens is not read, and neither is what the endpoint does not know.",
    bad='{"temperature": 0, "top_p": 0.9}',
    good='{"temperature": 0}',
    fix="Remove the setting without effect, or the setting that disables it.",
)
NO_LIMIT = Rule(
    code="GEN019",
    name="request-without-a-limit",
    severity=Severity.INFO,
    summary="A request does not limit the length of an answer.",
    reason="/v1/chat/completions then lets it fill the context: one answer that does not stop holds a slot for 32,768 tokens and more. /v1/completions then cuts it after 16 "
    "tokens. vLLM takes max_new_tokens of the model's generation_config.json as the limit, if the file has one.",
    bad='{"model": "m", "messages": [...], "temperature": 0.7}',
    good='{"model": "m", "messages": [...], "temperature": 0.7, "max_completion_tokens": 1024}',
    fix="Set max_completion_tokens (chat) or max_tokens (completions).",
)
RUNS_ON = Rule(
    code="GEN020",
    name="request-ignores-eos",
    severity=Severity.WARNING,
    summary="ignore_eos is true: the model's end of turn ends nothing.",
    reason="The setting is for benchmarks of a server, in which every answer must have the same length. In data for training or evaluation each answer goes on behind its end, as the "
    "other speaker or in repetition, up to max_tokens.",
    bad='{"ignore_eos": true, "max_tokens": 2048}',
    good='{"max_tokens": 2048}',
    fix="Remove ignore_eos, outside of a benchmark.",
)
RULES = declared(globals())

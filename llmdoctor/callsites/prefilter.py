"""Decide from a file's bytes whether it can hold a finding at all: most of a repository is never parsed.

A rule's words are looked for first (2 GB/s), and its pattern has to match only if all of them are present: what the rule asks for, as
it is written on a line or two. Both read Python and a notebook's JSON, in which a quote follows a backslash and a new line may be
the two characters \\n.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_QUOTE = rb"\\?[\"']"
_GAP = rb"(?:\W|\\n)*"  # what may separate two names: blanks, brackets, quotes, a new line
_PADDING = rb"padding\s*=\s*(?:True|" + _QUOTE + rb"(?:longest|max_length))"
_PAD_IS_EOS = (
    rb"pad(?:\w*[^\n=]*=(?!=)" + _GAP + rb"[^\n]*eo[sd]|_token" + _QUOTE + rb"\s*:[^\n]*eos)"
)  # one beginning: searched for quickly
_CONFIG = rb"(?:generation|gen|generate)_config"
_NOTHING = rb"(?:None|\[\s*\]|\[?\s*-\s*\d)"  # values that no token equals
_EOS_NONE = (
    rb"\.eos_token_id\b[^\n=]*=(?!=)[^\n]*"
    + _NOTHING
    + rb"|(?:update|setattr|GenerationConfig)\s*\([^;]{0,300}?eos_token_id\W{1,8}"
    + _NOTHING
)
_NONE = rb"eos_token_id(?:" + _QUOTE + rb")?\s*[=:]\s*" + _NOTHING
_GENERATES = rb"generate\s*\(|pipe(?:line)?\(|generator\(|generation_kwargs|" + _CONFIG


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Signs:
    """What a file must hold for a rule to find something in it: all the words, and a match of every pattern."""

    words: tuple[bytes, ...]
    patterns: tuple[re.Pattern[bytes], ...]


def _signs(words: str, *patterns: bytes) -> _Signs:
    return _Signs(tuple(words.encode().split()), tuple(map(re.compile, patterns)))


def _drawn(function: str) -> _Signs:
    """A loop with `if random() < p`, or with `drawn = random()` above an `if` that mentions it."""
    call = rb"\b" + function.encode() + rb"\("
    return _signs(
        f"{function}( for if", rb"\bif\b[^\n]*" + call + rb"|\b(\w+) *=[^\n=]*" + call + rb"(?:[^\n]*\n){0,12}?[^\n]*\bif\b[^\n]*\b\1\b"
    )


_SIGNS = (
    _signs("eos_token_id", _CONFIG, _EOS_NONE),  # PYC001
    _signs("eos_token_id generate", rb"\bgenerate\s*\(", _NONE),
    _signs("attention_mask eos_token", _PAD_IS_EOS, rb"!=|\bne\("),  # PYC002
    _signs("masked_fill _mask", rb"masked_fill_?\s*\([^;]{0,300}?att(?:entio)?n_mask[^;]{0,100}?\b0"),  # PYC003
    _signs("log_softmax scores output_scores"),  # PYC004
    _signs("DataCollatorFor pad_token eos_token", _PAD_IS_EOS),  # PYC005
    _signs("-100 pad eos_token", _PAD_IS_EOS, rb"masked_fill|where\s*\(|\[[^\n\]]*(?:==|eq\()|\bif\b[^\n]*\belse\b"),
    _signs("gnore pad eos_token", _PAD_IS_EOS, rb"[iI]gnore_?(?:index|id|label|token)|IGNORE"),
    _signs("padding_side right .generate(", rb"padding_side[^\n]*right", _PADDING),  # PYC006
    *map(_drawn, ("random", "rand", "uniform")),  # PYC007
    _signs("softmax temp", rb"(?:/[^/]{0,80}?|div(?:ide)?_?\s*\([^;]{0,80}?)\btemp(?:erature)?\b"),  # PYC008
    _signs("do_sample True", rb"do_sample(?:" + _QUOTE + rb")?\s*[=:]\s*True", rb"temperature|top_k"),  # PYC009
    _signs("do_sample False", rb"do_sample(?:" + _QUOTE + rb")?\s*[=:]\s*False", rb"temperature|top_[pk]|min_p|typical_p"),  # PYC010
    _signs("padding input_ids .generate(", _PADDING),  # PYC011
    _signs("eos_token_id", _GENERATES, rb"(?:[tT]ok\w*|[pP]rocessor)\.eos_token_id"),  # PYC013
    _signs("vllm SamplingParams"),  # PYC014
    _signs("vllm LLM", rb"\.(?:generate|chat)\("),
    _signs("do_sample True generate( .logits", rb"log_softmax|cross_entropy"),  # PYC015
    _signs("trl Trainer(", rb"(?:PPO(?:v2)?|RLOO)Trainer\("),  # PYC016
)


def may_hold_a_finding(data: bytes) -> bool:
    """False where no rule can apply to a file with these bytes."""
    return any(all(word in data for word in signs.words) and all(pattern.search(data) for pattern in signs.patterns) for signs in _SIGNS)

"""llama.cpp: read in the llama.cpp of llama-cpp-python 0.3.9 (src/llama-vocab.cpp:1803 and :1948, common/common.h, tools/server)."""

from __future__ import annotations

from collections.abc import Sequence

from llmdoctor.gencfg.engines.server import ServerRules, generation_eos, named_tokens, resolve_server, together, tokenizer_eos
from llmdoctor.gencfg.engines.types import GenerationEngine, ModelFacts
from llmdoctor.gencfg.types import Effective, GenerateCall

VERSION = "5586"
# Tokens that end generation because of their text, even if the metadata of the file does not name them.
EOG_TEXTS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>", "_<EOT>")
RULES = ServerRules(
    name="llama.cpp",
    version=VERSION,
    place="llama.cpp common/common.h",
    parameters={
        "max_new_tokens": ("n_predict", None),
        "temperature": ("temperature", 0.8),
        "top_p": ("top_p", 0.95),
        "top_k": ("top_k", 40),
        "min_p": ("min_p", 0.05),
        "repetition_penalty": ("repeat_penalty", 1.0),
        "presence_penalty": ("presence_penalty", 0.0),
        "frequency_penalty": ("frequency_penalty", 0.0),
        "stop_strings": ("stop", None),
        "ignore_eos": ("ignore_eos", False),
        "seed": ("seed", None),
    },
    limit="context",
    stop_ids=together(tokenizer_eos, named_tokens(*EOG_TEXTS)),
)
FILE_RULES = ServerRules(
    name=RULES.name,
    version=RULES.version,
    place=RULES.place,
    parameters=RULES.parameters,
    limit="context",
    stop_ids=together(generation_eos, named_tokens(*EOG_TEXTS)),
)


def _resolve(call: GenerateCall, facts: ModelFacts, _version: str) -> Effective:
    return resolve_server(FILE_RULES if facts.is_gguf else RULES, call, facts)


def _stop_fix(ids: Sequence[int]) -> str:
    first = ids[0] if ids else "ID"
    return f'gguf_set_metadata.py MODEL.gguf tokenizer.ggml.eot_token_id {first}, or "stop": [TEXT] in the request'


NEUTRAL = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
ENGINE = GenerationEngine(
    name="llama.cpp",
    title="llama.cpp",
    distribution=None,
    known=(VERSION,),
    evidence="read",
    source="llama.cpp (as in llama-cpp-python 0.3.9) src/llama-vocab.cpp, common/common.h, tools/server/README.md",
    resolve=_resolve,
    acts_on=frozenset((*RULES.parameters, "eos_token_id", "do_sample")),
    neutral={**NEUTRAL, "do_sample": False, "ignore_eos": False},
    stops="llama.cpp stops at the eos, eot and eom ids of the GGUF file and at tokens with a known text (<|im_end|>, <|eot_id|>, <end_of_turn>, ...).",
    ignores="llama.cpp ignores generation_config.json: convert_hf_to_gguf.py writes the tokenizer's eos_token into the GGUF file.",
    stop_fix=_stop_fix,
    has_own_ends=True,
)

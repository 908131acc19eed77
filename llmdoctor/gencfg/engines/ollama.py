"""Ollama: a Modelfile over a GGUF file; parameters and defaults as its documentation (docs/modelfile.md) gives them."""

from __future__ import annotations

from collections.abc import Sequence

from llmdoctor.gencfg.engines.llamacpp import EOG_TEXTS, NEUTRAL
from llmdoctor.gencfg.engines.server import ServerRules, generation_eos, named_tokens, resolve_server, together, tokenizer_eos
from llmdoctor.gencfg.engines.types import GenerationEngine, ModelFacts
from llmdoctor.gencfg.types import Effective, GenerateCall

VERSION = "0.6.0"
_PARAMETERS = {
    "max_new_tokens": ("num_predict", None),
    "temperature": ("temperature", 0.8),
    "top_p": ("top_p", 0.9),
    "top_k": ("top_k", 40),
    "min_p": ("min_p", 0.0),
    "repetition_penalty": ("repeat_penalty", 1.1),
    "stop_strings": ("stop", None),
    "seed": ("seed", None),
}
RULES = ServerRules(
    name="ollama",
    version=VERSION,
    place="ollama docs/modelfile.md",
    parameters=_PARAMETERS,
    limit="context",
    stop_ids=together(generation_eos, tokenizer_eos, named_tokens(*EOG_TEXTS)),
)


def _resolve(call: GenerateCall, facts: ModelFacts, _version: str) -> Effective:
    return resolve_server(RULES, call, facts)


def _stop_fix(_ids: Sequence[int]) -> str:
    return "PARAMETER stop TEXT   in the Modelfile, one line for each text"


ENGINE = GenerationEngine(
    name="ollama",
    title="Ollama",
    distribution=None,
    known=(VERSION,),
    evidence="read",
    source="ollama docs/modelfile.md",
    resolve=_resolve,
    acts_on=frozenset((*_PARAMETERS, "eos_token_id", "do_sample")),
    neutral={**NEUTRAL, "do_sample": False},
    stops="Ollama stops at the end-of-generation ids of the GGUF file, as llama.cpp does, and at each PARAMETER stop of the Modelfile.",
    ignores="Ollama ignores generation_config.json.",
    stop_fix=_stop_fix,
    has_own_ends=True,
    reads_directories=False,
)

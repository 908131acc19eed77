"""Ollama: a Modelfile over a GGUF file.

Read in api/types.go (DefaultOptions, commit 00a4cb26), llm/server.go ("10 * s.options.NumCtx"), envconfig/config.go (OLLAMA_CONTEXT_LENGTH) and
model/models/*/model.go (eos_token_id and eos_token_ids are the only stop ids of Ollama's own engine).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmdoctor.gencfg.engines.llamacpp import NEUTRAL, eog_texts, texts_of
from llmdoctor.gencfg.engines.llamacpp import VERSION as LLAMA_CPP
from llmdoctor.gencfg.engines.server import ServerRules, generation_eos, ids_in, resolve_server
from llmdoctor.gencfg.engines.types import GenerationEngine, ModelFacts
from llmdoctor.gencfg.types import Effective, GenerateCall, Json, SourcedValue

VERSION = "0.12.0"
_PARAMETERS: Mapping[str, tuple[str, Json]] = {
    "max_new_tokens": ("num_predict", None),
    "temperature": ("temperature", 0.8),
    "top_p": ("top_p", 0.9),
    "top_k": ("top_k", 40),
    "min_p": ("min_p", 0.0),
    "typical_p": ("typical_p", 1.0),
    "repetition_penalty": ("repeat_penalty", 1.1),
    "presence_penalty": ("presence_penalty", 0.0),
    "frequency_penalty": ("frequency_penalty", 0.0),
    "stop_strings": ("stop", None),
    "seed": ("seed", None),
}
_CONTEXTS = 10  # llm/server.go: num_predict is at most, and without a value, ten times num_ctx


def _stop_ids(call: GenerateCall, facts: ModelFacts) -> list[SourcedValue]:
    return [*generation_eos(call, facts), *texts_of(LLAMA_CPP)(call, facts)]


def _resolve(call: GenerateCall, facts: ModelFacts, version: str) -> Effective:
    """Return the settings of a request; `facts.max_model_len` is num_ctx."""
    context = facts.max_model_len
    rules = ServerRules(
        name="ollama",
        version=VERSION,
        place="ollama api/types.go",
        parameters=_PARAMETERS,
        limit="context" if context is None else _CONTEXTS * context,
        stop_ids=_stop_ids,
        unlimited=f"a request without num_predict ends after {_CONTEXTS} times num_ctx tokens",
    )
    own = [token for found in generation_eos(call, facts) for token in ids_in(found.value)]
    named = [text for text in eog_texts(LLAMA_CPP) if facts.id_of is not None and facts.id_of(text) not in (None, *own)]
    doubt = (
        f"Ollama's own engine, which runs some architectures, stops only at the ids in the metadata, not at {', '.join(named[:3])}"
        if named
        else None
    )
    return resolve_server(rules, call, facts, version, () if doubt is None else (doubt,))


def _stop_fix(_ids: Sequence[int]) -> str:
    return "PARAMETER stop TEXT   in the Modelfile, one line for each text"


ENGINE = GenerationEngine(
    name="ollama",
    title="Ollama",
    distribution=None,
    known=(VERSION,),
    evidence="read",
    source="ollama api/types.go (DefaultOptions, commit 00a4cb26), llm/server.go, envconfig/config.go, model/models/*/model.go, docs/modelfile.md",
    resolve=_resolve,
    acts_on=frozenset((*_PARAMETERS, "eos_token_id", "do_sample")),
    neutral={**NEUTRAL, "typical_p": 1.0, "do_sample": False},
    stops="Ollama stops at the end-of-generation ids of the GGUF file, as llama.cpp does, and at each PARAMETER stop of the Modelfile. Its own "
    "engine, which runs some architectures, stops only at eos_token_id and eos_token_ids of the file.",
    ignores="Ollama ignores generation_config.json beside a GGUF file; `ollama create` from safetensors files writes its stop ids into the GGUF.",
    stop_fix=_stop_fix,
    has_own_ends=True,
    reads_directories=False,
)

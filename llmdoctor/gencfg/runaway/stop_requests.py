"""How a request names its own stops to each server whose records can be recognised: the fix in the engine's language.

Read in: SGLang docs/basic_usage/sampling_params.md, vLLM 0.33.0 sampling_params.py, TGI router/src/lib.rs (GenerateParameters), llama.cpp
tools/server/README.md, Ollama docs/api.md and docs/modelfile.md. An engine that gencfg/engines has uses its own entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

_Fix = Callable[[Sequence[int], Sequence[str]], str]


def _texts(ids: Sequence[int], texts: Sequence[str]) -> str:
    return json.dumps(list(texts), ensure_ascii=False) if texts else f"[the text of {', '.join(map(str, ids))}]"


_SERVERS: dict[str, tuple[str, _Fix]] = {
    "sglang": ("SGLang", lambda ids, _: f'"sampling_params": {{..., "stop_token_ids": {list(ids)}}}   in the request'),
    "vllm": ("vLLM", lambda ids, _: f"SamplingParams(..., stop_token_ids={list(ids)})"),
    "tgi": ("TGI", lambda ids, texts: f'"parameters": {{..., "stop": {_texts(ids, texts)}}}   in the request'),
    "llama.cpp": ("llama.cpp", lambda ids, texts: f'"stop": {_texts(ids, texts)}   in the request'),
    "ollama": (
        "Ollama",
        lambda ids, texts: f'"options": {{..., "stop": {_texts(ids, texts)}}}   in the request, or PARAMETER stop in the Modelfile',
    ),
}


def engine_title(engine: str) -> str:
    """Return how a person writes the name of an engine."""
    return _SERVERS[engine][0] if engine in _SERVERS else engine


def stop_request(engine: str, ids: Sequence[int], texts: Sequence[str]) -> str:
    """Return the text to paste that makes a request to `engine` stop at the terminators with these ids and texts."""
    from llmdoctor.gencfg.engines.table import engines

    known = engines().get(engine)
    return known.stop_fix(ids) if known is not None else _SERVERS[engine][1](ids, texts)

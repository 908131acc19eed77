"""mlx-lm: read in mlx_lm 0.32.2 (utils.py:363 load_config, tokenizer_utils.py:359, server.py:1307 and :1989, generate.py:39)."""

from __future__ import annotations

from collections.abc import Sequence

from llmdoctor.gencfg.engines.server import ServerRules, config_eos, generation_eos, resolve_server, tokenizer_eos
from llmdoctor.gencfg.engines.types import GenerationEngine, ModelFacts
from llmdoctor.gencfg.types import Effective, GenerateCall, SourcedValue

VERSION = "0.32.2"


def _stop_ids(call: GenerateCall, facts: ModelFacts) -> list[SourcedValue]:
    """Return eos_token_id of generation_config.json, else config.json's, and the tokenizer's eos_token."""
    return [*(generation_eos(call, facts) or config_eos(call, facts)), *tokenizer_eos(call, facts)]


RULES = ServerRules(
    name="mlx",
    version=VERSION,
    place="mlx_lm/server.py",
    parameters={
        "max_new_tokens": ("max_tokens", 512),
        "temperature": ("temperature", 0.0),
        "top_p": ("top_p", 1.0),
        "top_k": ("top_k", 0),
        "min_p": ("min_p", 0.0),
        "repetition_penalty": ("repetition_penalty", 1.0),
        "stop_strings": ("stop", None),
        "seed": ("seed", None),
    },
    limit=512,
    stop_ids=_stop_ids,
    unlimited="as mlx_lm.server; mlx_lm.generate ends after 100 tokens",
)


def _resolve(call: GenerateCall, facts: ModelFacts, version: str) -> Effective:
    return resolve_server(RULES, call, facts, version)


def _stop_fix(ids: Sequence[int]) -> str:
    return f'"eos_token_id": {list(ids)}   in generation_config.json, or tokenizer.add_eos_token(TEXT)'


ENGINE = GenerationEngine(
    name="mlx",
    title="MLX",
    distribution="mlx_lm",
    known=(VERSION,),
    evidence="measured",
    source="mlx_lm 0.32.2: load_config was run (conformance/make_engine_rows.py); read: utils.py, tokenizer_utils.py, server.py",
    resolve=_resolve,
    acts_on=frozenset((*RULES.parameters, "eos_token_id", "do_sample")),
    neutral={
        **{name: default for name, (_, default) in RULES.parameters.items() if name != "temperature"},
        "temperature": 1.0,
        "do_sample": False,
    },
    stops="mlx-lm stops at eos_token_id of generation_config.json (config.json's if that has none) and at the tokenizer's eos_token.",
    ignores="mlx-lm ignores the sampling fields and limits of generation_config.json; mlx_lm.server decodes greedily at most 512 tokens by default.",
    stop_fix=_stop_fix,
)

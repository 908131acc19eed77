"""Text Generation Inference: read in its server (utils/tokens.py StoppingCriteria, models/*: tokenizer._eos_token_ids)."""

from __future__ import annotations

from collections.abc import Sequence

from llmdoctor.gencfg.engines.server import ServerRules, generation_eos, resolve_server, tokenizer_eos
from llmdoctor.gencfg.engines.types import GenerationEngine, ModelFacts
from llmdoctor.gencfg.types import Effective, GenerateCall, SourcedValue

VERSION = "3.0.0"


def _stop_ids(call: GenerateCall, facts: ModelFacts) -> list[SourcedValue]:
    """Return the list in generation_config.json; an eos_token_id that is a single number is not read, the tokenizer's eos_token counts."""
    listed = [found for found in generation_eos(call, facts) if isinstance(found.value, list)]
    return listed or tokenizer_eos(call, facts)


RULES = ServerRules(
    name="tgi",
    version=VERSION,
    place="text_generation_server/utils/tokens.py",
    parameters={
        "max_new_tokens": ("max_new_tokens", None),
        "temperature": ("temperature", 1.0),
        "top_p": ("top_p", 1.0),
        "top_k": ("top_k", 0),
        "typical_p": ("typical_p", 1.0),
        "repetition_penalty": ("repetition_penalty", 1.0),
        "frequency_penalty": ("frequency_penalty", 0.0),
        "stop_strings": ("stop", None),
        "ignore_eos": ("ignore_eos_token", False),
        "seed": ("seed", None),
    },
    limit="context",
    stop_ids=_stop_ids,
)


def _resolve(call: GenerateCall, facts: ModelFacts, _version: str) -> Effective:
    return resolve_server(RULES, call, facts)


def _stop_fix(ids: Sequence[int]) -> str:
    return f'"eos_token_id": {list(ids)}   in generation_config.json (a list; TGI does not read a single number), or "stop": [TEXT] in the request'


ENGINE = GenerationEngine(
    name="tgi",
    title="TGI",
    distribution=None,
    known=(VERSION,),
    evidence="read",
    source="huggingface/text-generation-inference server/text_generation_server/utils/tokens.py, models/",
    resolve=_resolve,
    acts_on=frozenset((*RULES.parameters, "eos_token_id", "do_sample")),
    neutral={**{name: default for name, (_, default) in RULES.parameters.items()}, "do_sample": False, "max_new_tokens": None},
    stops="TGI stops at eos_token_id of generation_config.json if that is a list, else at the tokenizer's eos_token alone, and at stop of the request.",
    ignores="TGI ignores every other field of generation_config.json, and eos_token_id of config.json.",
    stop_fix=_stop_fix,
)

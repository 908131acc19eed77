"""Text Generation Inference: read in its router (validation.rs, lib.rs) and its server (utils/tokens.py, models/*: tokenizer._eos_token_ids)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmdoctor.gencfg.engines.server import ServerRules, generation_eos, resolve_server, tokenizer_eos
from llmdoctor.gencfg.engines.types import GenerationEngine, ModelFacts
from llmdoctor.gencfg.types import Effective, GenerateCall, SourcedValue

_FIXED, VERSION = "2.0.0", "3.0.0"  # a request without a limit: 100 tokens before 3.0.0


def _stop_ids(call: GenerateCall, facts: ModelFacts) -> list[SourcedValue]:
    """Return the list in generation_config.json; an eos_token_id that is a single number is not read, the tokenizer's eos_token counts.

    server/text_generation_server/models/causal_lm.py: `isinstance(generation_config.eos_token_id, (list, set))`, and
    utils/tokens.py StoppingCriteria.from_pb: `getattr(tokenizer, "_eos_token_ids", tokenizer.eos_token_id)`.
    """
    listed = [found for found in generation_eos(call, facts) if isinstance(found.value, list)]
    return listed or tokenizer_eos(call, facts)


RULES = ServerRules(
    name="tgi",
    version=VERSION,
    place="router/src/validation.rs",
    parameters={
        "max_new_tokens": ("max_tokens", None),
        "temperature": ("temperature", 1.0),
        "top_p": ("top_p", 1.0),
        "top_k": ("top_k", 0),
        "typical_p": ("typical_p", 1.0),
        "repetition_penalty": ("repetition_penalty", 1.0),
        "frequency_penalty": ("frequency_penalty", 0.0),
        "stop_strings": ("stop", None),
        "seed": ("seed", None),
    },
    limit="context",
    stop_ids=_stop_ids,
    unlimited="a chat request without max_tokens may fill max_total_tokens of the server (/generate is greedy unless do_sample is set)",
)
OLD_RULES = replace(
    RULES,
    version=_FIXED,
    place="router/src/lib.rs",
    limit=100,
    unlimited="/generate is greedy unless do_sample is set",
)


def _resolve(call: GenerateCall, facts: ModelFacts, version: str) -> Effective:
    old = version.lstrip("v").startswith(("0.", "1.", "2."))
    return resolve_server(OLD_RULES if old else RULES, call, facts, version)


def _stop_fix(ids: Sequence[int]) -> str:
    return f'"eos_token_id": {list(ids)}   in generation_config.json (a list; TGI does not read a single number), or "stop": [TEXT] in the request'


ENGINE = GenerationEngine(
    name="tgi",
    title="TGI",
    distribution=None,
    known=(_FIXED, VERSION),
    evidence="read",
    source="huggingface/text-generation-inference router/src/validation.rs (commit 01067f8b: DEFAULT_GENERATION_LENGTH, validate_input), "
    "router/src/lib.rs (default_max_new_tokens), server/text_generation_server/utils/tokens.py (commit 01e61bf0: StoppingCriteria), models/",
    resolve=_resolve,
    acts_on=frozenset((*RULES.parameters, "eos_token_id", "do_sample")),
    neutral={**{name: default for name, (_, default) in RULES.parameters.items()}, "do_sample": False, "max_new_tokens": None},
    stops="TGI stops at eos_token_id of generation_config.json if that is a list, else at the tokenizer's eos_token alone, and at stop of the request.",
    ignores="TGI ignores every other field of generation_config.json, and eos_token_id of config.json.",
    stop_fix=_stop_fix,
)

"""One recorded output as every reader of recorded outputs gives it, and how an engine reports that it ended.

Sources of the names: transformers and TRL (completion_ids; trl 1.0.0 grpo_trainer.py:2504, experimental/ppo/ppo_trainer.py:997), OpenAI's
chat.completion, text_completion, response and batch output, vLLM 0.33.0 (outputs.py, entrypoints/openai/*/protocol.py), SGLang (meta_info),
TGI (details), llama.cpp (stop_type), Anthropic (stop_reason), Gemini (finishReason), Ollama (done_reason).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

Ended = Literal["eos", "length", "stop", "other", "unknown"]

IDS = (
    "token_ids output_ids completion_ids response_ids output_token_ids completion_token_ids response_token_ids generated_token_ids "
    "generated_ids generated_tokens output_tokens tokens completions_ids"
).split()
TEXTS = (
    *"text completion response output generated_text output_text completion_text response_text generation content prediction predict".split(),
    *("model response", "model_response", "completions", "responses", "generations", "outputs", "predictions", "tokens"),
)
REASONS = ("finish_reason", "stop_reason", "finish_reasons", "stop_type", "done_reason", "finishReason", "status")
LIMITS = (
    "max_tokens",
    "max_new_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n_predict",
    "num_predict",
    "max_gen_toks",
    "maxOutputTokens",
    "generation_size",
)
COUNTS = (
    "completion_tokens",
    "output_tokens",
    "generated_tokens",
    "num_generated_tokens",
    "tokens_predicted",
    "eval_count",
    "candidatesTokenCount",
)
HOLDERS = (
    "doc",
    "meta_info",
    "details",
    "sampling_params",
    "parameters",
    "params",
    "generation_config",
    "generationConfig",
    "generation_settings",
    "model_parameters",
    "options",
    "request",
    "usage",
    "usageMetadata",
    "metadata",
)
_ENDED: Mapping[str, Ended] = {
    **dict.fromkeys("eos eos_token end_turn end_of_text end_of_sequence eos_token_id".split(), "eos"),
    **dict.fromkeys("length max_tokens max_new_tokens max_length max_output_tokens limit incomplete model_length".split(), "length"),
    # A tool call is an end that the model chose: engines report it instead of "stop".
    **dict.fromkeys(
        "stop stop_sequence stop_string stop_str word completed complete tool_calls tool_call function_call tool_use".split(), "stop"
    ),
    **dict.fromkeys(
        "content_filter abort aborted error cancelled refusal failed pause_turn safety recitation load unload".split(),
        "other",
    ),
}


class OutputSequence(NamedTuple):
    """One recorded output (a tuple for speed: there are millions of them).

    `line` counts from 1 (for rows of a table too), `ids` are int32 in native order, `tokens` is the number of generated tokens if it is known,
    `reported` how the engine reports that it ended (None: it does not), `limit` is in tokens. `raw` is the line it came from if the text
    beside the ids was not read. `engine` is the engine whose own format the record has, "" if many write it.
    """

    line: int
    ids: bytes | None
    text: str | None
    tokens: int | None
    reported: Ended | None
    limit: int | None
    raw: bytes | None = None
    engine: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that the user named (None: they are found by their usual names)."""

    ids: str | None = None
    text: str | None = None

    @property
    def id_names(self) -> tuple[str, ...]:
        """Return the columns that may hold token ids, in order; none if only a text column was named."""
        return (self.ids,) if self.ids is not None else () if self.text is not None else tuple(IDS + list(TEXTS))

    @property
    def text_names(self) -> tuple[str, ...]:
        """Return the columns that may hold text, in order; none if only a column of ids was named."""
        return (self.text,) if self.text is not None else () if self.ids is not None else TEXTS


class Unusable(Exception):
    """A record whose output cannot be read, with the reason in one clause.

    `names` are its columns if the reason is that none fits. `failed` says that there is no output at all, because the request failed.
    """

    def __init__(self, reason: str, names: tuple[str, ...] = (), *, failed: bool = False) -> None:
        super().__init__(reason)
        self.names, self.failed = names, failed


def ended(reason: Any, stop: Any = ...) -> Ended | None:
    """Return how an engine reports the end: its finish reason and, if it gives one (else ...), vLLM's stop_reason beside it.

    vLLM: finish_reason "stop" with stop_reason null is eos, an int is a stop token, a text is a stop string (0.33.0 outputs.py:73).
    """
    if isinstance(reason, dict):  # SGLang: {"type": "stop", "matched": 151645}; HELM: {"reason": "length"}
        reason, stop = reason.get("type", reason.get("reason")), reason.get("matched", stop)
    if not isinstance(reason, str) or not reason:
        return None
    found = _ENDED.get(reason.lower())
    if found == "stop" and stop is not ... and reason.lower() == "stop":
        return "stop" if isinstance(stop, str) else "eos"
    return found or "other"


def is_reason(name: str, reason: Any) -> bool:
    """Return whether a column that may hold a finish reason does: "status" and "stop_reason" may hold anything, "finish_reason" may not."""
    if isinstance(reason, str):
        return reason.lower() in _ENDED or (bool(reason) and name == "finish_reason")
    return isinstance(reason, list | dict)


def pack(ids: list[int]) -> bytes:
    """Return `ids` as int32 in native order. Raises Unusable if one is no token id."""
    try:
        return _packer(len(ids)).pack(*ids)
    except struct.error:
        raise Unusable("a token id that is not a 32-bit number") from None


@lru_cache(maxsize=4096)
def _packer(count: int) -> struct.Struct:
    return struct.Struct(f"={count}i")


def is_ids(value: Any) -> bool:
    """Return whether `value` is a list of whole numbers; an empty list is one too."""
    return isinstance(value, list) and set(map(type, value)) <= {int}

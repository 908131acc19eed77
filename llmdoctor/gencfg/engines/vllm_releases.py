"""What differs between releases of vLLM, 0.10.0 to 0.33.0, with the file and the release from which each rule holds.

SamplingParams of each release was run (conformance/compare_vllm.py); what the server does around it was read in the same 25 wheels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from llmdoctor.core.release import release

# One release of each minor version.
KNOWN = (
    *("0.10.0", "0.10.2", "0.11.2", "0.12.0", "0.13.0", "0.14.1", "0.15.1", "0.16.0", "0.17.1", "0.18.1", "0.19.1", "0.20.2", "0.21.0"),
    *("0.22.1", "0.23.0", "0.24.0", "0.25.1", "0.26.0", "0.27.1", "0.28.0", "0.29.0", "0.30.0", "0.31.0", "0.32.0", "0.33.0"),
)
NEWEST = KNOWN[-1]
_FIRST_TYPED = ("temperature must be non-negative", "temperature must be in", "top_p must be", "max_tokens must be")


@dataclass(frozen=True, slots=True)
class VllmRelease:
    """One release: `version` is the one that was asked for; the rules of a newer one than KNOWN are those of the newest.

    `file_penalties`: presence_penalty and frequency_penalty of generation_config.json count (config/model.py available_params, 0.31).
    `hottest`: the largest temperature that is accepted (sampling_params.py _verify_args, 0.24), None before.
    `most_sequences`: the largest n (sampling_params.py, VLLM_MAX_N_SEQUENCES, 0.19), None before.
    `lower_limit`: the file's max_new_tokens also limits a request that gives max_tokens (get_max_tokens takes the lower one, until 0.16).
    `adapter_tokenizer`: a request for an adapter ends at the eos_token of the adapter's own tokenizer (inputs/preprocess.py get_eos_token_id,
    tokenizer_group.py get_lora_tokenizer, until 0.10); later releases load the base model's only.
    `sums_lengths`: a prompt and max_tokens that exceed the context together are refused, not cut (_validate_input, until 0.15).
    """

    version: str
    file_penalties: bool
    hottest: float | None
    most_sequences: int | None
    lower_limit: bool
    adapter_tokenizer: bool
    sums_lengths: bool

    @property
    def name(self) -> str:
        """Return the name in the origin of a value: "vllm 0.10.2"."""
        return f"vllm {self.version}"

    def line(self, number: int) -> int | None:
        """Return a line of the newest known release; None for another one, whose lines were not kept."""
        return number if release(self.version) == release(NEWEST) else None

    def error_type(self, message: str) -> str:
        """Return the exception with which SamplingParams refuses: a ValueError until 0.13, a TypeError for the type of top_k until 0.26."""
        numbers = release(self.version)
        if numbers >= (0, 27) or (numbers >= (0, 14) and message.startswith(_FIRST_TYPED)):
            return "VLLMValidationError"
        return "TypeError" if "must be an integer" in message else "ValueError"


@cache
def vllm_release(version: str = NEWEST) -> VllmRelease:
    """Return what one release does; the rules of the oldest known one for an older one."""
    numbers = release(version)
    return VllmRelease(
        version=version,
        file_penalties=numbers >= (0, 31),
        hottest=2.0 if numbers >= (0, 24) else None,
        most_sequences=16384 if numbers >= (0, 19) else None,
        lower_limit=numbers < (0, 17),
        adapter_tokenizer=numbers < (0, 11),
        sums_lengths=numbers < (0, 16),
    )

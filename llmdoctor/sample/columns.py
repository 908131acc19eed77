"""Columns of log-probabilities by the names that trainers and engines give them in their dumps; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

Role = Literal["trainer", "engine"]
PLAIN = ("logprobs", "token_logprobs", "log_probs", "logprob", "logps")
NAMES: Mapping[Role, tuple[str, ...]] = {
    "trainer": (
        "old_log_probs", "actor_log_probs", "trainer_log_probs", "trainer_logprobs", "prox_logp",
        "old_per_token_logps", "per_token_logps", "prev_logprobs",
        "old_action_log_probs", "action_log_probs", "train_log_probs", "policy_logprobs", "old_logprobs", *PLAIN,
    ),
    "engine": (
        "rollout_log_probs", "rollout_logprobs", "sampling_per_token_logps", "generation_logprobs", "inference_logprobs", "engine_log_probs",
        "vllm_logprobs", "infer_logprobs", "sampling_logprobs", "behavior_logprobs", *PLAIN,
    ),
}  # fmt: skip
LOGPROBS = frozenset(name for names in NAMES.values() for name in names)
MASKS = (
    "response_mask", "completion_mask", "action_mask", "token_loss_mask", "loss_mask", "loss_masks", "token_mask", "mask", "attention_mask",
)  # fmt: skip


def holds_both_sides(names: Collection[str]) -> bool:
    """Return whether columns of these names are a dump with the log-probabilities of trainer and engine."""
    return all(any(name in names for name in NAMES[role] if name not in PLAIN) for role in ("trainer", "engine"))

"""What a trainer computes around the model's forward: its loss, its metrics, a reference model. The same operations on fake tensors.

Source: trl 1.0.0, trainer/sft_trainer.py, dpo_trainer.py and reward_trainer.py (compute_loss), trainer/utils.py (selective_log_softmax,
entropy_from_logits). tests/mem/test_objectives.py runs TRL's own compute_loss under the same recorder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ENTROPY_ROWS = 128  # trainer/utils.py:542
Call = Callable[[dict[str, Any]], Any]


def supervised(call: Call, inputs: dict[str, Any]) -> Any:
    """Return the loss of SFTTrainer. Its metrics copy the logits but for the last token (sft_trainer.py, compute_loss)."""
    import torch

    outputs = call(inputs)
    with torch.no_grad():
        _entropy(outputs["logits"])
        shifted = outputs["logits"][..., :-1, :].contiguous()
        shifted.argmax(dim=-1)
    return outputs["loss"]


def preference(call: Call, inputs: dict[str, Any], reference: Call | None) -> Any:
    """Return the loss of DPOTrainer, every token counted as one of a completion.

    The batch holds the chosen sequences, then the rejected ones. Both logits and their shifted copies live until the end (dpo_trainer.py:1149).
    """
    import torch
    from torch.nn import functional

    outputs = call(inputs)
    shifted = outputs["logits"][..., :-1, :].contiguous()
    labels = inputs["input_ids"][..., 1:].contiguous()
    scores = _log_probabilities(shifted, labels).sum(dim=1)
    known = None
    if reference is not None:
        with torch.no_grad():
            others = reference(inputs)
        known = others["logits"][..., :-1, :].contiguous()
        scores = scores - _log_probabilities(known, labels).sum(dim=1)
    chosen, rejected = scores.chunk(2, dim=0)
    loss = -functional.logsigmoid(chosen - rejected).mean()
    _entropy(shifted.detach())
    for part in shifted.detach().chunk(2, dim=0):
        _selected(part).mean(-1).sum()
    return loss


def unpaired(call: Call, inputs: dict[str, Any], reference: Call | None) -> Any:
    """Return the loss of KTOTrainer, every token counted as one of a completion, half of the examples as desirable (trl 1.0.0, experimental/kto).

    Before the trained forward, the model reads the completions of other prompts without gradients. Copies of the logits of the desirable and the
    undesirable examples live until the end, those of the reference model until its forward ends.
    """
    import torch
    from torch.nn import functional

    def forward(ask: Call) -> tuple[Any, Any, list[Any]]:
        with torch.no_grad():
            other = _completion_scores(ask(inputs)["logits"], inputs)
        logits = ask(inputs)["logits"]
        scores = _completion_scores(logits, inputs)
        half = logits.shape[0] - logits.shape[0] // 2
        places = (torch.arange(half), torch.arange(half, logits.shape[0]))
        return scores, other, [logits.index_select(0, place) for place in places]

    scores, others, parts = forward(call)
    known = 0.0
    if reference is not None:
        with torch.no_grad():
            known, far, _ = forward(reference)
        others = others - far
    ratio = scores - known - others.mean().detach()
    loss = (1 - functional.sigmoid(ratio)).mean()
    del parts  # their sums (nansum) allocate nothing of this size on a GPU
    return loss


def _completion_scores(logits: Any, inputs: dict[str, Any]) -> Any:
    return _log_probabilities(logits[:, :-1, :], inputs["input_ids"][:, 1:].clone()).sum(-1)


def _selected(logits: Any) -> Any:
    """Return the logits of a completion's tokens, selected by a mask: a copy, and the positions [tokens, 2] for a moment."""
    import torch

    places = torch.empty(logits.shape[0] * logits.shape[1], 2, dtype=torch.int64)
    copy = torch.empty(places.shape[0], logits.shape[-1], dtype=logits.dtype)
    del places
    return copy


def reward(call: Call, inputs: dict[str, Any]) -> Any:
    """Return the loss of RewardTrainer from one number per sequence."""
    from torch.nn import functional

    chosen, rejected = call(inputs)["logits"].squeeze(-1).chunk(2)
    return -functional.logsigmoid(chosen - rejected).mean()


def _log_probabilities(logits: Any, labels: Any) -> Any:
    """Return the log-probability of each label, row by row as TRL computes it: float32 keeps the logits, 16 bit a second copy of them."""
    import torch
    from torch.nn import functional

    index = labels.unsqueeze(-1)
    if logits.dtype == torch.float32:
        chosen = torch.gather(logits, dim=-1, index=index)
        sums = torch.stack([torch.logsumexp(row, dim=-1) for row in logits])
        return (chosen - sums.unsqueeze(-1)).squeeze(-1)
    rows = [functional.log_softmax(row, dim=-1).gather(dim=-1, index=at) for row, at in zip(logits, index, strict=True)]
    return torch.stack(rows).squeeze(-1)


def _entropy(logits: Any) -> None:
    """Compute entropies of ENTROPY_ROWS tokens at a time."""
    import torch

    flat = logits.reshape(-1, logits.shape[-1])
    found = []
    for part in flat.split(ENTROPY_ROWS, dim=0):
        logs = torch.nn.functional.log_softmax(part, dim=-1)
        found.append(-(torch.exp(logs) * logs).sum(-1))
    torch.cat(found)

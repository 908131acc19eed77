"""Which later tokens a token may see by design: images, prefixes and masks of the caller's own are no leak of the future."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.bands import block_spans
from llmdoctor.mask.calls import block_ids
from llmdoctor.mask.intervals import Ints
from llmdoctor.mask.own_mask import meaning_of
from llmdoctor.mask.types import ForwardInputs


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Design:
    """How far ahead each token may see: `reach`, int64 [R, S], is the end of the tokens that a token may see in some layer, R 1 or the batch.

    `causal` is False if the model is two-sided on purpose: then no token is a later one.
    """

    causal: bool
    reach: Ints

    def crosses(self, cut: int) -> bool:
        """Return whether a token before `cut` may see a token at or behind it."""
        return not self.causal or bool((self.reach[:, :cut] > cut).any())


def design_of(arch: Architecture | None, inputs: ForwardInputs) -> Design:
    """Return the design of a model for these inputs; without an architecture, a causal one."""
    reach = np.arange(1, inputs.q_len + 1, dtype=np.int64)[None, :]
    mask = inputs.mask_4d
    if mask is not None:
        shown = meaning_of(mask)[:, :, : inputs.past + inputs.q_len]
        last = shown.shape[2] - np.argmax(shown[:, :, ::-1], axis=2) - inputs.past
        return Design(True, np.where(shown.any(axis=2), np.maximum(last, reach), reach))
    if arch is None:
        return Design(True, reach)
    if not arch.layers:
        return Design(False, reach)  # an encoder
    patterns = [layer.pattern for layer in arch.layers if layer.pattern is not None]
    if patterns and all(pattern.base == "bidirectional" for pattern in patterns):
        return Design(False, reach)
    for pattern in patterns:
        ids = None if pattern.blocks is None else block_ids(inputs, pattern.blocks)
        if ids is not None:
            reach = np.maximum(reach, block_spans(ids)[1])
        elif not pattern.flag:
            return Design(False, reach)  # without marks the model reads the whole text in both directions
    return Design(True, reach)

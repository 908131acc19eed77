"""Published sizes are cut together: the narrow model is built and runs, and its ids stay inside its vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.live

# Each has sizes that depend on each other: padding id, M-RoPE sections, latent heads, state heads, sizes of single layers, experts.
PUBLISHED = {
    "phi3": {}, "glm4": {}, "smollm3": {}, "deepseek_v3": {}, "bamba": {}, "gemma4_text": {}, "qwen3_moe": {}, "modernbert": {}, "granitemoe": {},
    "qwen2_5_vl": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}},
}  # fmt: skip


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_published_size_runs_when_narrowed(kind: str) -> None:
    from transformers import CONFIG_MAPPING

    from llmdoctor.mask.live import build, narrow

    build.quiet()
    changes: dict[str, Any] = {"text_config": PUBLISHED[kind]} if PUBLISHED[kind] else {}
    config = CONFIG_MAPPING[kind](**changes)
    made = narrow.narrowed(config)
    assert made.cut in ("widths narrowed", "widths narrowed, head sizes kept")
    text, small = config.get_text_config(), made.config.get_text_config()
    assert small.num_hidden_layers == text.num_hidden_layers
    assert getattr(small, "layer_types", None) == getattr(text, "layer_types", None)
    ids = made.ids(np.asarray([[0, 1, 5, text.vocab_size - 1]]))
    assert ids is not None
    assert int(ids.max()) < narrow.VOCABULARY


def test_equal_ids_stay_equal_and_special_ones_special() -> None:
    from llmdoctor.mask.live.narrow import VOCABULARY, Narrowed

    made = Narrowed(None, "widths narrowed", {151643: VOCABULARY - 1, 3: 3})
    ids = made.ids(np.asarray([[151643, 70000, 70000, 3, 4]]))
    assert ids is not None
    assert ids[0, 0] == VOCABULARY - 1
    assert ids[0, 1] == ids[0, 2]
    assert ids[0, 1] not in (3, VOCABULARY - 1)
    assert list(ids[0, 3:]) == [3, 4]


def test_offsets_behind_the_tokens_are_an_error_of_the_kernel_not_a_shape_error() -> None:
    import torch

    from llmdoctor.mask.live.flash import make_kernels

    _, varlen = make_kernels(lambda _told: None)
    tokens, offsets = torch.zeros(4, 2, 8), torch.tensor([0, 4, 8], dtype=torch.int32)
    with pytest.raises(RuntimeError, match="ends at 8 and there are 4 tokens"):
        varlen(tokens, tokens, tokens, cu_seqlens_q=offsets, cu_seqlens_k=offsets)

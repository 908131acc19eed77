"""The transformers engine held against the installed library's own logits processors, built by generate()'s own code."""

from __future__ import annotations

import importlib.util
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdoctor.sample.stages import refusal, run
from llmdoctor.sample.tables import TRANSFORMERS
from llmdoctor.sample.types import SamplingParams, TokenContext

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None, reason="live extra"),
]
CHECK = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])

options = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.2, 0.7, 1.0, 1.3, 2.5]),
        "top_k": st.sampled_from([-1, 0, 1, 2, 5, 40, 10**6]),
        "top_p": st.sampled_from([-0.1, 0.0, 0.101, 0.5003, 0.9001, 0.99, 1.0]),
        "min_p": st.sampled_from([0.0, 0.05, 0.3, 1.0, 1.2]),
        "typical_p": st.sampled_from([0.2001, 0.9007, 1.0]),
        "top_h": st.sampled_from([0.3, 0.8, 0.97]),  # 1.0 compares a sum with itself: rounding decides
        "epsilon_cutoff": st.sampled_from([0.0, 0.003, 0.02]),
        "eta_cutoff": st.sampled_from([0.0, 0.003, 0.02]),
        "repetition_penalty": st.sampled_from([0.7, 1.0, 1.3]),
    },
)


def library(named: dict[str, Any], logits: np.ndarray, before: TokenContext) -> np.ndarray:
    """The probabilities that generate() would draw from."""
    import torch
    from transformers import GenerationConfig
    from transformers.generation.utils import GenerationMixin

    config = GenerationConfig(do_sample=True, **named)
    config._eos_token_tensor = None
    if "top_k" not in named:
        config.top_k = 0
    this = SimpleNamespace(config=SimpleNamespace(is_encoder_decoder=False), _merge_criteria_processor_list=lambda own, users: own)
    ids = torch.tensor([before.prompt + before.output], dtype=torch.long)
    processors = GenerationMixin._get_logits_processor(this, config, input_ids_seq_length=len(before.prompt), device="cpu")
    scores = processors(ids, torch.tensor(logits)[None])
    return torch.nn.functional.softmax(scores, dim=-1, dtype=torch.float64)[0].numpy()


@CHECK
@given(
    named=options,
    size=st.sampled_from([1, 2, 7, 50, 1000, 5000]),
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.1, 1.0, 4.0]),
    holes=st.booleans(),
    half=st.booleans(),
    tokens=st.lists(st.integers(0, 6), max_size=6),
)
def test_the_same_distribution(named: Any, size: int, seed: int, spread: float, holes: bool, half: bool, tokens: list[int]) -> None:
    random = np.random.default_rng(seed)
    logits = (random.standard_normal(size) * spread).astype(np.float32)
    if half:
        logits = logits.astype(np.float16).astype(np.float32)
    if holes and size > 4:
        logits[random.integers(0, size, size // 3)] = -np.inf
    if np.isneginf(logits).all():
        logits[0] = 0.0
    before = TokenContext(tuple(token % size for token in tokens[:3]), tuple(token % size for token in tokens[3:]))
    mine = SamplingParams(**named)
    error = refusal(TRANSFORMERS, mine)
    if error is not None:
        with pytest.raises(ValueError, match=re.escape(error.partition(" ")[2][:30])):
            library(named, logits, before)
        return
    theirs = library(named, logits, before)
    got = run(TRANSFORMERS, mine, logits, before)[-1].row.probs(size)
    assert np.count_nonzero(got) == np.count_nonzero(theirs)
    assert np.abs(np.sort(got) - np.sort(theirs)).max() < 2e-6
    if not half:  # of tokens that tie at a cut torch keeps whichever its sort or topk puts first
        assert np.abs(got - theirs).max() < 2e-6


def test_the_probe_can_fail() -> None:
    logits = np.array([4, 3, 2.5, 2, 1, 0], np.float32)
    theirs = library({"temperature": 0.7, "top_p": 0.9}, logits, TokenContext())
    got = run(TRANSFORMERS, SamplingParams(temperature=0.7, top_p=0.95), logits, TokenContext())[-1].row.probs(6)
    assert np.abs(got - theirs).max() > 0.01

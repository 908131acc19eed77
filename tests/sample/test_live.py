"""Real generations: a tiny Qwen2-VL through transformers' generate, replayed from its logits, by teacher forcing, with beams."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdoctor.sample.stages import run
from llmdoctor.sample.tables import TRANSFORMERS
from llmdoctor.sample.types import SamplingParams
from tests.conftest import Outcome

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "PIL")), reason="vlm extra"),
]
CLAIM = {"do_sample": True, "temperature": 6.0, "top_p": 0.9, "top_k": 0}
NUCLEUS = SamplingParams(temperature=6.0, top_p=0.9)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """420 tokens with an image, their logits and scores, and a beam search; the tiny model is sure of itself: hot, it is not."""
    import torch
    from PIL import Image
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    from llmdoctor.demo.live.tiny_qwen2_vl import build

    folder = tmp_path_factory.mktemp("live")
    model_path = str(build(folder / "model"))
    pixels = np.random.default_rng(0).integers(0, 255, (56, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe this image."}]}]
    (folder / "messages.json").write_text(json.dumps(messages))
    processor = AutoProcessor.from_pretrained(model_path)
    model = Qwen2VLForConditionalGeneration.from_pretrained(model_path, dtype=torch.float32).eval()
    prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[prompt], images=[Image.open(folder / "image.png").convert("RGB")], return_tensors="pt")
    kept = {"return_dict_in_generate": True, "output_logits": True, "output_scores": True, "pad_token_id": 0}
    start = inputs["input_ids"].shape[1]
    for seed in range(20):  # an image's token that was drawn would want a second image in the teacher-forced pass
        torch.manual_seed(seed)
        out = model.generate(**inputs, **CLAIM, **kept, max_new_tokens=420, eos_token_id=[])
        if not (out.sequences[0, start:] == model.config.image_token_id).any():
            break
    (folder / "tokens.json").write_text(json.dumps(out.sequences[0, start:].tolist()))
    np.save(folder / "logits.npy", torch.stack(out.logits)[:, 0].numpy())
    np.save(folder / "scores.npy", torch.stack(out.scores)[:, 0].numpy())
    (folder / "claim.json").write_text(json.dumps(CLAIM))
    beams = {"num_beams": 4, "do_sample": False, "length_penalty": 0.5, "repetition_penalty": 1.3}
    out = model.generate(**inputs, **kept, **beams, num_return_sequences=3, max_new_tokens=16)
    arrays = {name: getattr(out, name).numpy() for name in ("sequences", "beam_indices", "sequences_scores")}
    np.savez(folder / "beams.npz", logits=torch.stack(out.logits).numpy(), **arrays)
    (folder / "beams.json").write_text(json.dumps(beams))
    return folder


def test_recorded_logits_replay_bit_for_bit(case: Path) -> None:
    logits, scores = np.load(case / "logits.npy"), np.load(case / "scores.npy")
    for row, theirs in zip(logits, scores, strict=True):
        last = run(TRANSFORMERS, NUCLEUS, row)[-1].row
        mine = np.full(len(row), -np.inf, np.float32)
        mine[last.tokens()] = last.x
        assert np.array_equal(mine, theirs)


def test_the_true_settings_are_consistent_and_wrong_ones_are_not(case: Path, llmdoctor: Callable[..., Outcome]) -> None:
    base = ("sample", "replay", "logits.npy", "--tokens", "tokens.json", "--format", "json")
    assert llmdoctor(*base, "--claim", "claim.json", cwd=case).report["result"]["verdict"] == "consistent"
    wrong = llmdoctor(*base, "--temperature", "3", "--top-p", "0.9", cwd=case)
    assert (wrong.code, wrong.report["result"]["verdict"]) == (1, "inconsistent")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_teacher_forcing_through_the_processor_does_not_accuse(dtype: str, case: Path, llmdoctor: Callable[..., Outcome]) -> None:
    arguments = (
        "--model",
        "model",
        "--prompt",
        "messages.json",
        "--image",
        "image.png",
        "--tokens",
        "tokens.json",
        "--claim",
        "claim.json",
    )
    outcome = llmdoctor("sample", "replay", *arguments, "--dtype", dtype, "--format", "json", cwd=case, timeout=120)
    result: dict[str, Any] = outcome.report["result"]
    assert result["verdict"] == "consistent"
    if dtype == "float32":
        recorded = llmdoctor(
            "sample", "replay", "logits.npy", "--tokens", "tokens.json", "--claim", "claim.json", "--format", "json", cwd=case
        )
        mine = [step["logprob_raw"] for step in result["steps"]]
        assert mine == pytest.approx([step["logprob_raw"] for step in recorded.report["result"]["steps"]], abs=2e-3)


def test_beams_are_recomputed(case: Path, llmdoctor: Callable[..., Outcome]) -> None:
    right = llmdoctor("sample", "replay", "beams.npz", "--claim", "beams.json", "--format", "json", cwd=case)
    result = right.report["result"]
    assert (right.code, result["verdict"]) == (0, "consistent")
    assert all(beam["score"] == pytest.approx(beam["recorded"], abs=1e-4) for beam in result["beams"])
    (case / "other.json").write_text(json.dumps({"num_beams": 4, "do_sample": False, "length_penalty": 1.5}))
    assert llmdoctor("sample", "replay", "beams.npz", "--claim", "other.json", cwd=case).code == 1


def test_a_model_that_cannot_run_is_one_sentence(case: Path, llmdoctor: Callable[..., Outcome]) -> None:
    (case / "empty").mkdir(exist_ok=True)
    (case / "empty" / "config.json").write_text("{}")
    arguments = ("--model", "empty", "--prompt", "messages.json", "--tokens", "tokens.json", "--claim", "claim.json")
    outcome = llmdoctor("sample", "replay", *arguments, cwd=case, timeout=120)
    assert outcome.code == 2
    assert "could not be run" in outcome.err
    assert "Traceback" not in outcome.err

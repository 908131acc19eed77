"""Real generations replayed, on a GPU where there is one: python conformance/sample_live.py

A tiny Qwen2-VL (as the demo makes it) and a random Qwen2 of 32,000 tokens with realistic logits go through transformers' generate in float32 and
bfloat16 with recorded logits. Recorded logits must replay bit-equal to the scores; true settings must not be accused, neither from the recorded
logits nor from one teacher-forced pass in the same dtype; wrong ones must be. What it prints is kept in docs/sample_live.txt.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
STEPS, SEEDS = 256, 2


def main() -> int:
    import torch
    import transformers

    from llmdoctor.demo.live.tiny_qwen2_vl import build

    device = "cuda" if torch.cuda.is_available() else "cpu"
    card = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {device} ({card})")
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder / "qwen2-vl-tiny")
        random_qwen2(folder / "qwen2-32k")
        for model, temperature in (("qwen2-vl-tiny", 8.0), ("qwen2-32k", 0.7)):
            for dtype in ("float32", "bfloat16"):
                for seed in range(SEEDS):
                    good &= case(folder, model, dtype=dtype, device=device, seed=seed, temperature=temperature)
    print("everything holds" if good else "SOMETHING DOES NOT HOLD")
    return 0 if good else 1


def random_qwen2(path: Path) -> None:
    """A Qwen2 with random weights whose logits are spread as a chat model's, and generation_config.json."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32_000,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    model = Qwen2ForCausalLM(config)
    model.lm_head.weight.data.normal_(0, 3.2 / config.hidden_size**0.5)
    model.generation_config.eos_token_id = None  # llmdoctor: ignore[PYC001]
    model.save_pretrained(path)


def case(folder: Path, name: str, dtype: str, device: str, seed: int, temperature: float) -> bool:
    """One generation, replayed three ways. Whether everything is as it should be."""
    import torch
    import transformers

    from llmdoctor.sample.stages import run
    from llmdoctor.sample.tables import TRANSFORMERS
    from llmdoctor.sample.types import SamplingParams

    auto = transformers.AutoModelForImageTextToText if "vl" in name else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(folder / name, dtype=getattr(torch, dtype)).eval().to(device)
    prompt = list(range(5, 13))
    torch.manual_seed(seed)
    claim = {"do_sample": True, "temperature": temperature, "top_p": 0.9, "top_k": 0}
    kept = {"return_dict_in_generate": True, "output_logits": True, "output_scores": True, "pad_token_id": 0, "eos_token_id": []}
    ids = torch.tensor([prompt], device=device)
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=STEPS, **claim, **kept
    )  # llmdoctor: ignore[PYC001]
    logits = torch.stack(out.logits)[:, 0].float().cpu().numpy()
    scores = torch.stack(out.scores)[:, 0].float().cpu().numpy()
    write(folder, out.sequences[0, len(prompt) :].tolist(), prompt, claim, logits)
    equal = like = 0
    for row, theirs in zip(logits, scores, strict=True):
        last = run(TRANSFORMERS, SamplingParams(temperature=temperature, top_p=0.9), row)[-1].row
        mine = np.full(len(row), -np.inf, np.float32)
        mine[last.tokens()] = last.x
        equal += bool(np.array_equal(mine, theirs))
        like += bool(np.array_equal(np.sort(mine), np.sort(theirs)))
    del model
    recorded = verdict(folder, logits=True)
    forced = verdict(folder, model=str(folder / name), dtype=dtype)
    wrong = verdict(folder, logits=True, claim={**claim, "temperature": temperature * 2})
    support = np.isfinite(scores).sum(axis=1).mean()
    bits_said = f"{equal} of {len(logits)} steps bit-equal to the scores, {like} but for ties (support {support:.0f})"
    print(
        f"{name} {dtype} seed {seed}: {bits_said}; recorded {recorded}, teacher-forced {forced}, twice the temperature {wrong}",
        flush=True,
    )
    # bfloat16 logits tie at the edge, and which of the tied torch keeps is its sort's business; a GPU sums in another order
    bits = device == "cuda" or (equal if dtype == "float32" else like) == len(logits)
    return bits and recorded != "inconsistent" and forced != "inconsistent" and wrong == "inconsistent"


def write(folder: Path, tokens: list[int], prompt: list[int], claim: dict[str, Any], logits: np.ndarray) -> None:
    np.save(folder / "logits.npy", logits)
    for name, value in (("tokens", tokens), ("prompt", prompt), ("claim", claim)):
        (folder / f"{name}.json").write_text(json.dumps(value))


def verdict(
    folder: Path, logits: bool = False, model: str | None = None, dtype: str | None = None, claim: dict[str, Any] | None = None
) -> str:
    """The verdict of one replay."""
    from llmdoctor.sample.options import ReplayOptions
    from llmdoctor.sample.replay import replay_report

    path = folder / ("claim.json" if claim is None else "other.json")
    if claim is not None:
        path.write_text(json.dumps(claim))
    prompt = str(folder / "prompt.json")
    options = ReplayOptions(
        str(folder / "logits.npy") if logits else None,
        str(folder / "tokens.json"),
        str(path),
        model=model,
        prompt=prompt,
        dtype=dtype,
        rows=0,
    )
    result = replay_report(options).result or {}
    return str(result["verdict"])


if __name__ == "__main__":
    sys.exit(main())

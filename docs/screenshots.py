"""Photograph the page of each kind of answer, at 390 and 1440 pixels, light and dark: `python docs/screenshots.py FOLDER [NAME...]`.

The pages come from real commands on inputs that this script makes in FOLDER/inputs. It wants chromium and chromedriver (Debian's packages), and
torch with transformers for the pages that run a model or trace one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.report.webdriver import Browser  # noqa: E402 the tests' own driver, found from the repository's root

CALL = {"max_new_tokens": 512, "temperature": 1.0, "top_k": 0.0, "top_p": 1.0, "do_sample": True, "return_dict_in_generate": True}
GEMMA2: dict[str, Any] = {
    "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096, "vocab_size": 256000, "max_position_embeddings": 8192,
}  # fmt: skip
# The sizes of Qwen2-VL-2B, as its config.json has them.
QWEN2_VL: dict[str, Any] = {
    "model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"], "image_token_id": 151655, "video_token_id": 151656,
    "tie_word_embeddings": True, "dtype": "bfloat16",
    "text_config": {
        "model_type": "qwen2_vl_text", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]},
    },
    "vision_config": {"model_type": "qwen2_vl_vision", "depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "patch_size": 14},
}  # fmt: skip
SAMPLER = (
    "import random\n\ndef sample(probs):\n    return [t for t in probs if random.random() <= probs[t]][-1:] and max(probs) or min(probs)\n"
)
TRAIN = ROOT / "tests" / "gencfg" / "trace" / "data" / "train.jsonl"
REPLAY = ("sample", "replay", "logits.npy", "--tokens", "tokens.json", "--claim", "claim.json")
TWO = ("--strategy", "trainer:adamw_torch,bf16", "--strategy", "deepspeed:zero2", "--seq-len", "1024")
PAGES: dict[str, tuple[str, ...]] = {
    "show": ("gencfg", "show", "qwen2-vl-tiny", "--config", "call.json", "--preset", "trl-ppo"),
    "diff": ("gencfg", "diff", "qwen2-vl-tiny", "--config", "call.json", "--right-preset", "trl-ppo"),
    "trace": ("gencfg", "trace", "--summary", str(TRAIN)),
    "gencfg-check": ("gencfg", "check", "."),
    "mask": ("mask", "inspect", "gemma2", "--lengths", "7,12"),
    "mask-packed": ("mask", "inspect", "qwen2-vl", "--packed", "5,7,4", "--cache", "dynamic"),
    "mask-map": ("mask", "inspect", "gemma2", "--shape", "1,32768"),
    "mask-test": ("mask", "test", "qwen2-vl-tiny", "--packed", "3,5", "--cache", "dynamic"),
    "mem": ("mem", "compare", "qwen2-vl", *TWO, "--gpu-memory", "48GiB"),
    "kvcache": ("mem", "kvcache", "gemma2", "--batch", "4", "--length", "6000", "--cache", "static:8192"),
    "replay": REPLAY,
    "step": (*REPLAY, "--step", "1"),
    "engines": ("sample", "engines", "--logits", "4,3,2.5,2,1,0,-1", "--temperature", "0.7", "--top-p", "0.9", "--top-k", "5"),
    "draw": ("sample", "draw", "--probs", ".4,.3,.2,.1", "--n", "500", "--sampler", "sampler:sample"),
    "check": ("check", "."),
    "look": ("look", "qwen2-vl-tiny"),
}


def main(folder: Path, names: list[str]) -> None:
    """Every page of PAGES, or those named."""
    inputs = folder / "inputs"
    make(inputs)
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(Path(profile))
        try:
            for name in names or PAGES:
                page = folder / f"{name}.html"
                command = [sys.executable, "-m", "llmdoctor", *PAGES[name], "--format", f"html:{page.resolve()}"]
                environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
                done = subprocess.run(command, cwd=inputs, env=environment, check=False, stderr=subprocess.PIPE, text=True)
                if done.returncode not in (0, 1):
                    raise SystemExit(f"{' '.join(PAGES[name])}: {done.stderr}")
                for width in (390, 1440):
                    for dark in (False, True):
                        browser.open(page, width, dark=dark)
                        browser.photograph(folder / f"{name}-{width}-{'dark' if dark else 'light'}.png")
                print(name, f"{page.stat().st_size:,} bytes", *(message["message"] for message in browser.console()))
        finally:
            browser.close()


def make(inputs: Path) -> None:
    """A tiny Qwen2-VL with its tokenizer, two configs of real sizes, a recorded generation with a wrong claim, a broken sampler."""
    from llmdoctor.demo.live.tiny_qwen2_vl import build

    inputs.mkdir(parents=True, exist_ok=True)
    if not (inputs / "qwen2-vl-tiny" / "config.json").exists():
        build(inputs / "qwen2-vl-tiny")
    for name, config in (("gemma2", GEMMA2), ("qwen2-vl", QWEN2_VL)):
        (inputs / name).mkdir(exist_ok=True)
        (inputs / name / "config.json").write_text(json.dumps(config, indent=2))
    (inputs / "call.json").write_text(json.dumps(CALL, indent=2) + "\n")
    (inputs / "sampler.py").write_text(SAMPLER)
    (inputs / "train.py").write_text("model.generation_config.eos_token_id = None\nmodel.generate(**inputs)\n")
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 2.5, (200, 500)).astype(np.float32)
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    tokens = [int(rng.choice(500, p=row)) for row in probs]
    np.save(inputs / "logits.npy", logits)
    (inputs / "tokens.json").write_text(json.dumps(tokens))
    (inputs / "claim.json").write_text(json.dumps({"engine": "transformers", "temperature": 1.0, "top_p": 0.9}))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])

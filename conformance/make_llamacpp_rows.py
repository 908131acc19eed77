"""Make rows of stop ids and sampling defaults by loading tiny GGUF files in the real llama.cpp, as packaged in xllamacpp.

    python3 -m venv /tmp/x && /tmp/x/bin/pip install xllamacpp==2026.10.11549 gguf
    /tmp/x/bin/python conformance/make_llamacpp_rows.py 11549 > rows.jsonl

The argument is llama.cpp's build number: xllamacpp puts it into its own version since 2026.4.8672. A row is {"version", "tokens": the special tokens of
the vocabulary, "metadata", "stops": texts of the end-of-generation tokens that llama.cpp logs, "settings": temperature, top_p, ... of a completion
request that sets nothing, as its server reports them ({} before 2026)}. Each file is loaded in a process of its own, because llama.cpp logs to stderr.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

PLAIN = [*"abcdefghijklm", "Ġ", "ab"]  # more than 12: up to 2025 llama.cpp needs the ids 0 to 11
OWN = "<|custom|>"
TEXTS = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>", "<|endoftext|>", "</s>"),
    *("<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>"),
    *("<｜end▁of▁sentence｜>", "[e~[", "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>"),
    *("<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>", "<|eos|>", "<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>", "<|user|>"),
    *("<|observation|>", "[|endofturn|]", "<|eos_token|>", "<|plamo:eos|>", "<|eot|>", "<|eom|>", "<|message|>", "<end>"),
)
TOGETHER = (
    ["<|return|>", "<|call|>", "<|end|>"],
    ["<|return|>", "<|end|>"],
    ["<|calls|>", "<|flush|>", "<|end|>"],
    ["</s>", "<|tool_response>"],
    ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"],
)
SAMPLING = {
    "general.sampling.temp": 0.5,
    "general.sampling.top_k": 7,
    "general.sampling.top_p": 0.75,
    "general.sampling.min_p": 0.25,
    "general.sampling.penalty_repeat": 1.25,
}
NAMES = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty", "ignore_eos")


def write(path: Path, tokens: list[str], metadata: dict[str, Any]) -> None:
    """Write a Llama of one layer whose vocabulary is PLAIN and the control tokens `tokens`."""
    import gguf
    import numpy as np

    texts = [*PLAIN, *tokens]
    writer = gguf.GGUFWriter(str(path), "llama")
    for name, value in (("context_length", 256), ("embedding_length", 32), ("block_count", 1), ("feed_forward_length", 64)):
        getattr(writer, f"add_{name}")(value)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(len(texts))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_types([1] * len(PLAIN) + [3] * len(tokens))
    writer.add_token_merges(["a b"])
    for key, value in metadata.items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    random = np.random.RandomState(0)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (len(texts), 32), "output": (len(texts), 32), "output_norm": (32,)}
    shapes |= {f"blk.0.attn_{name}": (32, 32) for name in ("q", "k", "v", "output")}
    shapes |= {
        "blk.0.attn_norm": (32,),
        "blk.0.ffn_norm": (32,),
        "blk.0.ffn_gate": (64, 32),
        "blk.0.ffn_up": (64, 32),
        "blk.0.ffn_down": (32, 64),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", (random.randn(*shape) * 0.1).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load(path: str) -> None:
    """Load a file in llama.cpp's server and print the settings of a request that sets nothing; the log goes to stderr."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup, params.verbosity = path, 256, False, 9
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    if hasattr(server, "listening_address"):  # since 2026
        request = urllib.request.Request(f"{server.listening_address}/completion", json.dumps({"prompt": "ab", "n_predict": 1}).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=20) as answer:
            print("SETTINGS", json.dumps(json.load(answer)["generation_settings"]), flush=True)
    time.sleep(0.3)  # a thread writes the log
    os._exit(0)  # the server of old releases does not end


def row(version: str, tokens: list[str], metadata: dict[str, Any]) -> dict[str, Any]:
    """Return what llama.cpp makes of one vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.gguf"
        write(path, tokens, metadata)
        run = subprocess.run(
            [sys.executable, __file__, "--load", str(path)], check=False, capture_output=True, text=True, errors="replace", timeout=120
        )
    if run.returncode:
        raise SystemExit(f"{tokens}: llama.cpp did not load the file: {run.stderr[-800:]}")
    stops = sorted(set(re.findall(r"EOG token\s+= \d+ '(.*)'", run.stderr)))
    settings_line = re.search(r"SETTINGS (.*)", run.stdout)
    found = json.loads(settings_line[1]) if settings_line else {}
    settings = {name: round(found[name], 4) if isinstance(found[name], float) else found[name] for name in NAMES if name in found}
    return {"version": version, "tokens": tokens, "metadata": metadata, "stops": stops, "settings": settings}


def main() -> None:
    """Print the rows of the llama.cpp that is installed."""
    if sys.argv[1] == "--load":
        load(sys.argv[2])
        return
    eos = {"tokenizer.ggml.eos_token_id": len(PLAIN)}
    for tokens in [[OWN], *[[OWN, text] for text in TEXTS], *[[OWN, *texts] for texts in TOGETHER]]:
        print(json.dumps(row(sys.argv[1], tokens, eos), ensure_ascii=False), flush=True)
    print(json.dumps(row(sys.argv[1], [OWN], {**eos, **SAMPLING})))
    for key in ("eot", "eom"):
        print(json.dumps(row(sys.argv[1], [OWN, "<other>"], {**eos, f"tokenizer.ggml.{key}_token_id": len(PLAIN) + 1})))


if __name__ == "__main__":
    main()

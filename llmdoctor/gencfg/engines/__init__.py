"""Serving engines as data: `types` defines an entry, and each module that is listed here describes one engine in its ENGINE."""

from __future__ import annotations

# The names that --engine takes, in the order of the screens, and the modules of their entries. Reading the list imports none of them.
MODULES = {
    "transformers": "transformers",
    "vllm": "vllm",
    "sglang": "sglang",
    "tgi": "tgi",
    "tensorrt-llm": "tensorrt_llm",
    "llama.cpp": "llamacpp",
    "ollama": "ollama",
    "mlx": "mlx",
}

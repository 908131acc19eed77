"""`llmdoctor env`: what to paste into a bug report. Versions come from installed metadata, no package is imported."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from llmdoctor import __version__
from llmdoctor.core.document import Headline, Note, Table
from llmdoctor.core.report import Report

PACKAGES = [
    "torch",
    "transformers",
    "accelerate",
    "trl",
    "peft",
    "deepspeed",
    "vllm",
    "sglang",
    "qwen-vl-utils",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
    "numpy",
    "scipy",
    "jinja2",
    "typer",
    "rich",
    "nvidia-ml-py",
    "bitsandbytes",
    "flash-attn",
]
VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_VERBOSITY", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF")


def report() -> Report:
    """The versions, the machine and the variables that matter, as one report."""
    packages = _versions()
    result: dict[str, Any] = {
        "llmdoctor": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_bytes": _memory(),
        "gpus": gpus(),
        "packages": packages,
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
    rows = [("llmdoctor", __version__), ("python", f"{result['python']}  {sys.executable}"), ("platform", result["platform"])]
    memory = "" if result["memory_bytes"] is None else f", {result['memory_bytes'] / 2**30:.0f} GiB"
    rows.append(("machine", f"{result['cpus']} CPUs{memory}"))
    rows.append(("gpu", ", ".join(result["gpus"]) or "none seen"))
    rows += [(name, version or "not installed") for name, version in packages.items()]
    rows += list(result["environment"].items())
    document = (Headline("Paste this into a bug report"), Table(("", ""), tuple(rows)), Note("NEXT", "llmdoctor --help", "dim"))
    return Report("env", subject={}, result=result, document=document)


def _versions() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def gpus() -> list[str]:
    """The names the NVIDIA driver gives in /proc; no library is loaded for it."""
    names = []
    for info in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("Model:"):
                names.append(line.split(":", 1)[1].strip())
    return names

"""`llmdoctor env`: what to paste into a bug report. Versions come from the installed metadata; no package is imported."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

from llmdoctor.core.document import Block, Note, Table
from llmdoctor.core.report import Report, Verdict
from llmdoctor.look.results import EnvResult
from llmdoctor.version import __version__

PACKAGES = (
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
)
VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_VERBOSITY", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF")


def env_report() -> Report:
    """Return the versions, the machine and the environment variables that matter for a bug report."""
    result: EnvResult = {
        "llmdoctor": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_bytes": _memory(),
        "gpus": gpus(),
        "packages": versions_of(PACKAGES),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
    verdict = Verdict(f"llmdoctor {__version__}, Python {result['python']}. Paste this screen into a bug report.")
    return Report("env", subject={}, result=result, verdict=verdict, document=_document(result))


def _document(result: EnvResult) -> tuple[Block, ...]:
    memory = "" if result["memory_bytes"] is None else f", {result['memory_bytes'] / 2**30:.0f} GiB"
    rows = [("llmdoctor", result["llmdoctor"]), ("python", f"{result['python']}  {result['executable']}"), ("platform", result["platform"])]
    rows.append(("machine", f"{result['cpus']} CPUs{memory}"))
    rows.append(("gpu", ", ".join(result["gpus"]) or "none found"))
    rows += [(name, version or "not installed") for name, version in result["packages"].items()]
    rows += list(result["environment"].items())
    return (Table(("", ""), tuple(rows)), Note("Next", "llmdoctor --help lists all commands", "dim"))


def versions_of(packages: Iterable[str]) -> dict[str, str | None]:
    """Return the installed version of each distribution, None for one that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {}
    for name in packages:
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
    """Return the names of the GPUs as the NVIDIA driver lists them in /proc; no library is loaded."""
    names = []
    for info in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("Model:"):
                names.append(line.split(":", 1)[1].strip())
    return names

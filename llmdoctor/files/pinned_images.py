"""What a Dockerfile or a compose file pins: images that hold a library, and what "pip install" names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

from llmdoctor.core.requirement import Requirement, parse_requirement

_IMAGES = {  # the image, and the distribution whose version its tag starts with
    "vllm/vllm-openai": "vllm",
    "vllm/vllm-openai-rocm": "vllm",
    "lmsysorg/sglang": "sglang",
    "huggingface/text-generation-inference": "text-generation-inference",
    "ollama/ollama": "ollama",
    "huggingface/transformers-pytorch-gpu": "transformers",
    "huggingface/transformers-all-latest-gpu": "transformers",
    "ggml-org/llama.cpp": "llama.cpp",
    "ggerganov/llama.cpp": "llama.cpp",
    "tensorrt-llm/release": "tensorrt-llm",
}
_LONGEST = 128  # characters of the value of an ARG or ENV
_INSTALL = re.compile(r"\b(?:pip3?|uv pip|uv|poetry|conda|mamba|micromamba)\s+(?:install|add)\s+([^&|;]*)")


def dockerfile(text: str) -> Iterator[tuple[Requirement, int]]:
    """FROM lines of images that hold a library, and what "pip install" names; ARG and ENV defaults are filled in."""
    arguments: dict[str, str] = {}
    for number, line in _continued(text):
        word, _, rest = line.strip().partition(" ")
        rest = _filled(rest, arguments)
        if word.upper() in ("ARG", "ENV"):
            for name, value in re.findall(r"(\w+)[= ]\s*[\"']?([^\s\"']+)", rest):
                if len(value) <= _LONGEST:  # each value may hold others, and so double the one before
                    arguments[name] = value
        elif word.upper() == "FROM":
            yield from ((found, number) for found in _image(rest))
        elif word.upper() == "RUN":
            yield from ((found, number) for found in _installed(rest))


def compose_file(text: str) -> Iterator[tuple[Requirement, int]]:
    for number, line in enumerate(text.splitlines(), 1):
        found = re.match(r"\s*image:\s*[\"']?([^\s\"'#]+)", line)
        yield from ((each, number) for each in (_image(found[1]) if found else ()))


def _continued(text: str) -> Iterator[tuple[int, str]]:
    parts: list[str] = []
    start = 1
    for number, line in enumerate(text.splitlines(), 1):
        start = start if parts else number
        if line.lstrip().startswith("#"):
            continue
        parts.append(line.rstrip().removesuffix("\\"))
        if not line.rstrip().endswith("\\"):
            yield start, " ".join(parts)
            parts = []
    if parts:
        yield start, " ".join(parts)


def _filled(text: str, arguments: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}|\$(\w+)", lambda found: arguments.get(found[1] or found[3], found[2] or found[0]), text)


def _image(text: str) -> Iterator[Requirement]:
    words = [word for word in text.split() if not word.startswith("--")]
    image, _, tag = (words[0] if words else "").partition("@")[0].rpartition(":")
    name = next((library for path, library in _IMAGES.items() if image == path or image.endswith(f"/{path}")), None)
    if name is None:
        return
    found = re.search(r"(?:^|-)(b\d{3,6})$" if name == "llama.cpp" else r"^v?(\d+\.\d+[\w.]*)", tag)
    if found is not None:
        yield Requirement(name, (("==", found[1]),), f"{image}:{tag}")


def _installed(text: str) -> Iterator[Requirement]:
    for command in _INSTALL.findall(text):
        try:
            words = shlex.split(command)
        except ValueError:
            continue
        for word in words:
            requirement = None if word.startswith("-") else parse_requirement(word)
            if requirement is not None and requirement.clauses:
                yield requirement

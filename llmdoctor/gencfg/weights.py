"""Tensors of a checkpoint, from the headers of its safetensors files; no weight is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a checkpoint: its name, shape and dtype, the file that holds it, and where its bytes begin and end there."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    path: str
    begin: int
    end: int


def stored_tensors(folder: str, wanted: Callable[[str], bool]) -> dict[str, StoredTensor]:
    """Return the tensors in the safetensors files of `folder` whose name is `wanted`, by name. A file with a broken header is left out."""
    found: dict[str, StoredTensor] = {}
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    except OSError:
        return found
    if not names:
        return found
    from llmdoctor.files.safetensors import read_header

    for name in names:
        path = os.path.join(folder, name)
        header, problems = read_header(path, folder)
        if problems:
            continue
        with open(path, "rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
        for tensor in header.values():
            if wanted(tensor.name):
                found[tensor.name] = StoredTensor(
                    name=tensor.name, shape=tensor.shape, dtype=tensor.dtype, path=path, begin=start + tensor.begin, end=start + tensor.end
                )
    return found


def adapter_rows(folder: str) -> int | None:
    """Return the rows of an embedding that is stored with an adapter; None if it stores none."""
    found = stored_tensors(folder, lambda name: ("embed_tokens" in name or ".wte." in name) and "lora_" not in name)
    return max((tensor.shape[0] for tensor in found.values() if len(tensor.shape) == 2), default=None)

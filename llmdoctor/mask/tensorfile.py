"""Tensors in a file of the user: safetensors, npy, npz or JSON; never a pickle.

The file is not trusted: its header is checked before an array is allocated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.arrays import read_arrays
from llmdoctor.files.opening import shown_path

LIMIT = 512 * 2**20
SCALARS = ("max_length_q", "max_length_k")
# Fields that must hold numbers: anything else under these names is refused, not listed.
NUMBERS = (
    "attention_mask", "mask", "input_ids", "position_ids", "token_type_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "labels",
    "decoder_input_ids", "decoder_attention_mask", "inputs_embeds", "cu_seq_lens_q", "cu_seq_lens_k", *SCALARS,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TensorFile:
    """The content of a tensor file: `tensors` by name ("" for the only one of a file without names), `others` are the fields that hold no numbers.

    `brain` names the tensors that are bfloat16 in the file and float32 here.
    """

    tensors: dict[str, NDArray[Any]]
    others: dict[str, str] = field(default_factory=dict)
    brain: frozenset[str] = frozenset()


def read_tensors(path: str) -> TensorFile:
    """Return the tensors of a safetensors, npy, npz or JSON file.

    Raises QuestionError if the file is missing, a pickle, of another format, cut short, or larger than 512 MiB.
    """
    file = read_arrays(path)
    if file.format == "json":
        return _from_json(file.value, shown_path(path))
    if file.unread:
        name, dtype = next(iter(file.unread.items()))
        raise QuestionError(f"{shown_path(path)}: tensor {name!r} is {dtype}, which numpy has no type for")
    if sum(array.nbytes for array in file.arrays.values()) > LIMIT:
        raise QuestionError(f"{shown_path(path)}: holds more than {LIMIT} bytes of numbers")
    return TensorFile({name: np.array(file.floats(name)) for name in file.arrays}, brain=file.brain)


def _from_json(value: Any, shown: str) -> TensorFile:
    if not isinstance(value, dict):
        return TensorFile({"": _array(value, shown, "")})
    tensors: dict[str, NDArray[Any]] = {}
    others: dict[str, str] = {}
    for name, item in value.items():
        if name in NUMBERS or _numeric(item):
            tensors[name] = _array(item, shown, name)
        else:
            others[name] = "null" if item is None else f"{type(item).__name__}, not numbers"
    return TensorFile(tensors, others)


def _numeric(value: Any) -> bool:
    """Return whether `value` is a number, or a list whose first element is one, at any depth."""
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, bool | int | float)


def _array(value: Any, shown: str, name: str) -> NDArray[Any]:
    """Return a number or a nested list of numbers as an array. Raises QuestionError for a ragged or mixed list."""
    what = f"{shown}: {name}" if name else shown
    try:
        found = np.asarray(value)
        with np.errstate(over="ignore"):
            found = found.astype(np.float32) if found.dtype == np.float64 else found  # as torch.tensor() reads a list of floats
    except ValueError:
        raise QuestionError(f"{what}: rows of different lengths, expected a rectangle of numbers") from None
    if found.dtype.kind not in "biuf" or (found.ndim == 0 and name not in SCALARS):
        raise QuestionError(f"{what}: expected a list of lists of numbers, found {json.dumps(value)[:40]}")
    return found

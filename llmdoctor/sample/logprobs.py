"""Log-probabilities of drawn tokens as trainers and engines save them: JSON, JSON lines, npy, npz, safetensors, parquet, responses.

Names of verl, TRL, OpenRLHF, slime and NeMo-RL are known, with their masks. Values that are no log-probability are counted, not fatal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.arrays import PICKLES, REFUSED_PICKLE, read_arrays, read_npy
from llmdoctor.files.parquet import read_columns
from llmdoctor.requests.logprob_files import looks_like_responses, read_responses
from llmdoctor.sample.columns import MASKS, NAMES, Role
from llmdoctor.sample.tokens import read_values
from llmdoctor.sample.types import Doubles, Flags

_WRAPPERS = ("rollout_data", "samples", "batch", "data")
_HIGHEST, _LOWEST = 0.1, -9998.0  # above: no log-probability; at or below: an engine's way to write -inf


@dataclass(frozen=True, slots=True)
class Side:
    """One side's log-probabilities, sequence by sequence, and the mask of the tokens that count (None: all).

    A value that is missing or no log-probability is NaN; `invalid` counts those by kind. `masked_by` are the names of the masks, `unread` the other
    columns of the file.
    """

    path: str
    name: str
    sequences: tuple[Doubles, ...]
    masks: tuple[Flags, ...] | None = None
    invalid: dict[str, int] = field(default_factory=dict)
    masked_by: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    def flat(self) -> Doubles:
        """Return the log-probabilities of all sequences, one after another."""
        return np.concatenate(self.sequences)


def read_side(path: str, role: Role = "trainer") -> Side:
    """Return one side. Raises QuestionError, MissingExtra."""
    name, values, columns = _read(path, role)
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        raise QuestionError(f"{path}: {name or 'the array'} holds {values.dtype}: log-probabilities are no whole numbers")
    try:
        rows = _rows(values, path)
    except (RecursionError, OverflowError):
        raise QuestionError(f"{path}: nested too deeply, or a number too large: expected lists of log-probabilities") from None
    invalid: dict[str, int] = {}
    checked = tuple(_checked(row, invalid) for row in rows)
    if not any(len(row) for row in checked):
        raise QuestionError(f"{path}: no log-probabilities in it")
    named = [one for one in MASKS if one in columns]
    unread = sorted(one for one in map(str, columns) if one not in (name, *named))
    return Side(
        path,
        name,
        checked,
        _mask({one: columns[one] for one in named}, checked, path),
        invalid,
        masked_by=tuple(named),
        unread=tuple(unread),
    )


def _read(path: str, role: Role) -> tuple[str, Any, Mapping[str, Any]]:
    """The name of the values, the values, and all columns of a file."""
    if path.endswith(PICKLES):
        raise QuestionError(f"{path}: {REFUSED_PICKLE}")
    if path.endswith(".npy"):
        return "", read_npy(path), {}
    if path.endswith((".npz", ".safetensors")):
        file = read_arrays(path)
        return _chosen({name: file.floats(name) for name in file.arrays}, path, role)
    if path.endswith(".parquet"):
        return _chosen(read_columns(path, "sample compare"), path, role)
    value = _unwrapped(read_values(path, "log-probabilities"))
    if _is_response(value) and looks_like_responses(path):
        found = read_responses(path)
        return "logprobs", [[step.logprob for step in group.steps] for group in found.groups()], {}
    if isinstance(value, dict):
        return _chosen(value, path, role)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        names = set().union(*(item.keys() for item in value))
        columns = {name: [item.get(name, []) for item in value] for name in names}
        return _chosen(columns, path, role)
    return "", value, {}


def _unwrapped(value: Any) -> Any:
    """What an object holds that wraps the dump: slime writes {"rollout_id", "rollout_data": {...}} and {"samples": [...]}."""
    known = {name for names in NAMES.values() for name in names}
    while isinstance(value, dict) and not known & value.keys():
        inner = next((value[name] for name in _WRAPPERS if isinstance(value.get(name), dict | list)), None)
        if inner is None:
            break
        value = inner
    return value


def _is_response(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    keys = ("choices", "meta_info", "completion_probabilities", "details", "outputs", "response")
    return isinstance(first, dict) and any(isinstance(first.get(key), list | dict) for key in keys)


def _chosen(columns: Mapping[str, Any], path: str, role: Role) -> tuple[str, Any, Mapping[str, Any]]:
    other: Role = "engine" if role == "trainer" else "trainer"
    name = next((name for name in (*NAMES[role], *NAMES[other]) if name in columns), None)
    if name is None:
        raise QuestionError(f"{path}: no log-probabilities in it: found {', '.join(sorted(map(str, columns))[:6]) or 'nothing'}")
    return name, columns[name], columns


def _rows(value: Any, path: str) -> list[list[Any] | np.ndarray]:
    """The sequences: an array [T] or [B, T], a list of numbers, a list of such lists, or of objects that hold one."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiu" or value.ndim not in (1, 2):
            raise QuestionError(
                f"{path}: holds {value.dtype} of {value.ndim} dimensions, expected log-probabilities [tokens] or [sequences, tokens]"
            )
        return [value] if value.ndim == 1 else list(value)
    if not isinstance(value, list):
        raise QuestionError(f"{path}: {str(value)[:40]!r} is not a list of log-probabilities")
    if any(isinstance(item, list) for item in value):
        return [_flattened(item, path) for item in value]
    return [_flattened(value, path)]


def _flattened(value: Any, path: str) -> list[Any]:
    if isinstance(value, list):
        return [number for item in value for number in (_flattened(item, path) if isinstance(item, list) else [_number(item, path)])]
    return [_number(value, path)]


def _number(value: Any, path: str) -> float:
    if isinstance(value, dict) and "logprob" in value:
        value = value["logprob"]
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise QuestionError(f"{path}: {str(value)[:40]!r} is not a log-probability")
    return float(max(-1e300, min(1e300, value)))


def _checked(row: Sequence[Any] | np.ndarray, invalid: dict[str, int]) -> Doubles:
    """The row with NaN for invalid values, which are counted in `invalid`."""
    values: Doubles = np.array(row, np.float64)
    kinds = {
        "missing or NaN": np.isnan(values),
        "-inf": values <= _LOWEST,
        f"above {_HIGHEST}": values > _HIGHEST,
        "slightly above 0 (kept)": (values > 1e-3) & (values <= _HIGHEST),
    }
    for kind, mask in kinds.items():
        if count := int(np.count_nonzero(mask)):
            invalid[kind] = invalid.get(kind, 0) + count
    values[(values <= _LOWEST) | (values > _HIGHEST)] = np.nan
    return values


def _mask(masks: Mapping[str, Any], rows: Sequence[Doubles], path: str) -> tuple[Flags, ...] | None:
    """The tokens that every mask of a file keeps; None without a mask. An attention_mask of another length is not one of these tokens."""
    kept: list[Flags] | None = None
    for name, mask in masks.items():
        found = [np.asarray(row, float) > 0 for row in _rows(_numeric(mask), path)]
        lengths = [len(row) for row in rows], [len(row) for row in found]
        if lengths[0] != lengths[1]:
            if name == "attention_mask":
                continue
            longer = len(found) == len(rows) and all(mine + 1 == theirs for mine, theirs in zip(*lengths, strict=True))
            hint = "; it is longer by one in each sequence, as labels are before the shift: drop its first column" if longer else ""
            raise QuestionError(f"{path}: the lengths of {name} are not those of the log-probabilities: expected one value per token{hint}")
        kept = found if kept is None else [one & other for one, other in zip(kept, found, strict=True)]
    return None if kept is None else tuple(kept)


def _numeric(mask: Any) -> Any:
    """A mask with numbers for its truth values."""
    if isinstance(mask, np.ndarray):
        return mask.astype(np.int8) if mask.dtype.kind == "b" else mask
    if isinstance(mask, list):
        return [_numeric(item) for item in mask]
    return int(mask) if isinstance(mask, bool) else mask

"""What a binary file is: tensors by their names and shapes, pickles by the class that they hold. Nothing in a pickle is run."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

from llmdoctor.configs.linked import LinkedFiles
from llmdoctor.core.text import shown
from llmdoctor.files.opening import read_bytes
from llmdoctor.files.pickles import PICKLE_LIMIT, PickledObject, parse_pickle
from llmdoctor.files.project import ProjectSettings
from llmdoctor.look.paths import model_near, quoted
from llmdoctor.look.types import Recognised, Suggestion
from llmdoctor.mem.config_rules.trainer import check_pickled
from llmdoctor.sample.columns import LOGPROBS, holds_both_sides

_TENSORS = {".npy", ".npz", ".safetensors"}
_NAMES = 64  # members of an npz file that are looked at


def recognise_binary(path: str, head: bytes) -> Recognised | None:
    """Return what a file of tensors or a pickle is, by its first bytes; None for any other file."""
    ending = os.path.splitext(path)[1].lower()
    if head.startswith(b"\x93NUMPY") or (ending in _TENSORS and (head.startswith(b"PK") or _header(head) is not None)):
        return _tensors(path, head)
    if head.startswith((b"PK\x03\x04", b"\x80")) or os.path.basename(path) == "training_args.bin":  # an old pickle is text
        return _pickle(path, head)
    return None


def _tensors(path: str, head: bytes) -> Recognised:
    """Return whether tensors are logits, a mask, inputs, or weights, by their names."""
    header = _header(head)
    names = {} if header is None else {name: entry for name, entry in header.items() if isinstance(entry, dict) and name != "__metadata__"}
    rows = tuple((name, f"{entry.get('dtype')} {entry.get('shape')}") for name, entry in list(names.items())[:4])
    if len(names) > 8 or any(name.endswith((".weight", ".bias")) for name in names):
        model = model_near(path)
        return Recognised(
            "weights",
            "a file of model weights",
            (*rows, ("tensors", f"{len(names):,}")),
            (Suggestion(f"llmdoctor look {model}", "the model directory of the weights"),),
        )
    shape, arrays = _npy_shape(head), tuple(names) or _members(head)
    rows = rows or ((("arrays", ", ".join(arrays)[:76]),) if arrays else (("array", shape),) if shape else ())
    if holds_both_sides(arrays):
        return logprobs_of_both(path, rows)
    if not LOGPROBS.isdisjoint(arrays):
        compare = Suggestion(
            f"llmdoctor sample compare {quoted(path)} ENGINE", "whether an engine's of the same tokens agree: ENGINE is its file"
        )
        return Recognised("logprobs", "log-probabilities of drawn tokens", rows, (compare,))
    file, model = quoted(path), model_near(path)
    suggestions: tuple[Suggestion, ...] = (
        Suggestion(
            f"llmdoctor sample engines --logits {file} --temperature 0.7 --top-p 0.9",
            "each engine's distribution, if these are logits",
        ),
        Suggestion(
            f"llmdoctor sample replay {file} --temperature 0.7 --top-p 0.9",
            "whether tokens were sampled so, if these are logits",
        ),
        Suggestion(f"llmdoctor mask inspect {model} --mask {file}", "what each layer receives, if this is a mask"),
    )
    if {"input_ids", "attention_mask"} & names.keys():
        inputs = Suggestion(f"llmdoctor mask inspect {model} --input-ids {file}", "what each layer receives for these inputs")
        suggestions = (inputs, suggestions[2], suggestions[0])
    return Recognised("tensors", "a file of tensors: logits, a mask or inputs", rows, suggestions)


def logprobs_of_both(path: str, rows: tuple[tuple[str, str], ...], more: tuple[Suggestion, ...] = ()) -> Recognised:
    """Return a dump that holds both sides of `sample compare`; `more` are further commands that read it."""
    compare = Suggestion(f"llmdoctor sample compare {quoted(path)}", "whether the two sides agree, and if not, why")
    return Recognised("logprobs", "log-probabilities of the same tokens from a trainer and an engine", rows, (compare, *more))


def _members(head: bytes) -> tuple[str, ...]:
    """Return the names of the arrays of an npz file whose local headers are in the first bytes; numpy.savez adds .npy to each."""
    names: list[str] = []
    at = head.find(b"PK\x03\x04")
    while at >= 0 and len(names) < _NAMES and len(head) >= at + 30:
        (length,) = struct.unpack_from("<H", head, at + 26)
        name = head[at + 30 : at + 30 + length].decode("utf-8", "replace")
        names += [name.removesuffix(".npy")] if name.endswith(".npy") else []
        at = head.find(b"PK\x03\x04", at + 30 + length)
    return tuple(names)


def _pickle(path: str, head: bytes) -> Recognised:
    file = quoted(path)
    if b"device_traces" in head or b"segments" in head or path.endswith(".pickle"):
        suggestions: tuple[Suggestion, ...] = (
            Suggestion(f"llmdoctor mem measure --snapshot {file}", "memory by component and source line"),
        )
        return Recognised("snapshot", "a pickle, most likely a memory snapshot of torch (nothing in it was run)", (), suggestions)
    data = read_bytes(path, PICKLE_LIMIT)
    try:
        value = parse_pickle(data) if isinstance(data, bytes) else None
    except ValueError as error:
        return Recognised(
            "pickle", "a pickle or zip archive that llmdoctor does not read, because loading it can run code", (("reason", str(error)),)
        )
    name = value.name if isinstance(value, PickledObject) else type(value).__name__
    if check_pickled(value, path, path, LinkedFiles(ProjectSettings())) is None:
        return Recognised("pickle", "a pickle (nothing in it was run)", (("class", shown(name)),))
    suggestions = (
        Suggestion(f"llmdoctor check {file}", "settings that contradict each other"),
        Suggestion(f"llmdoctor look {quoted(os.path.dirname(path) or '.')}", "the checkpoint of this file"),
    )
    return Recognised(
        "training-arguments",
        "a pickle of TrainingArguments, as the Trainer saves them (nothing in it was run)",
        (("class", shown(name)),),
        suggestions,
    )


def _header(head: bytes) -> dict[str, Any] | None:
    """Return the safetensors header in the first bytes; a placeholder if it is longer than they are, None if it is not one."""
    if len(head) < 9 or head[8:9] != b"{":
        return None
    (length,) = struct.unpack("<Q", head[:8])
    if length > len(head) - 8:
        return {"...": {}} if length < 2**30 else None
    try:
        header = json.loads(head[8 : 8 + length])
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None


def _npy_shape(head: bytes) -> str:
    start = head.find(b"{", 0, 128) if head.startswith(b"\x93NUMPY") else -1
    return "" if start < 0 else shown(head[start : head.find(b"}", start) + 1].decode("latin-1"), 76)

"""What a file that is no text is: tensors by their names and shapes, pickles by what they hold. Nothing in a pickle is run."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

from llmdoctor.configs.linked import Neighbours
from llmdoctor.core.settings import Settings
from llmdoctor.core.text import shown
from llmdoctor.files.opening import read_bytes
from llmdoctor.files.pickles import PICKLE_LIMIT, Record, parse_pickle
from llmdoctor.look.report import Seen, Try, model_near, quoted
from llmdoctor.mem.config_rules.trainer import check_pickled

_TENSORS = {".npy", ".npz", ".safetensors"}


def see_binary(path: str, head: bytes) -> Seen | None:
    """Tensors or a pickle, by the file's first bytes; None where it is neither."""
    ending = os.path.splitext(path)[1].lower()
    if head.startswith(b"\x93NUMPY") or (ending in _TENSORS and (head.startswith(b"PK") or _header(head) is not None)):
        return _tensors(path, head)
    if head.startswith((b"PK\x03\x04", b"\x80")) or os.path.basename(path) == "training_args.bin":  # an old pickle is text
        return _pickle(path, head)
    return None


def _tensors(path: str, head: bytes) -> Seen:
    """Logits, a mask, inputs, or a model's weights, by name and shape."""
    header = _header(head)
    names = {} if header is None else {name: entry for name, entry in header.items() if isinstance(entry, dict) and name != "__metadata__"}
    rows = tuple((name, f"{entry.get('dtype')} {entry.get('shape')}") for name, entry in list(names.items())[:4])
    if len(names) > 8 or any(name.endswith((".weight", ".bias")) for name in names):
        model = model_near(path)
        return Seen(
            "weights",
            "WEIGHTS OF A MODEL",
            (*rows, ("tensors", f"{len(names):,}")),
            (Try(f"llmdoctor look {model}", "the model they belong to"),),
        )
    shape = _npy_shape(head)
    rows = rows or ((("array", shape),) if shape else ())
    file, model = quoted(path), model_near(path)
    tries: tuple[Try, ...] = (
        Try(f"llmdoctor sample engines --logits {file} --temperature 0.7 --top-p 0.9", "logits: what each engine makes of them"),
        Try(f"llmdoctor sample replay {file} --temperature 0.7 --top-p 0.9", "logits with tokens: were they sampled so?"),
        Try(f"llmdoctor mask inspect {model} --mask {file}", "a mask: what each layer gets of it"),
    )
    if {"input_ids", "attention_mask"} & names.keys():
        tries = (Try(f"llmdoctor mask inspect {model} --input-ids {file}", "what each layer gets of these inputs"), *tries[2:], tries[0])
    return Seen("tensors", "TENSORS: logits, a mask or inputs", rows, tries)


def _pickle(path: str, head: bytes) -> Seen:
    file = quoted(path)
    if b"device_traces" in head or b"segments" in head or path.endswith(".pickle"):
        tries: tuple[Try, ...] = (Try(f"llmdoctor mem measure --snapshot {file}", "what held the memory, by component and line"),)
        return Seen("snapshot", "A PICKLE, most likely a torch memory snapshot (nothing in it is run)", (), tries)
    data = read_bytes(path, PICKLE_LIMIT)
    try:
        value = parse_pickle(data) if isinstance(data, bytes) else None
    except ValueError as error:
        return Seen("pickle", "A PICKLE OR A ZIP ARCHIVE that is not read: loading one runs what is in it", (("why", str(error)),))
    name = value.name if isinstance(value, Record) else type(value).__name__
    if check_pickled(value, path, path, Neighbours(Settings())) is None:
        return Seen("pickle", "A PICKLE (nothing in it was run)", (("holds", shown(name)),))
    tries = (
        Try(f"llmdoctor check {file}", "settings that contradict each other"),
        Try(f"llmdoctor look {quoted(os.path.dirname(path) or '.')}", "the checkpoint it belongs to"),
    )
    return Seen(
        "training-arguments",
        "TRAININGARGUMENTS, as the Trainer saves them (nothing in the pickle was run)",
        (("holds", shown(name)),),
        tries,
    )


def _header(head: bytes) -> dict[str, Any] | None:
    """A safetensors header that lies in the head; None where it is none, an empty one where it is longer."""
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

"""The DIR rules about files: what can be wrong with a file, whatever the question."""

from __future__ import annotations

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule, declared

UNREADABLE = Rule(
    code="DIR001",
    name="unreadable-file",
    severity=Severity.ERROR,
    summary="A file of the model cannot be read as the format that it should have.",
    reason="The file is empty, cut short or binary, is UTF-16, starts with a byte order mark, or its JSON ends too early or goes on too long. from_pretrained() raises "
    "on it, or an engine silently uses defaults. The line and the JSON pointer are those of the first place where the text is wrong.",
    bad='{"eos_token_id": 151645,',
    good='{"eos_token_id": 151645}',
    fix="Write the file again, or download it again.",
)
DUPLICATE_KEY = Rule(
    code="DIR002",
    fixable=True,
    name="duplicate-key",
    severity=Severity.WARNING,
    summary="A JSON object has the same key twice.",
    reason="Python's json takes the last value, other readers take the first or refuse the file: transformers and an engine in another language then read two different configs.",
    bad='{"eos_token_id": 2, "eos_token_id": 32000}',
    good='{"eos_token_id": [2, 32000]}',
    fix="Keep one of the two.",
)
NOT_A_NUMBER = Rule(
    code="DIR003",
    name="not-a-number",
    severity=Severity.WARNING,
    summary="A JSON file holds NaN, Infinity, or a number that overflows to infinity.",
    reason="Python's json reads and writes these values, but the JSON standard does not have them: Rust and C++ loaders refuse the whole file.",
    bad='{"repetition_penalty": NaN}',
    good='{"repetition_penalty": 1.0}',
    fix="Write a number, or null.",
)
OUTSIDE = Rule(
    code="DIR004",
    name="leaves-the-directory",
    severity=Severity.ERROR,
    summary="A file is a link out of the model's directory, or is not a regular file.",
    reason="Reading it would read a file that does not belong to the model, or would wait forever on a FIFO. Links inside the directory are fine, and so are links from a "
    "hub snapshot into the blobs of the same repository.",
    bad="config.json -> /etc/passwd",
    good="config.json -> ../../blobs/4f1c...",
    fix="Copy the file into the directory.",
)
BEYOND_LIMITS = Rule(
    code="DIR005",
    name="beyond-limits",
    severity=Severity.ERROR,
    summary="A file is larger, is nested deeper or has longer numbers than the files of any known model.",
    reason="A config of a gigabyte, a thousand levels of nesting or a number of ten thousand digits is a mistake or an attack: readers without limits run out of memory or crash.",
    bad="[[[[[[ ... ]]]]]]   1,000 levels",
    good="at most 100 levels, 16 MiB per config file, 256 MiB for tokenizer.json, 300 digits",
    fix="Find the program that wrote the file, and write the file again.",
)
SAFETENSORS_HEADER = Rule(
    code="DIR006",
    name="safetensors-header",
    severity=Severity.ERROR,
    summary="The header of a safetensors file does not describe the file.",
    reason="A wrong length, offsets outside the file, tensors that overlap, holes, an unknown dtype or a size that does not match its shape: the file was cut short or "
    "was put together wrongly. Loading it raises, or succeeds with wrong weights.",
    bad="a header that announces 5,000 bytes in a file of 900 bytes",
    good="the header, then every tensor once, one after the other, up to the last byte",
    fix="Download the file again, or save it again.",
)
SHARD_INDEX = Rule(
    code="DIR007",
    name="shard-index",
    severity=Severity.ERROR,
    summary="model.safetensors.index.json names shards that are missing, are outside the directory, or do not hold the tensors that it lists.",
    reason="from_pretrained() stops at the missing shard after minutes of loading, or reads a file elsewhere on the machine.",
    bad='{"weight_map": {"lm_head.weight": "../other/model.safetensors"}}',
    good='{"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}',
    fix="Download the missing shards, or save the model again.",
)
LONE_SURROGATE = Rule(
    code="DIR012",
    name="lone-surrogate",
    severity=Severity.WARNING,
    summary="A JSON text holds half of a surrogate pair.",
    reason="Python reads it, but it cannot be encoded as UTF-8 again: printing or saving it raises, and Rust tokenizers refuse the file.",
    bad='{"eos_token": "\\ud83d"}',
    good='{"eos_token": "\\ud83d\\ude00"}',
    fix="Write the whole character.",
)
LFS_POINTER = Rule(
    code="DIR013",
    name="lfs-pointer",
    severity=Severity.ERROR,
    summary="A file is a git-lfs pointer, not the file itself.",
    reason="The repository was cloned without git-lfs: loading fails with a message about JSON or about a header that does not name the reason.",
    bad="version https://git-lfs.github.com/spec/v1",
    good="the file itself",
    fix="git lfs pull",
)
RULES = declared(globals())

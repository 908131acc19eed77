"""What a command line asks of `llmdoctor mem`: one keyword-only dataclass per command, whose fields have the names of the options."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MemOptions:
    """What the commands about training memory have in common; None or an empty tuple for an option that was not given.

    `model` is a directory or a hub id in the local cache, `strategy` holds names or files, `image` is WIDTHxHEIGHT in pixels, `lengths` and
    `packed` are numbers of tokens separated by commas: of the sequences of a padded batch, of the documents in each sequence. `trainable`
    holds patterns of parameter names, `lora` is a rank, `without` holds keys that the configuration files are read without.
    `deepspeed` is the release of DeepSpeed to answer for.
    """

    model: str
    strategy: tuple[str, ...] = ()
    batch: int | None = None
    seq_len: int | None = None
    image: str | None = None
    lengths: str | None = None
    packed: str | None = None
    attn: str | None = None
    world_size: int | None = None
    rank: int = 0
    trainable: tuple[str, ...] = ()
    stage: str | None = None
    lora: int | None = None
    gradient_checkpointing: bool = False
    without: tuple[str, ...] = ()
    static: bool = False
    deepspeed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemCompareOptions(MemOptions):
    """Options of `mem compare`: `gpu_memory` is a size such as 80GiB, `measured` a file that `mem measure` wrote."""

    gpu_memory: str | None = None
    measured: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOptions(MemOptions):
    """Options of `mem measure MODEL`: `output` is the file of records, `steps` the optimizer steps of each strategy."""

    output: str | None = None
    steps: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class KvcacheOptions:
    """Options of `mem kvcache`: `cache` is dynamic, static:N, gpt-fast:N or quantized:BITS; `dtype` is that of keys and values."""

    model: str
    batch: int = 1
    length: int = 1024
    cache: str = "dynamic"
    dtype: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions(MemOptions):
    """Options of `mem fit`: `gpu_memory` is the memory of each device, such as 24GiB."""

    gpu_memory: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OomOptions(MemOptions):
    """Options of `mem oom`: `log` is the file with the message; `model` is empty if no model was given."""

    log: str
    model: str = ""

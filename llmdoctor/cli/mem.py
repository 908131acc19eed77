"""`llmdoctor mem`: options in, a report out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from llmdoctor.cli.attached import command_after_dashes, run_attached
from llmdoctor.cli.groups import make_group
from llmdoctor.cli.output import Colors, Fail, Formats, answer
from llmdoctor.cli.shared import writing
from llmdoctor.core.exitcodes import REFUSED
from llmdoctor.report.terminal import Color, complain

_MODEL = "A model directory with a config.json (no weights needed), or a hub id in the local cache."
_STRATEGY = "trainer:OPTIM[,bf16|fp32|fp16|amp_bf16|amp_fp16][,gc], deepspeed:zeroN[,...], or a file; repeatable."


def _option(name: str, help: str, metavar: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, help=help, metavar=metavar, show_default=False)
    return option


ModelArgument = Annotated[str, typer.Argument(help=_MODEL, metavar="MODEL")]
Strategies = Annotated[list[str] | None, _option("--strategy", _STRATEGY, "NAME|FILE")]
Batch = Annotated[int | None, _option("--batch", "Sequences in a micro step; default: the strategy's, else 1.", "N")]
Length = Annotated[int | None, _option("--seq-len", "Tokens in a sequence; default 512.", "N")]
ImageSize = Annotated[str | None, _option("--image", "One image in each sequence, its tokens inside --seq-len.", "WxH")]
Lengths = Annotated[str | None, _option("--lengths", "Tokens of each sequence of a padded batch.", "N,N")]
Packed = Annotated[str | None, _option("--packed", "Tokens of the documents that fill each sequence.", "N,N")]
Attention = Annotated[str | None, _option("--attn", "sdpa, eager or flash_attention_2; default: the model's own choice.", "NAME")]
World = Annotated[int | None, _option("--world-size", "Processes, one device each.", "N")]
Rank = Annotated[int, typer.Option("--rank", help="The process whose device the answer is about.", metavar="N", show_default=False)]
Trainable = Annotated[list[str] | None, _option("--trainable", "Train only parameters with this in their name; repeatable.", "PATTERN")]
StageName = Annotated[str | None, _option("--stage", "vision, all or llm: which part of a vision-language model is trained.", "NAME")]
LoraRank = Annotated[int | None, _option("--lora", "Train adapters of this rank on the linear layers, nothing else.", "R")]
Checkpointing = Annotated[bool, typer.Option("--gradient-checkpointing", help="Recompute layers in the backward.", show_default=False)]
Without = Annotated[list[str] | None, _option("--without", "Read the strategy files as if they did not set this key; repeatable.", "KEY")]
DeepSpeed = Annotated[
    str | None, _option("--deepspeed", "The DeepSpeed release to answer for; default: pinned, installed, else the newest known.", "VERSION")
]
GpuMemory = Annotated[str | None, _option("--gpu-memory", "What fits, the largest batch, the change that makes it fit.", "SIZE")]


def compare(
    model: ModelArgument,
    strategy: Strategies = None,
    batch: Batch = None,
    seq_len: Length = None,
    image: ImageSize = None,
    lengths: Lengths = None,
    packed: Packed = None,
    attn: Attention = None,
    world_size: World = None,
    rank: Rank = 0,
    trainable: Trainable = None,
    stage: StageName = None,
    lora: LoraRank = None,
    gradient_checkpointing: Checkpointing = False,
    gpu_memory: GpuMemory = None,
    measured: Annotated[
        str | None,
        _option("--measured", "Records of `mem measure`, a snapshot or a DeepSpeed log, set beside it.", "FILE"),
    ] = None,
    static: Annotated[bool, typer.Option("--static", help="Weights and states alone, without torch, even if it is installed.")] = False,
    without: Without = None,
    deepspeed: DeepSpeed = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """Where the memory of a training step goes.

    Predicted by component for each strategy, without weights or a GPU, and why they differ. The model's own code is traced on fake tensors.
    """
    from llmdoctor.mem.compare import compare_report
    from llmdoctor.mem.options import MemCompareOptions

    options = MemCompareOptions(
        model=model,
        strategy=tuple(strategy or ()),
        batch=batch,
        seq_len=seq_len,
        image=image,
        lengths=lengths,
        packed=packed,
        attn=attn,
        world_size=world_size,
        rank=rank,
        trainable=tuple(trainable or ()),
        stage=stage,
        lora=lora,
        gradient_checkpointing=gradient_checkpointing,
        gpu_memory=gpu_memory,
        measured=measured,
        static=static,
        without=tuple(without or ()),
        deepspeed=deepspeed,
    )
    answer(lambda: compare_report(options), "mem compare", format, fail_on, color)


def kvcache(
    model: ModelArgument,
    batch: Annotated[int, typer.Option("--batch", help="Sequences.", metavar="N")] = 1,
    length: Annotated[int, typer.Option("--length", help="Tokens in the cache of each sequence.", metavar="N")] = 1024,
    cache: Annotated[
        str, typer.Option("--cache", help="dynamic, static:N (StaticCache), gpt-fast:N (setup_caches) or quantized:BITS.", metavar="KIND")
    ] = "dynamic",
    dtype: Annotated[str | None, _option("--dtype", "Of keys and values; default: the model's, else bfloat16.", "NAME")] = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """Bytes of the key-value cache.

    What it allocates for a batch and a length, layer by layer, how much of a static placeholder is used, and what training pays for it.
    """
    from llmdoctor.mem.kvcache import kvcache_report
    from llmdoctor.mem.options import KvcacheOptions

    options = KvcacheOptions(model=model, batch=batch, length=length, cache=cache, dtype=dtype)
    answer(lambda: kvcache_report(options), "mem kvcache", format, fail_on, color)


def measure(
    words: Annotated[
        list[str] | None,
        typer.Argument(help=f"{_MODEL} Or your own command, after --.", metavar="MODEL | -- COMMAND...", show_default=False),
    ] = None,
    strategy: Strategies = None,
    batch: Batch = None,
    seq_len: Length = None,
    image: ImageSize = None,
    attn: Attention = None,
    world_size: World = None,
    rank: Rank = 0,
    trainable: Trainable = None,
    stage: StageName = None,
    lora: LoraRank = None,
    gradient_checkpointing: Checkpointing = False,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Where to write the records.", metavar="FILE.jsonl", show_default=False)
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="Optimizer steps of each strategy.", metavar="N")] = 3,
    at: Annotated[int, typer.Option("--at", help="With a command: the step of which tensors are listed.", metavar="N")] = 2,
    stop_after: Annotated[int | None, _option("--stop-after", "With a command: end it after so many steps.", "N")] = None,
    summary: Annotated[str | None, _option("--summary", "Run nothing: report what the records of a command show.", "FILE")] = None,
    snapshot: Annotated[str | None, _option("--snapshot", "Run nothing: explain a torch memory snapshot (_dump_snapshot).", "FILE")] = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """The same from real steps.

    Of a model: random weights, each strategy in a fresh process, the real Trainer and the real DeepSpeed. On a GPU the allocator's figures, its
    history of the peak and NVML's; on a CPU what is held between steps, tensor by tensor. Of your own command, unchanged, under python,
    torchrun, accelerate launch or deepspeed: its exit code is passed on and the summary goes to stderr.
    """
    from llmdoctor.mem.attached import attached_report, run_measured
    from llmdoctor.mem.measure import measure_report
    from llmdoctor.mem.options import MeasureOptions
    from llmdoctor.mem.snapshot_report import snapshot_report

    command = command_after_dashes()
    model = (words or [])[: len(words or []) - len(command)]
    if [bool(command), bool(model), summary is not None, snapshot is not None].count(True) != 1 or len(model) > 1:
        complain("mem measure: expected one of MODEL, -- COMMAND, --summary FILE and --snapshot FILE")
        raise typer.Exit(REFUSED)
    if command:
        trace = output or "memory.jsonl"
        run_attached(
            command,
            writing(trace, "-o", lambda: run_measured(command, trace, at, stop_after)),
            lambda: attached_report(trace),
            format,
            color,
        )
    if summary is not None:
        answer(lambda: attached_report(summary), "mem measure", format, fail_on, color)
    if snapshot is not None:
        answer(lambda: snapshot_report(snapshot), "mem measure", format, fail_on, color)
    options = MeasureOptions(
        model=model[0],
        strategy=tuple(strategy or ()),
        batch=batch,
        seq_len=seq_len,
        image=image,
        attn=attn,
        world_size=world_size,
        rank=rank,
        trainable=tuple(trainable or ()),
        stage=stage,
        lora=lora,
        gradient_checkpointing=gradient_checkpointing,
        output=output,
        steps=steps,
    )
    answer(writing(output, "--output", lambda: measure_report(options)), "mem measure", format, fail_on, color)


def fit(
    model: ModelArgument,
    gpu_memory: Annotated[str, _option("--gpu-memory", "The memory of each device, such as 24GiB.", "SIZE")] = "",
    strategy: Strategies = None,
    batch: Batch = None,
    seq_len: Length = None,
    image: ImageSize = None,
    attn: Attention = None,
    world_size: World = None,
    rank: Rank = 0,
    trainable: Trainable = None,
    stage: StageName = None,
    lora: LoraRank = None,
    gradient_checkpointing: Checkpointing = False,
    without: Without = None,
    deepspeed: DeepSpeed = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """Changes that make it fit.

    Combinations of settings under which a training step fits into a device, cheapest first, each with its peak and its cost, and the keys to
    paste for the first of them.
    """
    from llmdoctor.mem.fit import fit_report
    from llmdoctor.mem.options import FitOptions

    options = FitOptions(
        model=model,
        gpu_memory=gpu_memory,
        strategy=tuple(strategy or ()),
        batch=batch,
        seq_len=seq_len,
        image=image,
        attn=attn,
        world_size=world_size,
        rank=rank,
        trainable=tuple(trainable or ()),
        stage=stage,
        lora=lora,
        gradient_checkpointing=gradient_checkpointing,
        without=tuple(without or ()),
        deepspeed=deepspeed,
    )
    answer(lambda: fit_report(options), "mem fit", format, fail_on, color)


def oom(
    log: Annotated[str, typer.Argument(help="A log with torch's out-of-memory message (any release since 1.13).", metavar="LOG")],
    model: Annotated[str, typer.Argument(help=f"{_MODEL} With it the tensor is named.", metavar="[MODEL]")] = "",
    strategy: Strategies = None,
    batch: Batch = None,
    seq_len: Length = None,
    attn: Attention = None,
    world_size: World = None,
    without: Without = None,
    deepspeed: DeepSpeed = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """What an out-of-memory message says.

    Sizes, fragmentation, the tensor of that size, and what to change. With MODEL and --strategy by the tensors of that model and batch.
    """
    from llmdoctor.mem.oom import oom_report
    from llmdoctor.mem.options import OomOptions

    options = OomOptions(
        log=log,
        model=model,
        strategy=tuple(strategy or ()),
        batch=batch,
        seq_len=seq_len,
        attn=attn,
        world_size=world_size,
        without=tuple(without or ()),
        deepspeed=deepspeed,
    )
    answer(lambda: oom_report(options), "mem oom", format, fail_on, color)


_COMMANDS: dict[str, Callable[..., None]] = {"compare": compare, "measure": measure, "fit": fit, "kvcache": kvcache, "oom": oom}


def make_app(name: str) -> typer.Typer:
    """The group, with the command `name` alone if it is one."""
    return make_group(name, "Where the memory goes: training steps and key-value caches.", _COMMANDS)

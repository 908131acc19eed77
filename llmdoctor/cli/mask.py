"""`llmdoctor mask`: options in, a report out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from llmdoctor.cli.groups import make_group
from llmdoctor.cli.output import Colors, Fail, Formats, answer
from llmdoctor.core.report import Report
from llmdoctor.report.terminal import Color

_MODEL = "A model directory, or a hub id in the local cache."


def _option(name: str, help: str, metavar: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, help=help, metavar=metavar, show_default=False)
    return option


Inspected = Annotated[
    str, typer.Argument(help=_MODEL + " Or module:function: one that builds a model, or a mask_mod of flex_attention.", metavar="MODEL")
]
Shape = Annotated[str | None, _option("--shape", "Batch and tokens, no mask passed.", "B,S")]
Lengths = Annotated[str | None, _option("--lengths", "Real tokens of each row; a 2-D mask is passed.", "5,8")]
Pad = Annotated[str | None, _option("--pad", "Where --lengths puts the padding: left (default) or right.", "SIDE")]
Packed = Annotated[str | None, _option("--packed", "Documents in one row; position_ids begin at 0 in each.", "3,5")]
ImageTokens = Annotated[str | None, _option("--image", "Tokens that belong to an image (token_type_ids 1).", "START:LEN")]
Backends = Annotated[
    list[str] | None,
    _option("--backend", "eager, sdpa, flash_attention_2, flex_attention, gpt-fast; repeatable or with commas; default all.", "LIST"),
]
PhaseName = Annotated[str | None, _option("--phase", "prefill (default), decode or chunk:Q.", "PHASE")]
Past = Annotated[int | None, typer.Option("--past", help="Tokens already cached.", min=0, show_default=False)]
Cache = Annotated[str | None, _option("--cache", "none, dynamic or static:N.", "CACHE")]
Dtype = Annotated[str | None, _option("--dtype", "float32, bfloat16 or float16; default the model's.", "NAME")]
Mask = Annotated[str | None, _option("--mask", "A 2-D or 4-D mask: safetensors, npy, npz or JSON.", "FILE")]
InputIds = Annotated[
    str | None, _option("--input-ids", "Real inputs: input_ids, with attention_mask, position_ids, token_type_ids.", "FILE")
]
Eos = Annotated[
    list[int] | None,
    typer.Option("--eos", help="A token id that ends a packed document of --input-ids; repeatable.", metavar="ID", show_default=False),
]
Without = Annotated[list[str] | None, _option("--without", "A field of the inputs file that counts as absent; repeatable.", "FIELD")]
Messages = Annotated[str | None, _option("--messages", "A chat, with images and videos, through the model's own processor.", "FILE")]
Mode = Annotated[str, typer.Option("--mode", help="plan: from the config alone; run: a real forward with hooks.", metavar="plan|run")]


def inspect(
    model: Inspected,
    shape: Shape = None,
    lengths: Lengths = None,
    pad: Pad = None,
    packed: Packed = None,
    image: ImageTokens = None,
    backend: Backends = None,
    phase: PhaseName = None,
    past: Past = None,
    cache: Cache = None,
    dtype: Dtype = None,
    mask: Mask = None,
    input_ids: InputIds = None,
    messages: Messages = None,
    without: Without = None,
    eos: Eos = None,
    mode: Mode = "plan",
    query: Annotated[int | None, typer.Option("--query", help="The runs of keys that this query sees.", min=0, show_default=False)] = None,
    weights: Annotated[bool, typer.Option("--weights", help="In --mode run: the directory's own weights, not random ones.")] = False,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """What the mask really looks like.

    How the 2-D mask becomes what each layer and backend receives: objects, shapes, bytes, the kernel's arguments, a picture.
    """
    from llmdoctor.mask.inspect import inspect_report
    from llmdoctor.mask.options import MaskInspectOptions

    options = MaskInspectOptions(
        model=model, shape=shape, lengths=lengths, pad=pad, packed=packed, image=image, backend=tuple(backend or ()), phase=phase, past=past,
        cache=cache, dtype=dtype, mask=mask, input_ids=input_ids, messages=messages, mode=mode, query=query, weights=weights,
        without=tuple(without or ()), eos=tuple(eos or ()),
    )  # fmt: skip
    answer(lambda: inspect_report(options), "mask inspect", format, fail_on, color)


def run_tests(
    model: Annotated[str, typer.Argument(help=_MODEL + " Or module:function that builds a model.", metavar="MODEL")],
    shape: Shape = None,
    lengths: Lengths = None,
    pad: Pad = None,
    packed: Packed = None,
    image: ImageTokens = None,
    backend: Backends = None,
    phase: PhaseName = None,
    past: Past = None,
    cache: Cache = None,
    mask: Mask = None,
    input_ids: InputIds = None,
    messages: Messages = None,
    without: Without = None,
    eos: Eos = None,
    weights: Annotated[bool, typer.Option("--weights", help="The directory's own weights, not random ones.")] = False,
    budget: Annotated[str | None, _option("--budget", "Bytes that the masks of one forward may take: 8GiB (default).", "SIZE")] = None,
    static: Annotated[bool, typer.Option("--static", help="Only the rules that need no run.")] = False,
    select: Annotated[list[str] | None, _option("--select", "Only the rules whose code begins with PREFIX; repeatable.", "PREFIX")] = None,
    ignore: Annotated[list[str] | None, _option("--ignore", "Not the rules whose code begins with PREFIX; repeatable.", "PREFIX")] = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """Does anything leak?

    Runs the model on the inputs, or on a small suite, and finds leaks, holes, dead rows and wrong positions, with what was measured.
    """
    from llmdoctor.mask.options import MaskTestOptions
    from llmdoctor.mask.test import test_report

    def build() -> Report:
        from llmdoctor.rules import code_prefixes

        options = MaskTestOptions(
            model=model, shape=shape, lengths=lengths, pad=pad, packed=packed, image=image, backend=tuple(backend or ()), phase=phase, past=past,
            cache=cache, mask=mask, input_ids=input_ids, messages=messages, weights=weights, budget=_bytes(budget),
            without=tuple(without or ()), eos=tuple(eos or ()), static=static,
            select=code_prefixes(select or (), "--select"), ignore=code_prefixes(ignore or (), "--ignore"),
        )  # fmt: skip
        return test_report(options)

    answer(build, "mask test", format, fail_on, color)


def _bytes(text: str | None) -> int | None:
    """Return the bytes of --budget; None without it. Raises QuestionError for anything that is no size with a unit."""
    from llmdoctor.core.errors import QuestionError
    from llmdoctor.core.text import size_of

    if text is None:
        return None
    size = size_of(text)
    if size is None:
        raise QuestionError(f"--budget {text}: expected a size with a unit, such as 8GiB, 8GB or 500MB")
    return size


_COMMANDS: dict[str, Callable[..., None]] = {"inspect": inspect, "test": run_tests}


def make_app(name: str) -> typer.Typer:
    """The group, with the command `name` alone if it is one."""
    return make_group(name, "What each layer's attention mask really is, and whether anything leaks.", _COMMANDS)

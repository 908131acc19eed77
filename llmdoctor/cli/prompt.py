"""`llmdoctor prompt`: options in, a report out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from llmdoctor.cli.groups import make_group
from llmdoctor.cli.labels import ModelArgument, Transformers
from llmdoctor.cli.output import Colors, Fail, Formats, answer
from llmdoctor.report.terminal import Color

_SIDE = (
    "trl-sft, trl-dpo, trl-grpo, transformers-clm, axolotl, unsloth, llama-factory, transformers, transformers-text, vllm, vllm-completions, sglang, "
    "template:FILE, ids:FILE (recorded prompt ids), model:DIR, gguf:FILE (llama.cpp) or modelfile:FILE (Ollama)."
)


def _option(name: str, help: str, metavar: str, default: bool = False) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, help=help, metavar=metavar, show_default=default)
    return option


def diff(
    model: ModelArgument,
    messages: Annotated[
        str | None, _option("--messages", "The conversation, as JSON; without it two directories are compared.", "FILE")
    ] = None,
    left: Annotated[str, _option("--left", _SIDE, "SIDE", default=True)] = "trl-sft",
    right: Annotated[str, _option("--right", "The same.", "SIDE", default=True)] = "vllm",
    left_kwargs: Annotated[
        str | None, _option("--left-kwargs", "The chat template's variables: '{\"enable_thinking\": false}'.", "JSON")
    ] = None,
    right_kwargs: Annotated[str | None, _option("--right-kwargs", "The same.", "JSON")] = None,
    transformers: Transformers = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """Do training and serving build the same prompt?

    The exact ids that two sides build from the same messages, the first difference, and its cause.
    """
    from llmdoctor.labels.options import PromptOptions, SideOptions
    from llmdoctor.labels.prompt_diff import prompt_diff_report

    options = PromptOptions(
        model=model,
        messages=messages,
        left=SideOptions(name=left, kwargs=left_kwargs),
        right=SideOptions(name=right, kwargs=right_kwargs),
        transformers=transformers,
    )
    answer(lambda: prompt_diff_report(options), "prompt diff", format, fail_on, color)


_COMMANDS: dict[str, Callable[..., None]] = {"diff": diff}


def make_app(name: str) -> typer.Typer:
    """Return the group, with the command `name` alone if it is one."""
    return make_group(name, "Whether training and serving build the same prompt.", _COMMANDS)

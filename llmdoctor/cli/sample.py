"""`llmdoctor sample`: options in, a report out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from llmdoctor.cli.output import Color, Colors, Fail, Format, answer

if TYPE_CHECKING:
    from llmdoctor.sample.model import Settings


def _option(name: str, help: str, metavar: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, help=help, metavar=metavar, show_default=False)
    return option


Temperature = Annotated[float | None, _option("--temperature", "Divides the logits.", "T")]
TopK = Annotated[int | None, _option("--top-k", "Keeps the K largest.", "K")]
TopP = Annotated[float | None, _option("--top-p", "Keeps the nucleus of mass P.", "P")]
MinP = Annotated[float | None, _option("--min-p", "Keeps what has P times the largest probability.", "P")]
Typical = Annotated[float | None, _option("--typical-p", "Keeps what is as surprising as usual.", "P")]
TopH = Annotated[float | None, _option("--top-h", "transformers' cut by entropy.", "H")]
Epsilon = Annotated[float | None, _option("--epsilon-cutoff", "transformers' least probability.", "E")]
Eta = Annotated[float | None, _option("--eta-cutoff", "transformers' least probability by entropy.", "E")]
Repetition = Annotated[float | None, _option("--repetition-penalty", "Divides or multiplies logits of tokens before.", "R")]
Frequency = Annotated[float | None, _option("--frequency-penalty", "Subtracted for each time a token was produced.", "F")]
Presence = Annotated[float | None, _option("--presence-penalty", "Subtracted once for a token that was produced.", "F")]
LastN = Annotated[int | None, _option("--penalty-last-n", "How many tokens llama.cpp's penalties look back.", "N")]
Bias = Annotated[str | None, _option("--logit-bias", "Added to single tokens.", "ID:BIAS,...")]
Greedy = Annotated[bool, typer.Option("--greedy", help="No sampling: the largest logit.", show_default=False)]


def settings_of(
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    typical_p: float | None,
    top_h: float | None,
    epsilon: float | None,
    eta: float | None,
    repetition: float | None,
    frequency: float | None,
    presence: float | None,
    last_n: int | None,
    bias: str | None,
    greedy: bool,
) -> Settings:
    """The options as Settings. Raises QuestionError."""
    from llmdoctor.sample.model import Settings
    from llmdoctor.sample.question import parse_bias

    return Settings(
        temperature,
        top_k,
        top_p,
        min_p,
        typical_p,
        top_h,
        epsilon,
        eta,
        repetition,
        frequency,
        presence,
        last_n,
        parse_bias(bias),
        not greedy,
    )


def engines(
    logits: Annotated[str, _option("--logits", "A .npy, .npz, .safetensors or JSON file, or numbers: 4,3,2.5", "FILE|LIST")],
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    typical_p: Typical = None,
    top_h: TopH = None,
    epsilon: Epsilon = None,
    eta: Eta = None,
    repetition: Repetition = None,
    frequency: Frequency = None,
    presence: Presence = None,
    last_n: LastN = None,
    bias: Bias = None,
    greedy: Greedy = False,
    prompt_tokens: Annotated[str | None, _option("--prompt-tokens", "Ids in front of the call, for penalties.", "1,2")] = None,
    output_tokens: Annotated[str | None, _option("--output-tokens", "Ids that the call has produced, for penalties.", "3,4")] = None,
    engine: Annotated[list[str] | None, _option("--engine", "Only this engine; repeatable.", "NAME")] = None,
    step: Annotated[int, typer.Option("--step", help="Which step of a file with several.", min=0)] = 0,
    model: Annotated[str | None, _option("--model", "Adds the hidden defaults of its generation_config.json.", "DIR")] = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="Add each engine's own defaults.", show_default=False)] = False,
    format: Format = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """The same numbers through each engine's order of stages.

    transformers, vLLM, SGLang, llama.cpp, TGI and gpt-fast: the distribution after each stage, where two part, and what an engine refuses. An
    option that is not given is off, whatever an engine's own default.
    """
    from llmdoctor.sample.engines import engines_report
    from llmdoctor.sample.question import check_engines, parse_before

    answer(
        lambda: engines_report(
            logits,
            settings_of(
                temperature, top_k, top_p, min_p, typical_p, top_h, epsilon, eta, repetition, frequency, presence, last_n, bias, greedy
            ),
            parse_before(prompt_tokens, output_tokens),
            step,
            model,
            defaults,
            check_engines(engine),
        ),
        "sample engines",
        format,
        fail_on,
        color,
    )


_COMMANDS: dict[str, Callable[..., None]] = {"engines": engines}


def make_app(name: str) -> typer.Typer:
    """The group with the command `name` alone, or with all where there is no such command."""
    app = typer.Typer(
        help="Sampling: engines side by side, recorded generations replayed, samplers tested.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.callback()(_group)
    for known in [name] if name in _COMMANDS else _COMMANDS:
        app.command(known)(_COMMANDS[known])
    return app


def _group() -> None:
    pass

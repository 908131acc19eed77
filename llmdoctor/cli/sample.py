"""`llmdoctor sample`: options in, a report out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from llmdoctor.cli import complete
from llmdoctor.cli.groups import make_group
from llmdoctor.cli.output import Colors, Fail, Formats, answer
from llmdoctor.cli.shared import writing
from llmdoctor.report.terminal import Color

if TYPE_CHECKING:
    from llmdoctor.core.report import Report


def _option(name: str, help: str, metavar: str, complete: Callable[[str], list[str]] | None = None) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, help=help, metavar=metavar, show_default=False, autocompletion=complete)
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
    engine: Annotated[list[str] | None, _option("--engine", "Only this engine; repeatable.", "NAME", complete.sample_engines)] = None,
    step: Annotated[int, typer.Option("--step", help="Which step of a file with several.", min=0)] = 0,
    model: Annotated[str | None, _option("--model", "Adds the hidden defaults of its generation_config.json.", "DIR")] = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="Add each engine's own defaults.", show_default=False)] = False,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """The same numbers through each engine's order of stages.

    transformers, vLLM, SGLang, llama.cpp, TGI and gpt-fast: the distribution after each stage, where two part, and what an engine refuses. An
    option that is not given is off, whatever an engine's own default.
    """

    def build() -> Report:
        from llmdoctor.sample.engines import engines_report
        from llmdoctor.sample.options import EnginesOptions, check_engines, parse_bias, parse_context
        from llmdoctor.sample.types import SamplingParams

        options = EnginesOptions(
            logits=logits,
            settings=SamplingParams(
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                typical_p=typical_p,
                top_h=top_h,
                epsilon_cutoff=epsilon,
                eta_cutoff=eta,
                repetition_penalty=repetition,
                frequency_penalty=frequency,
                presence_penalty=presence,
                penalty_last_n=last_n,
                logit_bias=parse_bias(bias),
                do_sample=not greedy,
            ),
            context=parse_context(prompt_tokens, output_tokens),
            step=step,
            model=model,
            defaults=defaults,
            engines=check_engines(engine),
        )
        return engines_report(options)

    answer(build, "sample engines", format, fail_on, color)


def replay(
    logits: Annotated[str | None, typer.Argument(help="Recorded logits or a response with logprobs.", metavar="[LOGITS]")] = None,
    tokens: Annotated[str | None, _option("--tokens", "The token ids that were drawn.", "FILE")] = None,
    claim: Annotated[str | None, _option("--claim", "The settings: JSON, a stored request, or a gencfg trace.", "FILE")] = None,
    engine: Annotated[str | None, _option("--engine", "The engine whose order is claimed.", "NAME", complete.sample_engines)] = None,
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
    model: Annotated[str | None, _option("--model", "Its generation_config.json is the claim; without LOGITS it is run.", "DIR")] = None,
    prompt: Annotated[str | None, _option("--prompt", "The prompt: token ids, text or messages.", "FILE")] = None,
    image: Annotated[list[str] | None, _option("--image", "An image of the prompt; repeatable.", "FILE")] = None,
    sequence: Annotated[int | None, _option("--sequence", "Which sequence of a batch.", "N")] = None,
    step: Annotated[int | None, _option("--step", "One step: its distribution after each stage.", "N")] = None,
    rows: Annotated[int, typer.Option("--rows", help="How many steps the table shows.", min=0)] = 8,
    alpha: Annotated[float, typer.Option("--alpha", help="How often a true claim may be called inconsistent.")] = 0.01,
    tolerance: Annotated[float | None, _option("--tolerance", "Mass beyond the nucleus that still counts as possible.", "MASS")] = None,
    dtype: Annotated[str | None, _option("--dtype", "float32, bfloat16 or float16.", "NAME")] = None,
    logprobs: Annotated[str | None, _option("--logprobs", "Recorded log-probabilities: which kind are they?", "FILE")] = None,
    versus: Annotated[str | None, _option("--versus", "The engine's log-probabilities; now `sample compare`.", "FILE")] = None,
    eos: Annotated[list[int] | None, _option("--eos", "An id that ends a sequence: what follows is padding; repeatable.", "ID")] = None,
    scores: Annotated[
        bool | None, typer.Option("--scores/--raw", help="LOGITS are scores, with the settings applied.", show_default=False)
    ] = None,
    kind: Annotated[str | None, _option("--kind", "The kind of listed log-probabilities: raw, temperature or processed.", "KIND")] = None,
    without: Annotated[list[str] | None, _option("--without", "Answer as if the claim did not set this key; repeatable.", "KEY")] = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """Can these tokens have been drawn with these settings?

    Rebuilds each step's distribution from recorded logits, from a response's top log-probabilities, or from a model in one teacher-forced
    pass, and tests the tokens against the claim: consistent, inconsistent with the proof, or undecided with how many more tokens it takes.
    """

    def build() -> Report:
        from llmdoctor.sample.options import ReplayOptions, check_dtype, check_engines, parse_bias
        from llmdoctor.sample.replay import replay_report
        from llmdoctor.sample.types import SamplingParams

        check_engines([engine] if engine else None)
        options = ReplayOptions(
            logits=logits,
            settings=SamplingParams(
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                typical_p=typical_p,
                top_h=top_h,
                epsilon_cutoff=epsilon,
                eta_cutoff=eta,
                repetition_penalty=repetition,
                frequency_penalty=frequency,
                presence_penalty=presence,
                penalty_last_n=last_n,
                logit_bias=parse_bias(bias),
                do_sample=not greedy,
            ),
            tokens=tokens,
            claim=claim,
            engine=engine,
            model=model,
            prompt=prompt,
            sequence=sequence,
            step=step,
            rows=rows,
            alpha=alpha,
            tolerance=tolerance,
            dtype=check_dtype(dtype),
            versus=versus,
            logprobs=logprobs,
            images=tuple(image or ()),
            eos=tuple(eos or ()),
            scores=scores,
            kind=kind,
            without=tuple(without or ()),
        )
        return replay_report(options)

    answer(build, "sample replay", format, fail_on, color)


def draw(
    probs: Annotated[str | None, _option("--probs", "The distribution itself: a file, or .5,.4,.1", "FILE|LIST")] = None,
    logits: Annotated[str | None, _option("--logits", "Logits; the settings below make the distribution.", "FILE|LIST")] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="Whose order of stages.", metavar="NAME", autocompletion=complete.sample_engines)
    ] = "transformers",
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    typical_p: Typical = None,
    step: Annotated[int, typer.Option("--step", help="Which step of a file with several.", min=0)] = 0,
    n: Annotated[int, typer.Option("--n", "-n", help="How many draws.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of numpy's PCG64.")] = 0,
    counts: Annotated[bool, typer.Option("--counts", help="Only how often each token comes: one multinomial draw.")] = False,
    output: Annotated[str | None, _option("--output", "Write the draws, or with --counts the counts.", "FILE.npy")] = None,
    sampler: Annotated[str | None, _option("--sampler", "Test this: f(probs) or f(probs, rng) gives a token.", "MODULE:FUNCTION")] = None,
    draws: Annotated[str | None, _option("--draws", "Test these draws: token ids.", "FILE")] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="How often a true sampler may be called inconsistent.")] = 0.01,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """Draw from a distribution, or test a sampler against it.

    Draws are reproducible: numpy's PCG64 with --seed. A sampler or a file of draws is judged by an exact multinomial test, or by
    chi-square where the outcomes are too many to count out, with its power; the known broken samplers are named if their law fits.
    """

    def build() -> Report:
        from llmdoctor.sample.draw import draw_report
        from llmdoctor.sample.options import DrawOptions, check_engines
        from llmdoctor.sample.types import SamplingParams

        check_engines([engine])
        options = DrawOptions(
            probs=probs,
            logits=logits,
            settings=SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p),
            engine=engine,
            step=step,
            count=n,
            seed=seed,
            only_counts=counts,
            sampler=sampler,
            draws=draws,
            output=output,
            alpha=alpha,
        )
        return draw_report(options)

    answer(writing(output, "--output", build), "sample draw", format, fail_on, color)


def compare(
    trainer: Annotated[str, typer.Argument(help="The trainer's log-probabilities of the drawn tokens.", metavar="TRAINER")],
    engine: Annotated[
        str | None, typer.Argument(help="The engine's, of the same tokens; without it, TRAINER holds both sides.", metavar="ENGINE")
    ] = None,
    temperature: Annotated[float | None, _option("--temperature", "The temperature that was requested.", "T")] = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """Do trainer and engine agree about the same tokens, and if not, why?

    Reads JSON, JSON lines, .npy, .npz, .safetensors, .parquet and responses with logprobs; knows the names of verl, TRL, OpenRLHF, slime and
    NeMo-RL and their masks. Differences are always log p(trainer) - log p(engine). Exit 0 if they agree, 1 if not, 2 if it is undecided.
    """

    def build() -> Report:
        from llmdoctor.sample.compare import compare_report
        from llmdoctor.sample.options import SampleCompareOptions

        return compare_report(SampleCompareOptions(trainer=trainer, engine=engine, temperature=temperature))

    answer(build, "sample compare", format, fail_on, color)


_COMMANDS: dict[str, Callable[..., None]] = {"replay": replay, "compare": compare, "engines": engines, "draw": draw}


def make_app(name: str) -> typer.Typer:
    """The group, with the command `name` alone if it is one."""
    return make_group(name, "Sampling: engines side by side, recorded generations replayed, samplers tested.", _COMMANDS)

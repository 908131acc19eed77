"""`llmdoctor gencfg`: options in, a report out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from llmdoctor.cli import complete
from llmdoctor.cli.attached import refuse_command, run_attached
from llmdoctor.cli.groups import make_group
from llmdoctor.cli.output import Colors, Fail, Formats, answer
from llmdoctor.cli.shared import GIVEN
from llmdoctor.core.report import Report
from llmdoctor.gencfg.engines import MODULES as ENGINES
from llmdoctor.report.terminal import Color

_MODEL = "A model directory, a hub id in the local cache, a generation_config.json, a trace, a GGUF file, a Modelfile, or a script with vllm serve."
_CONFIG = "The GenerationConfig passed to generate(), as a JSON file."
_SET = "A keyword argument of generate(); repeatable."
_MUTATE = "An assignment on model.generation_config before the call; repeatable."
_MUTATE_CONFIG = "An assignment on model.config before the call; repeatable."
_PRESET = "What a trainer does to the model and to the call: trl-ppo, trl-grpo@1.0.0 (gencfg presets lists them); repeatable."
_VERSION = "The transformers version to answer for; default: the installed one, else the newest known."
_ENGINE = f"{', '.join(ENGINES)}; NAME@VERSION names a version."
_WITHOUT = "Answer as if no file set this key; repeatable."


def _option(name: str, help: str, metavar: str, complete: Callable[[str], list[str]] | None = None) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, help=help, metavar=metavar, show_default=False, autocompletion=complete)
    return option


ModelArgument = Annotated[str, typer.Argument(help=_MODEL, metavar="MODEL")]
ConfigFile = Annotated[str | None, _option("--config", _CONFIG, "FILE")]
Sets = Annotated[list[str] | None, _option("--set", _SET, "NAME=JSON")]
Mutations = Annotated[list[str] | None, _option("--mutate", _MUTATE, "NAME=JSON")]
ConfigMutations = Annotated[list[str] | None, _option("--mutate-config", _MUTATE_CONFIG, "NAME=JSON")]
Presets = Annotated[list[str] | None, _option("--preset", _PRESET, "NAME", complete.presets)]
Version = Annotated[str | None, _option("--transformers", _VERSION, "VERSION")]
EngineName = Annotated[str | None, _option("--engine", _ENGINE, "NAME[@VERSION]", complete.gencfg_engines)]
Without = Annotated[list[str] | None, _option("--without", _WITHOUT, "KEY")]
PromptLength = Annotated[int | None, typer.Option("--prompt-length", help="Tokens in the prompt.", min=0, show_default="1")]

LeftConfig = Annotated[str | None, _option("--left-config", _CONFIG, "FILE")]
LeftSets = Annotated[list[str] | None, _option("--left-set", _SET, "NAME=JSON")]
LeftMutations = Annotated[list[str] | None, _option("--left-mutate", _MUTATE, "NAME=JSON")]
LeftConfigMutations = Annotated[list[str] | None, _option("--left-mutate-config", _MUTATE_CONFIG, "NAME=JSON")]
LeftPresets = Annotated[list[str] | None, _option("--left-preset", _PRESET, "NAME", complete.presets)]
LeftVersion = Annotated[str | None, _option("--left-transformers", _VERSION, "VERSION")]
LeftEngine = Annotated[str | None, _option("--left-engine", _ENGINE, "NAME[@VERSION]", complete.gencfg_engines)]
LeftWithout = Annotated[list[str] | None, _option("--left-without", _WITHOUT, "KEY")]
LeftPromptLength = Annotated[int | None, typer.Option("--left-prompt-length", help="Tokens in the prompt.", min=0)]
RightConfig = Annotated[str | None, _option("--right-config", _CONFIG, "FILE")]
RightSets = Annotated[list[str] | None, _option("--right-set", _SET, "NAME=JSON")]
RightMutations = Annotated[list[str] | None, _option("--right-mutate", _MUTATE, "NAME=JSON")]
RightConfigMutations = Annotated[list[str] | None, _option("--right-mutate-config", _MUTATE_CONFIG, "NAME=JSON")]
RightPresets = Annotated[list[str] | None, _option("--right-preset", _PRESET, "NAME", complete.presets)]
RightVersion = Annotated[str | None, _option("--right-transformers", _VERSION, "VERSION")]
RightEngine = Annotated[str | None, _option("--right-engine", _ENGINE, "NAME[@VERSION]", complete.gencfg_engines)]
RightWithout = Annotated[list[str] | None, _option("--right-without", _WITHOUT, "KEY")]
RightPromptLength = Annotated[int | None, typer.Option("--right-prompt-length", help="Tokens in the prompt.", min=0)]


def show(
    model: ModelArgument,
    config: ConfigFile = None,
    sets: Sets = None,
    mutate: Mutations = None,
    mutate_config: ConfigMutations = None,
    preset: Presets = None,
    transformers: Version = None,
    engine: EngineName = None,
    prompt_length: PromptLength = None,
    without: Without = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """The effective generation config of one call.

    Each field, where it came from, what it replaced, the errors and warnings the library would raise, and whether the call stops.
    """
    from llmdoctor.gencfg.options import GencfgOptions
    from llmdoctor.gencfg.show import show_report

    options = GencfgOptions(
        model=model,
        config=config,
        sets=tuple(sets or ()),
        mutate=tuple(mutate or ()),
        mutate_config=tuple(mutate_config or ()),
        presets=tuple(preset or ()),
        transformers=transformers,
        engine=engine,
        prompt_length=prompt_length,
        without=tuple(without or ()),
    )
    answer(lambda: show_report(options), "gencfg show", format, fail_on, color)


def diff(
    left: Annotated[str, typer.Argument(help=_MODEL, metavar="LEFT")],
    right: Annotated[str | None, typer.Argument(help="The same for the other side; without it, LEFT again.", show_default=False)] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    mutate: Mutations = None,
    mutate_config: ConfigMutations = None,
    preset: Presets = None,
    transformers: Version = None,
    engine: EngineName = None,
    prompt_length: PromptLength = None,
    without: Without = None,
    left_config: LeftConfig = None,
    left_sets: LeftSets = None,
    left_mutate: LeftMutations = None,
    left_mutate_config: LeftConfigMutations = None,
    left_preset: LeftPresets = None,
    left_transformers: LeftVersion = None,
    left_engine: LeftEngine = None,
    left_prompt_length: LeftPromptLength = None,
    left_without: LeftWithout = None,
    right_config: RightConfig = None,
    right_sets: RightSets = None,
    right_mutate: RightMutations = None,
    right_mutate_config: RightConfigMutations = None,
    right_preset: RightPresets = None,
    right_transformers: RightVersion = None,
    right_engine: RightEngine = None,
    right_prompt_length: RightPromptLength = None,
    right_without: RightWithout = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """Two calls side by side.

    What differs, where each value came from, and whether either never stops. Every option of show also as --left-X and --right-X. Exit 1 on a
    difference; with --fail-on error only on a finding.
    """
    from llmdoctor.gencfg.diff import diff_report
    from llmdoctor.gencfg.options import DiffOptions, GencfgOptions, under

    both = GencfgOptions(
        model=left,
        config=config,
        sets=tuple(sets or ()),
        mutate=tuple(mutate or ()),
        mutate_config=tuple(mutate_config or ()),
        presets=tuple(preset or ()),
        transformers=transformers,
        engine=engine,
        prompt_length=prompt_length,
        without=tuple(without or ()),
    )
    one = GencfgOptions(
        model=left,
        config=left_config,
        sets=tuple(left_sets or ()),
        mutate=tuple(left_mutate or ()),
        mutate_config=tuple(left_mutate_config or ()),
        presets=tuple(left_preset or ()),
        transformers=left_transformers,
        engine=left_engine,
        prompt_length=left_prompt_length,
        without=tuple(left_without or ()),
    )
    other = GencfgOptions(
        model=right or left,
        config=right_config,
        sets=tuple(right_sets or ()),
        mutate=tuple(right_mutate or ()),
        mutate_config=tuple(right_mutate_config or ()),
        presets=tuple(right_preset or ()),
        transformers=right_transformers,
        engine=right_engine,
        prompt_length=right_prompt_length,
        without=tuple(right_without or ()),
    )
    options = DiffOptions(left=under(both, one), right=under(both, other))
    answer(lambda: diff_report(options), "gencfg diff", format, fail_on, color)


def check(
    models: Annotated[
        list[str], typer.Argument(help="Model directories, folders of model directories, GGUF files, Modelfiles.", metavar="MODEL...")
    ],
    select: Annotated[list[str] | None, _option("--select", "Only the rules whose code begins with PREFIX; repeatable.", "PREFIX")] = None,
    ignore: Annotated[list[str] | None, _option("--ignore", "Not the rules whose code begins with PREFIX; repeatable.", "PREFIX")] = None,
    transformers: Version = None,
    without: Without = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """Rules over model directories, nothing loaded.

    Can a call stop, and will it behave alike under other versions and engines? A folder without a model of its own stands for its subfolders.
    """
    from llmdoctor.gencfg.check import check_report

    def build() -> Report:
        from llmdoctor.gencfg.options import GencfgCheckOptions
        from llmdoctor.rules import code_prefixes

        options = GencfgCheckOptions(
            paths=tuple(models),
            select=code_prefixes(select or (), "--select"),
            ignore=code_prefixes(ignore or (), "--ignore"),
            transformers=transformers,
            without=tuple(without or ()),
        )
        return check_report(options)

    answer(build, "gencfg check", format, fail_on, color)


def presets(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A trainer, such as trl-grpo@1.0.0; without it, all of them.", metavar="[NAME]", autocompletion=complete.presets
        ),
    ] = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """The trainers that --preset takes.

    By library and version, and for one of them what it sets on the model and what it passes to generate(), with file and line.
    """
    from llmdoctor.gencfg.options import PresetsOptions
    from llmdoctor.gencfg.presets import presets_report

    answer(lambda: presets_report(PresetsOptions(name=name)), "gencfg presets", format, fail_on, color)


def trace(
    command: Annotated[list[str] | None, typer.Argument(help="Your own command, after --.", metavar="-- COMMAND...")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="Where to write the trace.", metavar="FILE.jsonl")] = "run.jsonl",
    summary: Annotated[str | None, _option("--summary", "Run nothing: report on a trace.", "FILE")] = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """Run your own command and record every generate() in it.

    Loads, every change to a generation config with its file and line, imports that change a default, and how each sequence ended. The command
    runs as it is, under python, torchrun, accelerate launch or deepspeed; its exit code is passed on and the summary goes to stderr.
    """
    from llmdoctor.gencfg.trace.options import TraceOptions
    from llmdoctor.gencfg.trace.run import run_traced
    from llmdoctor.gencfg.trace.trace import trace_report

    words, path = command or [], summary or output
    if summary is None:
        run_attached(
            words, lambda: run_traced(words, path, overwrite=GIVEN.overwrite), lambda: trace_report(TraceOptions(path=path)), format, color
        )
    refuse_command(words, f"--summary {summary}")
    answer(lambda: trace_report(TraceOptions(path=path)), "gencfg trace", format, fail_on, color)


def runaway(
    file: Annotated[str, typer.Argument(help="JSON lines, JSON or parquet, also gzipped; - is standard input.", metavar="FILE")],
    model: Annotated[str | None, _option("--model", "The model that made them: its terminators, and the likely cause.", "DIR")] = None,
    terminator: Annotated[list[str] | None, _option("--terminator", "A token that ends a sequence; repeatable.", "ID|TEXT")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", help="The limit in tokens, if the records give none.", min=1, show_default=False)
    ] = None,
    ids: Annotated[str | None, _option("--ids", "The column of token ids.", "COLUMN")] = None,
    text: Annotated[str | None, _option("--text", "The column of text.", "COLUMN")] = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """Decoding that did not stop, in recorded outputs.

    Reads the records of transformers, TRL, OpenAI, Anthropic, Gemini, vLLM, SGLang, TGI, llama.cpp, Ollama, MT-Bench, lm-evaluation-harness,
    inspect-ai, lighteval, HELM, OpenCompass and LLaMA-Factory. Counts how sequences ended, terminators that were passed and repetition loops,
    and with --model names the likely cause.
    """
    from llmdoctor.gencfg.runaway.options import RunawayOptions
    from llmdoctor.gencfg.runaway.runaway import runaway_report

    options = RunawayOptions(path=file, model=model, terminators=tuple(terminator or ()), max_new_tokens=max_new_tokens, ids=ids, text=text)
    answer(lambda: runaway_report(options), "gencfg runaway", format, fail_on, color)


_COMMANDS: dict[str, Callable[..., None]] = {
    "show": show,
    "diff": diff,
    "check": check,
    "trace": trace,
    "runaway": runaway,
    "presets": presets,
}


def make_app(name: str) -> typer.Typer:
    """The group, with the command `name` alone if it is one."""
    return make_group(name, "The effective generation config of a call: where each value comes from.", _COMMANDS, launchers=("trace",))

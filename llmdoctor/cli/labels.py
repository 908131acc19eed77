"""`llmdoctor labels`: options in, a report out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from llmdoctor.cli import complete
from llmdoctor.cli.attached import command_after_dashes, run_attached
from llmdoctor.cli.groups import make_group
from llmdoctor.cli.output import Colors, Fail, Formats, answer
from llmdoctor.cli.shared import check_new
from llmdoctor.core.exitcodes import REFUSED
from llmdoctor.core.report import Report
from llmdoctor.report.terminal import Color, complain

_TRAINER = (
    "trl-sft, trl-dpo, trl-kto, trl-reward, transformers-clm, axolotl, llama-factory, unsloth, torchtune, ms-swift or none (the labels as they are); "
    "@VERSION names a release."
)


def _option(name: str, help: str, metavar: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, help=help, metavar=metavar, show_default=False)
    return option


ModelArgument = Annotated[str, typer.Argument(help="A directory with a tokenizer, or a hub id in the local cache.", metavar="MODEL")]
Data = Annotated[str, typer.Argument(help="The dataset: JSON lines, a JSON list, or parquet.", metavar="DATA")]
TrainerName = Annotated[str, typer.Option("--trainer", help=_TRAINER, metavar="NAME[@VERSION]", autocompletion=complete.trainers)]
ConfigFile = Annotated[str | None, _option("--config", "The trainer's configuration, as JSON or YAML.", "FILE")]
RowNumber = Annotated[int | None, typer.Option("--row", help="Show the sequences that hold this row, from 0.", min=0, show_default=False)]
TextColumn = Annotated[str | None, _option("--text-column", "The column that holds plain text.", "NAME")]
MaxLength = Annotated[int | None, typer.Option("--max-length", help="The longest sequence, in tokens.", min=1, show_default=False)]
Without = Annotated[list[str] | None, _option("--without", "Answer as if the configuration did not set this key; repeatable.", "KEY")]
Transformers = Annotated[
    str | None, _option("--transformers", "The release whose tokenizers are meant (4 or 5); default: that of the trainer.", "VERSION")
]


def inspect(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="MODEL: a directory with a tokenizer, or a hub id in the local cache. DATA: JSON lines, a JSON list, or parquet; not with a run.",
            metavar="MODEL [DATA] [-- COMMAND]",
        ),
    ] = None,
    trainer: Annotated[
        str | None,
        typer.Option(
            "--trainer",
            help=f"{_TRAINER} [default: trl-sft]",
            metavar="NAME[@VERSION]",
            show_default=False,
            autocompletion=complete.trainers,
        ),
    ] = None,
    config: ConfigFile = None,
    row: RowNumber = None,
    text_column: TextColumn = None,
    max_length: MaxLength = None,
    without: Without = None,
    transformers: Transformers = None,
    live: Annotated[
        str | None,
        _option("--live", "Show the batches of your own code: a function that returns a Trainer or a loader.", "MODULE:FUNCTION"),
    ] = None,
    batches: Annotated[int, typer.Option("--batches", help="With a run: how many batches of each process.", min=1)] = 4,
    stop: Annotated[bool, typer.Option("--stop", help="With a command: end it behind the last of these batches.")] = False,
    output: Annotated[
        str, typer.Option("--output", "-o", help="With a run: where to write its rows.", metavar="FILE.jsonl")
    ] = "labels.jsonl",
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """Token by token, what is a training target.

    The rows of a dataset as the trainer tokenizes, templates, truncates, packs and masks them; which token is a target, which is not, and
    which setting decided it. Needs the tokenizer, not the weights. With -- COMMAND or --live instead of DATA: the labels that your own run
    gives to its model; the command's exit code is passed on and the report goes to stderr.
    """
    from llmdoctor.labels.inspect import inspect_report
    from llmdoctor.labels.options import LabelsOptions
    from llmdoctor.labels.recorded import RecordOptions, record_command, record_function

    command = command_after_dashes()
    names = (words or [])[: len(words or []) - len(command)]
    run = bool(command) or live is not None
    if (bool(command) and live is not None) or len(names) != (1 if run else 2):
        complain("labels inspect: expected MODEL DATA, MODEL -- COMMAND, or MODEL --live MODULE:FUNCTION")
        raise typer.Exit(REFUSED)
    settings = {"--trainer": trainer, "--config": config, "--text-column": text_column, "--max-length": max_length, "--without": without}
    given = [name for name, value in settings.items() if value]
    if run and given:
        complain(f"labels inspect: {', '.join(given)} describe a trainer that is imitated; the labels of a run are those of the run")
        raise typer.Exit(REFUSED)
    options = LabelsOptions(
        model=names[0],
        data=output if run else names[1],
        trainer="none" if run else trainer or "trl-sft",
        config=config,
        row=row,
        text_column=text_column,
        max_length=max_length,
        without=tuple(without or ()),
        transformers=transformers,
    )
    recording = RecordOptions(output=output, batches=batches, stop=stop)

    def record() -> tuple[int, str | None]:
        check_new(output, "--output")
        return record_command(command, recording)

    def report() -> Report:
        if live is not None:
            check_new(output, "--output")
            record_function(live, recording)
        return inspect_report(options)

    if command:
        run_attached(command, record, lambda: inspect_report(options), format, color)

    answer(report, "labels inspect", format, fail_on, color)


def audit(
    model: ModelArgument,
    data: Data,
    trainer: TrainerName = "trl-sft",
    config: ConfigFile = None,
    text_column: TextColumn = None,
    max_length: MaxLength = None,
    without: Without = None,
    transformers: Transformers = None,
    format: Formats = None,
    fail_on: Fail = None,
    color: Colors = Color.AUTO,
) -> None:
    """The same, counted over a whole dataset.

    Rows without any target, ends that are not trained or cut off, prompts trained on, two bos tokens, ids beyond the embedding.
    """
    from llmdoctor.labels.audit import audit_report
    from llmdoctor.labels.options import LabelsOptions

    options = LabelsOptions(
        model=model,
        data=data,
        trainer=trainer,
        config=config,
        text_column=text_column,
        max_length=max_length,
        without=tuple(without or ()),
        transformers=transformers,
    )
    answer(lambda: audit_report(options), "labels audit", format, fail_on, color)


_COMMANDS: dict[str, Callable[..., None]] = {"inspect": inspect, "audit": audit}


def make_app(name: str) -> typer.Typer:
    """Return the group, with the command `name` alone if it is one."""
    return make_group(name, "What a model is trained on, token by token.", _COMMANDS)

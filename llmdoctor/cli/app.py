"""The commands' tree."""

from __future__ import annotations

from typing import Annotated

import typer

from llmdoctor.cli import gencfg
from llmdoctor.cli.output import Color, Colors, Format, answer

app = typer.Typer(
    name="llmdoctor",
    help="Answers what went wrong when a language model is trained or served, and names the cause: layer, file, line, setting.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)
app.add_typer(gencfg.app, name="gencfg")


def _version(wanted: bool) -> None:
    if wanted:
        from llmdoctor import __version__

        typer.echo(f"llmdoctor {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.", show_default=False)
    ] = False,
) -> None:
    pass


@app.command()
def rule(
    code: Annotated[
        str | None, typer.Argument(help="A rule's code, such as GEN001; without one, all are listed.", show_default=False)
    ] = None,
    format: Format = None,
    color: Colors = Color.AUTO,
) -> None:
    """Explain a rule: what it looks for, why it hurts, a bad and a good example, the fix."""
    from llmdoctor.cli import catalogue

    answer(lambda: catalogue.report(code), "rule", format, None, color)


@app.command()
def env(format: Format = None, color: Colors = Color.AUTO) -> None:
    """What to paste into a bug report: versions, machine, caches; nothing is imported, nothing leaves the machine."""
    from llmdoctor.cli import environment

    answer(environment.report, "env", format, None, color)


@app.command()
def demo(
    keep: Annotated[str | None, typer.Option("--keep", metavar="DIR", help="Keep the tiny model in DIR.", show_default=False)] = None,
) -> None:
    """The whole tool on an embedded tiny Qwen2-VL: the question, the prediction, the real run, the fix."""
    from llmdoctor.cli.demonstration import run

    raise typer.Exit(run(keep))

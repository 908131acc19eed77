"""`llmdoctor look`, `rule`, `env` and `demo`: options in, a report out."""

from __future__ import annotations

from typing import Annotated

import typer

from llmdoctor.cli import complete
from llmdoctor.cli.output import Colors, Formats, answer
from llmdoctor.report.terminal import Color


def look(
    path: Annotated[str, typer.Argument(help="A file or folder, or a hub id in the local cache.", metavar="PATH")],
    format: Formats = None,
    color: Colors = Color.AUTO,
) -> None:
    """What is this, and which commands answer something about it?

    A model or adapter directory, a checkpoint, a trace, a log, recorded outputs, a strategy, a snapshot, tensors, a repository. Without
    any command, llmdoctor looks at the current folder.
    """
    from llmdoctor.look.look import look_report
    from llmdoctor.look.options import LookOptions

    answer(lambda: look_report(LookOptions(path=path)), "look", format, None, color)


def rule(
    code: Annotated[
        str | None,
        typer.Argument(
            help="A rule such as GEN001, or a family such as GEN; without it, all rules are listed.",
            show_default=False,
            autocompletion=complete.rules,
        ),
    ] = None,
    format: Formats = None,
    color: Colors = Color.AUTO,
) -> None:
    """Explain a rule, or list the rules of a family.

    What the rule looks for, why it matters, an example with the fault and one without, and the fix.
    """
    from llmdoctor.rules import rule_report

    answer(lambda: rule_report(code), "rule", format, None, color)


def env(format: Formats = None, color: Colors = Color.AUTO) -> None:
    """What to paste into a bug report.

    Versions, machine, caches; nothing is imported, nothing leaves the machine.
    """
    from llmdoctor.look.env import env_report

    answer(env_report, "env", format, None, color)


def demo(
    keep: Annotated[str | None, typer.Option("--keep", metavar="DIR", help="Keep the tiny model in DIR.", show_default=False)] = None,
) -> None:
    """The whole tool on an embedded tiny model.

    A Qwen2-VL made on the spot: the question, the prediction, the real runs, the fix. Needs the vlm extra.
    """
    from llmdoctor.demo.run import run

    raise typer.Exit(run(keep))

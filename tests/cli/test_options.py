"""Every option of the command line reaches the field of its name: two options of the same type that are swapped fail here."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer.main

from llmdoctor.cli.app import make_app
from llmdoctor.commands import COMMANDS, Command, load

OUTPUT = {"format", "fail_on", "color", "help", "show", "statistics", "overwrite"}  # about the report, not about the question
# Values that are parsed before they reach the options; any other option is given a text or a number of its own.
VALUES = {
    "--budget": "3GiB",
    "--gpu-memory": "3GiB",
    "--logit-bias": "7:2.5",
    "--prompt-tokens": "4,5",
    "--output-tokens": "6,7",
    "--select": "DIR",
    "--ignore": "SMP",
    "sample engines --engine": "vllm",
    "sample replay --engine": "vllm",
    "sample draw --engine": "vllm",
    "sample replay --dtype": "float16",
    "--fail-on": "warning",
}
# Options whose field has another name, by the name of the option.
FIELDS = {
    "greedy": "do_sample",
    "typical": "typical_p",
    "prompt_tokens": "prompt",
    "output_tokens": "output",
    "engine": "engines",
    "paths": "paths",
    "models": "paths",
    "raw": "scores",
    "file": "path",
    "summary": "path",
    "n": "count",
    "counts": "only_counts",
}
# Words that a command needs beside the option under test, and options that lead to another question than the options' own.
NEEDED = {"mem measure": ["model"], "gencfg trace": ["--summary", "other.jsonl"], "labels inspect": ["model", "data"]}
ELSEWHERE = {
    "check --diff",
    "check --show-settings",
    "check --watch",
    "labels inspect words",
    "labels inspect --live",
    "labels inspect --batches",
    "labels inspect --stop",
    "labels inspect --output",
    "gencfg trace command",
    "gencfg trace --output",
    "mem measure words",
    "mem measure --at",
    "mem measure --stop-after",
    "mem measure --summary",
    "mem measure --snapshot",
}


class Captured(Exception):
    """Carries the options out of the command."""


def runs() -> Iterator[Any]:
    group = typer.main.get_command(make_app([]))
    for command in COMMANDS:
        found: Any = group
        for word in command.name.split():
            found = getattr(found, "commands", {}).get(word)
        if (
            found is None
            or load(command.report) is None
            or not dataclasses.is_dataclass(load(command.options) if command.options else None)
        ):
            continue
        for parameter in found.params:
            if f"{command.name} {parameter.opts[0]}" in ELSEWHERE:
                continue
            if parameter.name not in OUTPUT and not (parameter.name or "").startswith("_"):
                yield pytest.param(command, found, parameter, id=f"{command.name} {parameter.opts[0]}")


def options_of(command: Command, found: Any, words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The fields of the options that the words lead to, by their path such as left.config."""

    def capture(options: Any, *_: Any, **__: Any) -> Any:
        raise Captured(options)

    module, name = command.report.split(":")
    monkeypatch.setattr(import_module(f"llmdoctor.{module}"), name, capture)
    monkeypatch.setattr(sys, "argv", ["llmdoctor", *command.name.split(), *words])
    with pytest.raises(Captured) as caught:
        found.main(words, standalone_mode=False)
    return dict(leaves(caught.value.args[0]))


def leaves(options: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        name = f"{path}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{name}.")
        else:
            yield name, value


def words_for(parameter: Any, command: Command, mark: str) -> list[str]:
    """The words that give `parameter` a value, which `mark` tells from others of its type."""
    name = parameter.opts[0]
    is_argument = parameter.param_type_name == "argument"
    if getattr(parameter, "is_flag", False) and not is_argument:
        return [name]
    text = VALUES.get(f"{command.name} {name}", VALUES.get(name, ""))
    if not text:
        kind = parameter.type.name
        text = {"int": "5", "float": "0.5"}.get(kind.split()[0].replace("integer", "int"), f"{mark}{parameter.name}")
    return [text] if is_argument else [name, text]


def words_of(command: Command, found: Any, parameter: Any, mark: str) -> list[str]:
    """A whole command line: what the command needs, and `parameter` with `mark` unless that is "base-" and it may be left out."""
    words = list(NEEDED.get(command.name, []))
    for one in found.params:
        if one is parameter and (mark != "base-" or one.required):
            words += words_for(one, command, mark)
        elif one is not parameter and one.required:
            words += words_for(one, command, "base-")
    return words


@pytest.mark.parametrize(("command", "found", "parameter"), list(runs()))
def test_an_option_reaches_the_field_of_its_name(
    command: Command, found: Any, parameter: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    before = options_of(command, found, words_of(command, found, parameter, "base-"), monkeypatch)
    after = options_of(command, found, words_of(command, found, parameter, "given-"), monkeypatch)
    changed = {path for path in before if before[path] != after[path]}
    assert changed, f"{parameter.opts[0]} reaches no field"
    assert all(reached(parameter, path) for path in changed), f"{parameter.opts[0]} changes {sorted(changed)}"


def reached(parameter: Any, path: str) -> bool:
    """Whether the field `path` is the one of this option's name; `engine` and `engines` are the same name."""
    name = parameter.opts[0].lstrip("-").replace("-", "_").lower()
    if name in ("left", "right"):
        return path in (f"{name}.model", f"{name}.name") or (name, path) == ("left", "right.model")  # without RIGHT, LEFT is both
    names = {one.rstrip("s") for one in (name, FIELDS.get(name, name), parameter.name)}
    whole, last = path.replace(".", "_").rstrip("s"), path.rpartition(".")[2].rstrip("s")
    return whole in names or (last in names and not name.startswith(("left_", "right_")))


USAGE = {
    ("gencfg", "diff"): ("[OPTIONS] {LEFT} [right]", ["LEFT", "right"]),
    ("gencfg", "check"): ("[OPTIONS] {MODEL...}", ["MODEL..."]),
    ("gencfg", "presets"): ("[OPTIONS] [NAME]", ["[NAME]"]),
    ("check",): ("[OPTIONS] [PATH...]", ["[PATH...]"]),
}


@pytest.mark.parametrize("command", USAGE, ids=" ".join)
def test_an_argument_is_shown_by_its_name_in_every_release_of_typer(command: tuple[str, ...], llmdoctor: Any) -> None:
    """0.29 appends its Python type, and dots to what has some (seen with 0.27.3, 0.28.0 and 0.29.2)."""
    help = llmdoctor(*command, "--help").out
    usage, names = USAGE[command]
    assert f"llmdoctor {' '.join(command)} {usage}\n" in help
    section = help.partition("\nArguments:\n")[2].partition("\n\n")[0]
    assert [line[2:].partition("  ")[0] for line in section.splitlines() if line[2:3].strip()] == names

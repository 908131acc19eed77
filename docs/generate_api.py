"""Write llmdoctor/api.py and docs/api.md: a function for every command, with the fields of its options as keyword-only parameters.

docs/generate.py runs it. A command whose report function or options do not exist is left out.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmdoctor.commands import COMMANDS, Command, load

ROOT = Path(__file__).parent.parent
MODULE, PAGE = ROOT / "llmdoctor" / "api.py", ROOT / "docs" / "api.md"
TEXTS = ("tuple[str, ...]", "Sequence[str]")
HEAD = '''"""Every command as a function: options in, a report out.

Written by docs/generate_api.py from the options of each command; `make docs` renews it. A function raises QuestionError if its question cannot be
answered (exit 2 of the command); the sentence is the error's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmdoctor.printable import PrintableReport

__all__ = ({names})


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return `value` as a tuple; a single string is one item."""
    return (value,) if isinstance(value, str) else tuple(value)
'''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a function: its type and default as source text, and the expression that is passed on."""

    name: str
    type: str
    default: str | None
    expression: str

    def declared(self) -> str:
        """Return the parameter as it stands in a signature."""
        return f"{self.name}: {self.type}" + ("" if self.default is None else f" = {self.default}")


def present() -> tuple[Command, ...]:
    """Return the commands that can be called."""
    return tuple(
        one for one in COMMANDS if load(one.report) is not None and (not one.options or dataclasses.is_dataclass(load(one.options)))
    )


def parameters(options: Any, prefix: str = "", values: Any = dataclasses.MISSING) -> tuple[list[Parameter], str]:
    """Return the parameters for the fields of the dataclass `options`, and the call that builds it from them.

    A field that is itself a dataclass is replaced by its fields. If two fields have the same dataclass, as `left` and `right` of a diff, the
    names begin with the field's: `left` (its first field), `left_config`, ... `values` is an instance with the defaults of such a field.
    """
    found: list[Parameter] = []
    passed = []
    fields = dataclasses.fields(options)
    for number, field in enumerate(fields):
        name = field.name if not prefix else prefix if number == 0 else f"{prefix}_{field.name}"
        inner = nested_class(options, field)
        if inner is not None:
            twice = sum(one.type == field.type for one in fields) > 1
            nested, call = parameters(inner, field.name if twice else "", field.default)
            found += nested
            passed.append(f"{field.name}={call}")
            continue
        parameter = parameter_of(name, field)
        if values is not dataclasses.MISSING:
            parameter = dataclasses.replace(parameter, default=repr(getattr(values, field.name)))
        found.append(parameter)
        passed.append(f"{field.name}={parameter.expression}")
    return found, f"{options.__name__}({', '.join(passed)})"


def nested_class(options: Any, field: dataclasses.Field[Any]) -> Any:
    """Return the dataclass that is the type of a field of `options`; None for any other type."""
    found = vars(sys.modules[options.__module__]).get(str(field.type))
    return found if dataclasses.is_dataclass(found) else None


def parameter_of(name: str, field: dataclasses.Field[Any]) -> Parameter:
    """Return the parameter `name` for a field."""
    texts = field.type in TEXTS
    default = None if field.default is dataclasses.MISSING else repr(field.default)
    if field.default_factory is not dataclasses.MISSING:
        default = repr(field.default_factory())
    kind = "str | Sequence[str]" if texts else str(field.type)
    return Parameter(name=name, type=kind, default=default, expression=f"_texts({name})" if texts else name)


def signature(command: Command) -> tuple[list[Parameter], str]:
    """Return the parameters of a command's function, those without a default first, and the options it builds ("" without options)."""
    if command.options:
        found, call = parameters(load(command.options))
    else:
        names = inspect.signature(load(command.report)).parameters.values()
        found = [
            Parameter(
                name=one.name,
                type=str(one.annotation),
                default=None if one.default is one.empty else repr(one.default),
                expression=one.name,
            )
            for one in names
        ]
        call = ", ".join(f"{one.name}" for one in names)
    names_of = [one.name for one in found]
    if len(set(names_of)) < len(names_of):
        raise SystemExit(f"{command.name}: two fields of {command.options} have the same name")
    return sorted(found, key=lambda one: one.default is not None), call


def description(command: Command) -> str:
    """Return what the command answers, from its report function, and what its options mean, from their dataclass."""
    texts = [inspect.getdoc(load(command.report)) or ""]
    if command.options:
        options = load(command.options)
        classes = [one for one in reversed(options.__mro__) if dataclasses.is_dataclass(one)]
        nested = [nested_class(options, field) for field in dataclasses.fields(options)]
        classes += [one for one in dict.fromkeys(nested) if one is not None]
        texts += [inspect.cleandoc(one.__doc__ or "") for one in classes]
    return "\n\n".join(text for text in texts if text)


def function(command: Command) -> str:
    """Return the source of a command's function."""
    found, call = signature(command)
    star = ["*"] if found else []
    arguments = ", ".join([*star, *(one.declared() for one in found)])
    module, name = command.report.split(":")
    lines = [f"from llmdoctor.{module} import {name}"]
    if command.options:
        imported = sorted(set(re.findall(r"\b(\w+)\(", call)) - {"_texts"})
        classes = vars(sys.modules[load(command.options).__module__])
        lines = [f"from {classes[one].__module__} import {one}" for one in imported] + lines
    body = "\n".join(f"    {line}" for line in lines)
    doc = description(command).replace("\n", "\n    ").replace("\n    \n", "\n\n")
    doc += "\n    " if "\n" in doc else ""
    return (
        f'def {command.function}({arguments}) -> PrintableReport:\n    """{doc}"""\n{body}\n\n'
        f"    return PrintableReport.of({name}({call}))\n"
    )


def module_text() -> str:
    """Return the source of llmdoctor/api.py, before it is formatted."""
    names = "".join(f'"{command.function}", ' for command in present())
    return "\n\n".join([HEAD.replace("{names}", names), *(function(command) for command in present())])


def page_text(examples: dict[str, str]) -> str:
    """Return docs/api.md; `examples` holds the code to show by command."""
    return "\n".join([_PAGE_HEAD, *_sections(examples)])


_PAGE_HEAD = """# Python API

`import llmdoctor` imports nothing heavy; a function imports what its command needs. All parameters are keyword-only. Each function returns a
`PrintableReport`:

| attribute | what it holds |
|---|---|
| `verdict` | the answer: `text` and `status` (ok, problem, bound, undecided, refused) |
| `result` | the same values as `result` in the JSON report |
| `findings` | each with `code`, `severity`, `message`, `location`, `evidence`, `cause`, `fix` |
| `skipped` | what was not examined, and why |
| `to_text()`, `to_json()`, `to_html()`, `to_markdown()`, `to_sarif()` | the report in that format, as a string |

A notebook shows the HTML page. A question that cannot be answered raises `llmdoctor.QuestionError`, with the sentence that the command prints
before it exits with 2.

```python
import llmdoctor

report = llmdoctor.gencfg_show(model="chat")
print(report.verdict.text)
for finding in report.findings:
    print(finding.code, finding.location, finding.message)
```

## In your own process

`llmdoctor.recording(path=None)` is a context manager that records every generate() and every change to a generation config while it is open:
`with llmdoctor.recording() as run: ...`, then `run.report()` and `run.records`. `llmdoctor.TraceCallback(path)` returns the same recorder as a
callback for a transformers Trainer. The pytest fixture `generate_must_stop` is available once llmdoctor is installed: a test that uses it fails
if a generate() in it cannot stop.
"""


def _sections(examples: dict[str, str]) -> Iterator[str]:
    for command in present():
        found, _ = signature(command)
        declared = "".join(f"    {one.declared()},\n" for one in found)
        yield f"## llmdoctor.{command.function}\n\nThe command `llmdoctor {command.name}`.\n"
        star = "    *,\n" if found else ""
        yield f"```text\n{command.function}(\n{star}{declared}) -> PrintableReport\n```\n"
        yield description(command) + "\n"
        if command.name in examples:
            yield f"```python\n{examples[command.name].strip()}\n```\n"


def write(module: Path = MODULE, page: Path = PAGE) -> None:
    """Write both files; ruff formats the module."""
    sys.path.insert(0, str(Path(__file__).parent))
    from api_examples import EXAMPLES

    module.write_text(module_text(), encoding="utf-8")
    for words in (["format"], ["check", "--fix"], ["format"]):
        command = [sys.executable, "-m", "ruff", *words, "--quiet", "--config", str(ROOT / "pyproject.toml"), str(module)]
        subprocess.run(command, check=True)
    page.write_text(page_text(EXAMPLES), encoding="utf-8")


if __name__ == "__main__":
    write()

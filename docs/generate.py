"""Write the files that come from the code: docs/rules/*.md, docs/commands.md, the JSON schema of a report and the Python API.

`make docs` runs it, CI checks that it changes nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from generate_api import write as write_api

from llmdoctor.commands import COMMANDS as ALL_COMMANDS
from llmdoctor.core.rule import Rule
from llmdoctor.results import SCHEMA_FILE, schema_text
from llmdoctor.rules import all_rules

DOCS = Path(__file__).parent
NAMES = [command.name for command in ALL_COMMANDS]
GROUPS = dict.fromkeys(name.split()[0] for name in NAMES if " " in name)
COMMANDS = ("", *(name for group in GROUPS for name in (group, *(one for one in NAMES if one.startswith(f"{group} ")))),
            *(name for name in NAMES if " " not in name), "demo")  # fmt: skip


def main() -> None:
    rules = all_rules()
    folder = DOCS / "rules"
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.md"):
        stale.unlink()
    for rule in rules:
        (folder / f"{rule.code}.md").write_text(rule_page(rule))
    (folder / "index.md").write_text(index(rules))
    (DOCS / "commands.md").write_text(commands())
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
    write_api()


def rule_page(rule: Rule) -> str:
    """One rule's page, from the words `llmdoctor rule CODE` prints."""
    return (
        f"# {rule.code} {rule.name}\n\n{rule.summary}\n\nSeverity: {rule.severity.value}\n\n## Why it hurts\n\n{rule.reason}\n\n"
        f"## Bad\n\n```\n{rule.bad}\n```\n\n## Good\n\n```\n{rule.good}\n```\n\n## Fix\n\n{rule.fix}\n"
    )


def index(rules: tuple[Rule, ...]) -> str:
    """The list of all rules."""
    rows = "\n".join(f"| [{rule.code}]({rule.code}.md) | {rule.severity.value} | {rule.summary} |" for rule in rules)
    return f"# Rules\n\n| code | severity | looks for |\n|---|---|---|\n{rows}\n"


def commands() -> str:
    """Every command's help, as the command prints it at 100 columns."""
    parts = ["# Commands\n"]
    for command in COMMANDS:
        text = subprocess.run(
            [sys.executable, "-m", "llmdoctor", *command.split(), "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
        ).stdout.replace("python -m llmdoctor", "llmdoctor")
        parts.append(f"## llmdoctor {command}".rstrip() + f"\n\n```\n{text.strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()

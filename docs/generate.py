"""Write the files that come from the code: docs/rules/*.md, docs/commands.md, docs/versions.md, the JSON schema of a report and the Python API.

`make docs` runs it, CI checks that it changes nothing.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from generate_api import write as write_api
from generate_versions import write as write_versions

from llmdoctor.cli.app import make_app
from llmdoctor.commands import COMMANDS as ALL_COMMANDS
from llmdoctor.core.rule import Rule
from llmdoctor.results import SCHEMA_FILE, schema_text
from llmdoctor.rules import all_rules, silence

DOCS = Path(__file__).parent
NAMES = [command.name for command in ALL_COMMANDS]
GROUPS = dict.fromkeys(name.split()[0] for name in NAMES if " " in name)
COMMANDS = ("", *(name for group in GROUPS for name in (group, *(one for one in NAMES if one.startswith(f"{group} ")))),
            *(name for name in NAMES if " " not in name), "demo")  # fmt: skip
SITE = DOCS.parent / "mkdocs.yml"
_RULES = "- Rules: # docs/generate.py writes this list"
FAMILIES = {
    "DIR": "Files of a model directory that are missing, damaged or contradict each other.",
    "GEN": "Generation configs, recorded outputs and requests: whether decoding stops, and with which settings.",
    "LAB": "Training targets: what a trainer trains on, token by token.",
    "MEM": "Training memory and the configurations of trainers.",
    "MSK": "Attention masks: leaks, holes, rows without a key.",
    "PYC": "Call sites in Python, read by syntax tree.",
    "SMP": "Sampling: recorded tokens against claimed settings, and settings that nobody wrote.",
}


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
    SITE.write_text(navigation(SITE.read_text(), rules))
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
    write_api()
    write_versions()


def rule_page(rule: Rule) -> str:
    """Return one rule's page, from the words that `llmdoctor rule CODE` prints."""
    fixable = "by `llmdoctor check --fix` (some findings need `--unsafe-fixes`)" if rule.fixable else "by hand"
    return (
        f"# {rule.code} {rule.name}\n\n{rule.summary}\n\n| severity | fixable | since |\n|---|---|---|\n"
        f"| {rule.severity.value} | {fixable} | {rule.since} |\n\n## Why it hurts\n\n{rule.reason}\n\n"
        f"## Bad\n\n```\n{rule.bad}\n```\n\n## Good\n\n```\n{rule.good}\n```\n\n## Fix\n\n{rule.fix}\n\n"
        f"## How to silence it\n\n```\n{silence(rule)}\n```\n\n"
        "A [baseline](../ci.md#a-repository-with-existing-findings) accepts the findings that exist today.\n"
    )


def index(rules: tuple[Rule, ...]) -> str:
    """Return the list of all rules, one table per family."""
    parts = ["# Rules\n"]
    for family, members in itertools.groupby(rules, key=lambda rule: rule.code[:3]):
        rows = "\n".join(
            f"| [{rule.code}]({rule.code}.md) | {rule.severity.value} | {'yes' if rule.fixable else ''} | {rule.summary} |"
            for rule in members
        )
        parts.append(f"## {family}\n\n{FAMILIES[family]}\n\n| code | severity | fixable | looks for |\n|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def navigation(settings: str, rules: tuple[Rule, ...]) -> str:
    """Return the site's settings with one entry per rule, by family, under the line that ends in the words of _RULES."""
    head, _, rest = settings.partition(_RULES)
    after = rest[rest.index("      - Report formats:") :]
    lines = ["", "          - rules/index.md"]
    for family, members in itertools.groupby(rules, key=lambda rule: rule.code[:3]):
        lines += [f"          - {family}:", *(f"              - {rule.code} {rule.name}: rules/{rule.code}.md" for rule in members)]
    return head + _RULES + "\n".join(lines) + "\n" + after


def commands() -> str:
    """Return a page with every command: usage, description, and a definition list of arguments and options, which any width can show."""
    from typer.main import get_command

    parts = ["# Commands\n"]
    for command in COMMANDS:
        node = get_command(make_app(command.split()))
        context = node.make_context("llmdoctor", [], resilient_parsing=True)
        for word in command.split():
            node = node.get_command(context, word)
            context = node.make_context(word, [], parent=context, resilient_parsing=True)
        parts.append(_command_page(f"llmdoctor {command}".rstrip(), node, context))
    return "\n".join(parts)


def _command_page(name: str, node: Any, context: Any) -> str:
    usage = " ".join([name, *node.collect_usage_pieces(context)])
    entries = [record for parameter in node.get_params(context) if (record := parameter.get_help_record(context)) is not None]
    subcommands = [(f"{name} {one}", node.get_command(context, one).get_short_help_str(200)) for one in getattr(node, "commands", {})]
    listed = [f"`{names}`\n:   {text}\n" for names, text in entries]
    rows = [f"| [`{one}`](#{one.replace(' ', '-')}) | {text} |" for one, text in subcommands]
    table = "| command | answers |\n|---|---|\n" + "\n".join(rows) + "\n" if rows else ""
    about = "\n\n".join(" ".join(each.split()) for each in (node.help or "").split("\n\n"))
    return "\n".join(part for part in (f"## {name}\n", f"`{usage}`\n", f"{about}\n", table, *listed) if part)


if __name__ == "__main__":
    main()

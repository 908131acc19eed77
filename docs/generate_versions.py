"""Write docs/versions.md: which releases of each library were compared, how, when, and how much agreed. `docs/generate.py` runs it."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from llmdoctor.configs.deepspeed_releases import known_releases
from llmdoctor.core.release import release
from llmdoctor.gencfg.engines.table import engines
from llmdoctor.gencfg.trainers import preset_versions
from llmdoctor.modeldir.layerkinds import table

DOCS = Path(__file__).parent
COMPARED = DOCS.parent / "conformance" / "compared.json"
INTRODUCTION = """# Does it work with my versions?

An answer is for one release of a library, and says which: the one that you name (`--transformers 4.57.6`, `--engine vllm@0.10.2`,
`--deepspeed 0.16.9`), else the one that the repository of the subject pins, else the installed one, else the newest that the rules know.
Pins are read from requirements files, pyproject.toml with its groups, setup.cfg, setup.py, Pipfile, lock files of Poetry, uv, PDM and
Pipenv, conda environments, Dockerfiles and compose files, in the folder of the subject and those above it up to the root of the repository;
the nearest exact pin counts. A range is answered for the installed release if it allows that, else for the newest known one that it allows.
Pins that contradict each other, and a release outside of what the rules know, stand in the verdict.

This page is written from what the scripts in `conformance/` keep when they run (`make docs`). "Run" means that the library's own code ran,
and its outcome was compared with the answer; "read" means that its sources were read, and nothing was run.

## Run

| library | compared | releases | when | agreement |
|---|---|---|---|---|
"""


def write() -> None:
    """Write the page."""
    (DOCS / "versions.md").write_text(INTRODUCTION + "".join(compared()) + "\n" + "".join(read()))


def compared() -> list[str]:
    """Return a line for each comparison: its releases, and the agreement over all of them."""
    rows: list[dict[str, Any]] = json.loads(COMPARED.read_text(encoding="utf-8"))
    lines = []
    for (library, what), group in groupby(rows, key=lambda row: (row["library"], row["what"])):
        found = list(group)
        agreed, total = sum(row["agreed"] for row in found), sum(row["compared"] for row in found)
        days = sorted({row["when"] for row in found})
        when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        least = min(found, key=lambda row: row["agreed"] / max(1, row["compared"]))
        worst = f"; least in {least['release']}: {least['agreed']} of {least['compared']}" if agreed < total else ""
        lines.append(f"| {library} | {what} | {spans([row['release'] for row in found])} | {when} | {agreed:,} of {total:,}{worst} |\n")
    lines += [
        row(engine.title, engine.source, spans(engine.known), "", "every row of tests/gencfg agrees")
        for engine in engines().values()
        if engine.evidence == "measured" and engine.name not in {each["library"] for each in rows}
    ]
    agree = f"{len(table()['agree'])} model types agree"
    lines.append(row("transformers", "masks: what each layer and backend receives, by model type", str(table()["transformers"]), "", agree))
    return lines


def read() -> list[str]:
    """Return the table of what was read, from the tables of the package itself."""
    lines = ["## Read\n\n| library | what | releases | source |\n|---|---|---|---|\n"]
    for engine in engines().values():
        if engine.evidence == "read":
            lines.append(row(engine.title, "stop ids and defaults of a request", spans(engine.known), engine.source))
    known = spans(engines()["transformers"].known)
    trainers = spans(preset_versions("trl"))
    lines.append(row("transformers", "fields and defaults of GenerationConfig", known, "conformance/make_defaults.py"))
    lines.append(row("trl", "what trainers set on a model and pass to generate()", trainers, "conformance/make_presets.py"))
    lines.append(row("deepspeed", "settings and defaults of a config", spans(known_releases()), "conformance/make_deepspeed_releases.py"))
    return lines


def row(*cells: str) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |\n"


def spans(versions: Any) -> str:
    """Return releases in short: all of up to four, else the first, the last and the number."""
    ordered = sorted(versions, key=release)
    return ", ".join(ordered) if len(ordered) <= 4 else f"{ordered[0]} to {ordered[-1]} ({len(ordered)} releases)"

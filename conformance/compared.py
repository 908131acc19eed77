"""compared.json: what was compared with which release of a library, when, and how much agreed. The scripts write it, docs/versions.md shows it."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent / "compared.json"


def record(library: str, what: str, release: str, agreed: int, compared: int, how: str = "run") -> None:
    """Keep one count, instead of an earlier one of the same release; `how` is "run" or "read"."""
    rows: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else []
    rows = [row for row in rows if (row["library"], row["what"], row["release"]) != (library, what, release)]
    today = datetime.now(tz=timezone.utc).date().isoformat()
    rows.append({"library": library, "what": what, "release": release, "agreed": agreed, "compared": compared, "how": how, "when": today})
    rows.sort(
        key=lambda row: (row["library"], row["what"], [int(part) for part in row["release"].lstrip("vb").split(".") if part.isdigit()])
    )
    unfinished = FILE.with_suffix(".new")
    unfinished.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")
    os.replace(unfinished, FILE)

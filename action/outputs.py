"""The step's outputs, one NAME=VALUE a line, from the JSON report in a folder: `outputs.py FOLDER EXIT_CODE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(folder: Path, code: str) -> None:
    report = folder / "report.json"
    findings = json.loads(report.read_text())["findings"] if report.is_file() else []
    severities = [finding["severity"] for finding in findings]
    outputs = {"exit-code": code, "findings": len(findings), "errors": severities.count("error"), "warnings": severities.count("warning")}
    for name, file in (
        ("report", "report.json"),
        ("sarif", "report.sarif"),
        ("markdown", "report.md"),
        ("html", "report.html"),
        ("junit", "junit.xml"),
    ):
        outputs[name] = str(folder / file) if (folder / file).is_file() else ""
    print("\n".join(f"{name}={value}" for name, value in outputs.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

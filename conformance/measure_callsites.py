"""List every finding of the PYC rules in public code bases, each with its judgement, as docs/callsites-measured.md.

    python -m pip download --no-deps --only-binary :all: -d WHEELS trl peft accelerate ...
    python conformance/measure_callsites.py WHEELS [FOLDER ...] > docs/callsites-measured.md

Wheels are read as archives: nothing of them is installed, built or run. A FOLDER is one installed package. The judgements stand in
callsites_judgements.tsv (code base, file, code, true or false, why), for one file and rule together; a finding without one is listed as open,
and the exit status is 1.
"""

from __future__ import annotations

import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from llmdoctor.callsites.check import check_notebook, check_source  # noqa: E402


def main() -> int:
    """Print the page."""
    judged = {
        tuple(row[:3]): row[3:] for row in (line.split("\t") for line in (HERE / "callsites_judgements.tsv").read_text().splitlines())
    }
    bases: dict[str, int] = Counter()
    rows, verdicts = [], Counter[str]()
    for base, name, data in sorted(files([Path(argument) for argument in sys.argv[1:]]), key=lambda file: file[:2]):
        bases[base] += 1
        for finding in check_notebook(data, name) if name.endswith(".ipynb") else check_source(data, name):
            verdict, why = judged.get((base.rsplit(" ", 1)[0], name, finding.code), ["open", ""])
            verdicts[verdict] += finding.code != "PYC012"
            message = finding.message.replace("|", "\\|")
            line = finding.location.line if finding.location else None
            rows.append(f"| {base} | {name}:{line} | {finding.code} | {message} | {verdict} | {why} |")
    total = sum(verdicts.values())
    print("# The PYC rules on public code\n")
    print(
        f"{len(bases)} code bases, {sum(bases.values()):,} Python files and notebooks: {total} findings, {verdicts['true']} judged true, ",
        end="",
    )
    print(f"{verdicts['false']} false, {verdicts['open']} open. Precision {verdicts['true'] / max(total, 1):.0%}.\n")
    print((HERE / "callsites_measured.md").read_text())
    print("| code base | place | rule | finding | judged | why |\n|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n")
    print("## Code bases\n\n" + ", ".join(f"{base} ({count:,})" for base, count in sorted(bases.items())))
    return int(verdicts["open"] > 0)


def files(paths: list[Path]) -> Iterator[tuple[str, str, bytes]]:
    """Every Python file and notebook: the code base with its version, the name inside it, its bytes."""
    for path in paths:
        for wheel in sorted(path.glob("*.whl")):
            base = " ".join(wheel.name.split("-")[:2])
            with zipfile.ZipFile(wheel) as archive:
                for entry in archive.infolist():
                    if entry.filename.endswith((".py", ".ipynb")) and entry.file_size < 3_000_000:
                        yield base, entry.filename, archive.read(entry)
        for source in sorted(path.rglob("*.py")) if not any(path.glob("*.whl")) else []:
            yield f"{path.name} installed", f"{path.name}/{source.relative_to(path)}", source.read_bytes()


if __name__ == "__main__":
    sys.exit(main())

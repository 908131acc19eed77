"""List every finding of the PYC rules in public code bases, each with its judgement, as docs/callsites-measured.md.

    python -m pip download --no-deps --only-binary :all: -d WHEELS trl peft accelerate ...
    python -m pip download --no-deps --no-binary :all: -d SDISTS trl peft ...
    python conformance/measure_callsites.py --fitted WHEELS [FOLDER ...] --unseen OTHER_WHEELS --sources SDISTS > docs/callsites-measured.md

Wheels and source distributions (.tar.gz) are read as archives: nothing of them is installed, built or run. A FOLDER is one installed package. The
rules were narrowed on what is --fitted; what is --unseen was measured once they were settled; --sources hold tests too. The judgements stand in
callsites_judgements.tsv (code base, file, code, true or false, why), for one file and rule together; a finding without one is listed as open, and
the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from llmdoctor.callsites.check import check_notebook, check_source  # noqa: E402
from llmdoctor.core.finding import Severity  # noqa: E402

# Copies of code that is in the other sample.
COPIES = ("transformers_kt", "transformers_usf_om_vl_exp_v0", "transformers_v5_pre_rc0")
HEAD = "| code base | place | rule | finding | judged | why |\n|---|---|---|---|---|---|"


@dataclass
class Sample:
    """What was found in some code bases: files read of each, table rows, verdicts by rule."""

    bases: Counter[str] = field(default_factory=Counter)
    rows: list[str] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def precision(self) -> str:
        """The sentence."""
        good, total = self.verdicts["true"], sum(self.verdicts.values())
        share = f"precision {good / total:.0%}" if total else "nothing found"
        return (
            f"{len(self.bases)} code bases, {sum(self.bases.values()):,} Python files and notebooks: {total} warnings and errors, {good} judged true, "
            f"{self.verdicts['false']} false, {self.verdicts['open']} open: {share}. Notes (info), which a person is not shown: "
            f"{sum(self.notes.values())}, {self.notes['true']} judged true."
        )


def main() -> int:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fitted", type=Path, nargs="+", required=True)
    parser.add_argument("--unseen", type=Path, nargs="+", required=True)
    parser.add_argument("--sources", type=Path, nargs="+", required=True)
    options = parser.parse_args()
    lines = (HERE / "callsites_judgements.tsv").read_text().splitlines()
    judged = {tuple(row[:3]): row[3:] for row in (line.split("\t") for line in lines)}
    fitted, unseen, sources = (measure(paths, judged) for paths in (options.fitted, options.unseen, options.sources))
    print("# The PYC rules on public code\n")
    print(f"Code that the rules had not seen: {unseen.precision()}\n")
    print(f"Code that they were narrowed on: {fitted.precision()}\n")
    print(f"Source distributions, with tests: {sources.precision()}\n")
    print((HERE / "callsites_measured.md").read_text())
    for title, sample in (
        ("Findings in unseen code", unseen),
        ("Findings in the code the rules were narrowed on", fitted),
        ("Findings in source distributions, with tests", sources),
    ):
        print(f"## {title}\n\n{HEAD}\n" + "\n".join(sample.rows) + "\n")
    for title, sample in (
        ("Code bases, unseen", unseen),
        ("Code bases, narrowed on", fitted),
        ("Source distributions, with tests", sources),
    ):
        print(f"## {title}\n\n" + ", ".join(f"{base} ({count:,})" for base, count in sorted(sample.bases.items())) + "\n")
    return int(any(count["open"] for sample in (fitted, unseen, sources) for count in (sample.verdicts, sample.notes)))


def measure(paths: list[Path], judged: dict[tuple[str, ...], list[str]]) -> Sample:
    """Every finding with its judgement."""
    sample = Sample()
    for base, name, data in sorted(files(paths), key=lambda file: file[:2]):
        sample.bases[base] += 1
        for finding in check_notebook(data, name) if name.endswith(".ipynb") else check_source(data, name):
            verdict, why = judged.get((base.rsplit(" ", 1)[0], name, finding.code), ["open", ""])
            if finding.code != "PYC012":
                (sample.notes if finding.severity is Severity.INFO else sample.verdicts)[verdict] += 1
            message = finding.message.replace("|", "\\|")
            line = finding.location.line if finding.location else None
            sample.rows.append(f"| {base} | {name}:{line} | {finding.code} | {message} | {verdict} | {why} |")
    return sample


def files(paths: list[Path]) -> Iterator[tuple[str, str, bytes]]:
    """Every Python file and notebook: the code base with its version, the name inside it, its bytes."""
    for path in paths:
        for wheel in sorted(path.glob("*.whl")):
            base = " ".join(wheel.name.split("-")[:2])
            if base.split()[0] in COPIES:
                continue
            with zipfile.ZipFile(wheel) as archive:
                for entry in archive.infolist():
                    if entry.filename.endswith((".py", ".ipynb")) and entry.file_size < 3_000_000:
                        yield base, entry.filename, archive.read(entry)
        for archive in sorted(path.glob("*.tar.gz")):
            base = " ".join(archive.name.removesuffix(".tar.gz").rsplit("-", 1))
            with tarfile.open(archive) as packed:
                for member in packed:
                    if member.isfile() and member.name.endswith((".py", ".ipynb")) and member.size < 3_000_000:
                        yield base, member.name.partition("/")[2], cast(IO[bytes], packed.extractfile(member)).read()
        for source in sorted(path.rglob("*.py")) if not any((*path.glob("*.whl"), *path.glob("*.tar.gz"))) else []:
            yield f"{path.name} installed", f"{path.name}/{source.relative_to(path)}", source.read_bytes()


if __name__ == "__main__":
    sys.exit(main())

"""List every finding of `check` in the configurations and requests of public packages, each with its judgement, as docs/check-measured.md.

    python -m pip download --no-deps --no-binary :all: -d SOURCES deepspeed axolotl trl ms-swift ...
    python conformance/measure_files.py SOURCES > docs/check-measured.md

Archives are read, nothing of them is built or run: JSON, JSON Lines, YAML and training_args.bin are written to a scratch folder and checked there.
The judgements stand in files_judgements.tsv (package, file, code, true or false, why), for one file and rule together. A warning or an error
without one is listed as open, and the exit status is 1.
"""

from __future__ import annotations

import os
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from llmdoctor.check.check import check_report  # noqa: E402
from llmdoctor.check.options import CheckOptions  # noqa: E402
from llmdoctor.files.project import ProjectSettings  # noqa: E402

WANTED = (".json", ".jsonl", ".yaml", ".yml", "training_args.bin")
LARGEST = 8 * 2**20
PYTHON = ProjectSettings(ignore=("PYC", "DIR", "GEN00", "GEN010", "GEN011", "GEN012", "GEN013"))  # measured elsewhere


def main() -> int:
    """Print the page."""
    lines = (HERE / "files_judgements.tsv").read_text().splitlines()
    judged = {tuple(line.split("\t")[:3]): line.split("\t")[3:] for line in lines if line}
    packages, rows, kinds, verdicts, seen = [], [], Counter[str](), Counter[str](), 0
    for archive in sorted(Path(sys.argv[1]).iterdir()):
        with tempfile.TemporaryDirectory() as scratch:
            count = unpack(archive, Path(scratch))
            if not count:
                continue
            seen += count
            name = archive.name.removesuffix(".tar.gz").removesuffix(".zip")
            name = " ".join(name.split("-")[:2]) if archive.suffix == ".whl" else " ".join(name.rsplit("-", 1))
            os.chdir(scratch)
            report = check_report(CheckOptions(paths=(".",)), PYTHON)
            subjects = [subject["kind"] for subject in (report.result or {})["subjects"]]
            kinds.update(subjects)
            packages.append(f"{name} ({count:,}, {len(subjects)} checked)")
            for finding in report.findings:
                file = finding.location.file if finding.location else ""
                verdict, why = judged.get((name.split(" ")[0], file, finding.code), ["open", ""])
                if finding.severity.value == "info" and verdict == "open":
                    verdict = "note"
                verdicts[verdict] += 1
                line = finding.location.line if finding.location else None
                message = finding.message.replace("|", "\\|")
                rows.append(f"| {name} | {file}:{line} | {finding.code} | {finding.severity.value} | {message} | {verdict} | {why} |")
            os.chdir(HERE)
    print("# What `check` finds in public configurations\n")
    print(f"{len(packages)} packages, {seen:,} JSON, JSON Lines and YAML files; {sum(kinds.values())} of them are checked: ", end="")
    print(", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())) + ".\n")
    print(f"{len(rows)} findings: {', '.join(f'{count} {verdict}' for verdict, count in sorted(verdicts.items()))}.\n")
    print((HERE / "files_measured.md").read_text())
    print("## Findings in packages\n")
    print("| package | place | rule | severity | finding | judged | why |\n|---|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n")
    print("## Packages\n\n" + ", ".join(packages))
    return int(verdicts["open"] > 0)


def unpack(archive: Path, folder: Path) -> int:
    """Write what is wanted of an archive below `folder`; how many files that were."""
    count = 0
    for name, data in members(archive):
        target = folder / Path(*[part for part in Path(name).parts if part not in ("..", "/")])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        count += 1
    return count


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files that are wanted; a source distribution's own top folder is left off."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as file:
            for entry in file.infolist():
                if entry.filename.endswith(WANTED) and entry.file_size < LARGEST:
                    yield entry.filename, file.read(entry)
    elif archive.name.endswith(".tar.gz"):
        with tarfile.open(archive) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() and member.name.endswith(WANTED) and member.size < LARGEST else None
                if content is not None:
                    yield member.name.partition("/")[2], content.read()


if __name__ == "__main__":
    sys.exit(main())

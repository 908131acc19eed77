"""`check --fix` and `--diff`: the edits that findings bring along, made in the files or shown."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llmdoctor.core.document import Note
from llmdoctor.core.edit import Edit
from llmdoctor.core.finding import Finding
from llmdoctor.core.report import Report, Skipped
from llmdoctor.core.text import clean_lines, defuse
from llmdoctor.files.jsonfile import read_optional
from llmdoctor.files.rewrite import rewrite
from llmdoctor.files.writing import rewrite_file


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Fixed:
    """A file before and after its edits, of which `edits` were made."""

    path: str
    before: str
    after: str
    edits: tuple[Edit, ...]

    def diff(self) -> str:
        """What changes, as `patch -p1` takes it."""
        return "".join(_lines(difflib.unified_diff(_split(self.before), _split(self.after), f"a/{self.path}", f"b/{self.path}")))

    def write(self) -> None:
        """Put the new text in the place of the old one. Raises QuestionError, with nothing written, if the file has changed in between."""
        rewrite_file(Path(self.path), self.before.encode("utf-8"), self.after.encode("utf-8"))


def with_fixable(report: Report) -> Report:
    """`report`, which also says how many of its findings --fix would mend."""
    safe = sum(any(edit.safe for edit in each.edits) for each in report.findings)
    unsafe = sum(bool(each.edits) and not any(edit.safe for edit in each.edits) for each in report.findings)
    result = {**(report.result or {}), "fixable": {"safe": safe, "unsafe": unsafe}}
    said = [f"{safe} with --fix"] if safe else []
    said += [f"{unsafe} with --fix --unsafe-fixes"] if unsafe else []
    blocks = list(report.document)
    if said:
        last = bool(blocks) and isinstance(blocks[-1], Note) and blocks[-1].label == "NEXT"
        blocks.insert(len(blocks) - last, Note("FIXABLE", f"{', '.join(said)}; --diff shows how", "dim"))
    return replace(report, result=result, document=tuple(blocks))


def mend(check: Callable[[], Report], unsafe: bool) -> Report:
    """Make the edits of what `check` finds, in the files, and check again: the report is about what is left."""
    first = check()
    changed, skipped = fixed(planned(first.findings, unsafe))
    for file in changed:
        file.write()
    if not changed:
        return replace(first, skipped=(*first.skipped, *skipped), result={**(first.result or {}), "fixed": []})
    left = check()
    made = [{"file": file.path, "pointer": edit.pointer, "action": edit.action} for file in changed for edit in file.edits]
    files = "\n".join(f"{file.path}: {', '.join(edit.pointer for edit in file.edits)}" for file in changed)
    verdict, *rest = left.document
    return replace(
        left,
        result={**(left.result or {}), "fixed": made},
        skipped=(*left.skipped, *skipped),
        document=(verdict, Note("FIXED", files, "good"), *rest),
    )


def diff(report: Report, unsafe: bool) -> tuple[str, list[Skipped]]:
    """What --fix would change of what was found as one patch, empty where it would change nothing, and what it would leave alone."""
    changed, skipped = fixed(planned(report.findings, unsafe))
    patches = []
    for file in changed:
        patch = file.diff()
        visible = patch.replace("\r\n", "\n").replace("\t", " ")
        if defuse(clean_lines(visible)) == visible:
            patches.append(patch)
        else:  # a patch has to hold what the file holds, and a terminal must not get it
            skipped.append(Skipped(file.path, "not shown: there are control characters beside what would change; --fix can edit it"))
    return "".join(patches), skipped


def planned(findings: Sequence[Finding], unsafe: bool) -> dict[str, tuple[Edit, ...]]:
    """The edits by file, the worst finding's first; two that would change the same place are not both made."""
    out: dict[str, dict[tuple[str, bool], Edit]] = {}
    for finding in sorted(findings, key=lambda each: -each.severity.rank):
        for edit in finding.edits:
            if edit.safe or unsafe:
                out.setdefault(edit.file, {}).setdefault((edit.pointer, edit.action == "last"), edit)
    return {file: tuple(edits.values()) for file, edits in sorted(out.items())}


def fixed(plan: dict[str, tuple[Edit, ...]]) -> tuple[list[Fixed], list[Skipped]]:
    """The files with their edits made, nothing written yet, and those that are left as they are."""
    done, skipped = [], []
    for path, edits in plan.items():
        if os.path.islink(path):
            skipped.append(Skipped(path, "a link, not edited: what it leads to may be others' too (a hub cache)"))
            continue
        file = read_optional(path)
        if file is None or file.value is None:
            skipped.append(Skipped(path, "not edited: it cannot be read"))
            continue
        after, made = rewrite(file.text, edits)
        if after != file.text:
            done.append(Fixed(path, file.text, after, made))
    return done, skipped


def _split(text: str) -> list[str]:
    """Lines with only \\n ending one, as patch has it: a JSON string may hold other line separators."""
    return [line + "\n" for line in text.split("\n")[:-1]] + ([text.rsplit("\n", 1)[-1]] if not text.endswith("\n") else [])


def _lines(diff: Iterator[str]) -> Iterator[str]:
    for line in diff:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"

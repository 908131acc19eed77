"""What `check` can be asked."""

from __future__ import annotations

from dataclasses import dataclass

from llmdoctor.core.errors import QuestionError


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """The options of `check`.

    `paths` are folders and files. `select` and `ignore` are prefixes of rule codes, as the user wrote them. `baseline` is the file of the
    findings that are accepted, `write_baseline` the file to write them to. `fix` changes the files, `unsafe_fixes` also makes the fixes
    that change a behaviour on which a user may rely. `allow_nothing` accepts a tree without anything to check. `stdin_filename` is the file
    whose content an editor passes on standard input: it is the only path, and it need not exist.
    """

    paths: tuple[str, ...] = (".",)
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    baseline: str | None = None
    write_baseline: str | None = None
    fix: bool = False
    unsafe_fixes: bool = False
    allow_nothing: bool = False
    stdin_filename: str | None = None

    def refuse_contradictions(self, *, diff: bool = False) -> None:
        """Raise QuestionError if an option has no effect beside the others; `diff` if a patch is shown instead of a report."""
        if self.stdin_filename is not None and (self.fix or diff or self.write_baseline is not None):
            raise QuestionError(
                "--stdin-filename reads what is not saved yet: it cannot be combined with --fix, --diff or --write-baseline"
            )
        if self.unsafe_fixes and not (self.fix or diff):
            raise QuestionError("--unsafe-fixes has no effect without --fix or --diff")
        if diff and (self.fix or self.write_baseline is not None):
            raise QuestionError("--diff writes nothing: it cannot be combined with --fix or --write-baseline")
        if self.baseline is not None and self.write_baseline is not None:
            raise QuestionError("--write-baseline records every finding: it cannot be combined with --baseline")

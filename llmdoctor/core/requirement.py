"""Requirements as packages write them ("transformers[torch]>=4.45,<5; python_version >= '3.10'"), and which releases they allow.

Only the numbers of a release are compared (core/release.py): a release candidate counts as its release. Conda's and Poetry's spellings are read too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmdoctor.core.release import release

_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(.*)", re.DOTALL)
_CLAUSE = re.compile(r"(===|==|~=|!=|>=|<=|>|<|=|\^|~)?\s*v?(\d[A-Za-z0-9.+_-]{0,63}?(?:\.\*)?|\*)")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A requirement on one distribution: `name` as PEP 503 normalises it, `clauses` as (operator, version), `text` as it was written.

    `marker` is the condition after ";", "" without one. No clause means that any release is allowed.
    """

    name: str
    clauses: tuple[tuple[str, str], ...]
    text: str
    marker: str = ""

    @property
    def exact(self) -> str | None:
        """Return the one release that the requirement allows; None if it allows several."""
        pinned = [version for operator, version in self.clauses if operator in ("==", "===") and not version.endswith(".*")]
        return pinned[0] if len(pinned) == 1 else None

    def allows(self, version: str) -> bool:
        """Return whether the requirement allows a release."""
        return all(_satisfies(release(version), operator, wanted) for operator, wanted in self.clauses)


def normalised(name: str) -> str:
    """Return the name of a distribution as an index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_requirement(text: str) -> Requirement | None:
    """Return the requirement that `text` is; None if it is none that names versions (a path, a URL, an option)."""
    main, _, marker = text.partition(";")
    main = main.split(" --")[0].strip()  # --hash=...
    found = _REQUIREMENT.fullmatch(main)
    if found is None or " @ " in main or "://" in main or "/" in found[1]:
        return None
    clauses = clauses_of(found[2].strip())
    return None if clauses is None else Requirement(normalised(found[1]), clauses, main, marker.strip())


def clauses_of(text: str, bare: str = "==") -> tuple[tuple[str, str], ...] | None:
    """Return the clauses of ">=4.45,<5"; `bare` is the operator of a version without one. None if the text is of another kind."""
    out: list[tuple[str, str]] = []
    for part in text.strip("() ").split(","):
        if not part.strip():
            continue
        found = _CLAUSE.fullmatch(part.strip())
        if found is None:
            return None
        operator, version = found[1] or bare, found[2]
        if version == "*":
            continue
        if operator == "=":  # conda: 4.50 means 4.50.*
            operator, version = "==", version if version.endswith(".*") or version.count(".") >= 2 else f"{version}.*"
        out.append((operator, version))
    return tuple(out)


def _satisfies(version: tuple[int, ...], operator: str, wanted: str) -> bool:
    numbers = release(wanted)
    if wanted.endswith(".*"):
        given = tuple(int(part) for part in wanted[:-2].split(".") if part.isdigit())
        same = version[: len(given)] == given
        return not same if operator == "!=" else same
    left, right = _padded(version, numbers)
    if operator in ("==", "==="):
        return left == right
    if operator == "!=":
        return left != right
    if operator in ("~=", "^", "~"):
        return left >= right and version[: len(kept := _kept(operator, wanted))] == kept
    return {">=": left >= right, "<=": left <= right, ">": left > right, "<": left < right}[operator]


def _padded(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    width = max(len(left), len(right))
    return left + (0,) * (width - len(left)), right + (0,) * (width - len(right))


def _kept(operator: str, wanted: str) -> tuple[int, ...]:
    """Return the leading numbers that ~=, Poetry's ^ and Poetry's ~ keep."""
    found = re.match(r"\d+(\.\d+)*", wanted)
    parts = tuple(int(part) for part in found.group().split(".")) if found else ()
    if operator == "~=":
        return parts[:-1]
    if operator == "~":
        return parts[:2]
    first = next((at for at, number in enumerate(parts) if number), len(parts) - 1)
    return parts[: first + 1]

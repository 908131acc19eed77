"""`result` of `llmdoctor check`."""

from __future__ import annotations

from typing import Any, TypedDict

from typing_extensions import NotRequired


class CheckedSubject(TypedDict):
    """One thing that was checked. Some kinds have further keys: those of `result.subjects` of `gencfg check`."""

    path: str
    kind: str  # such as "model", "adapter", "python", "DeepSpeed config", "request"
    findings: list[int]  # indices into `findings` of the report


class FixableCount(TypedDict):
    """The number of findings that have a fix."""

    safe: int  # with --fix
    unsafe: int  # with --fix --unsafe-fixes


class FixedPlace(TypedDict):
    """A change that --fix made."""

    file: str
    pointer: str  # JSON pointer
    action: str  # "set", "remove" or "last" (earlier duplicates of the key were removed)


CheckSettings = TypedDict(
    "CheckSettings",
    {
        "select": list[str],
        "ignore": list[str],
        "exclude": list[str],
        "fail-on": str,
        "baseline": str | None,
        "transformers": str,
        "gpu-memory": int | None,
        "per-path-ignores": dict[str, list[str]],
    },
)


class CheckResult(TypedDict):
    """What was checked. `fixed` is present with --fix, `settings` with --show-settings, which checks nothing."""

    subjects: list[dict[str, Any]]  # of the shape of CheckedSubject
    in_baseline: NotRequired[int]  # findings that the baseline accepts, and that are not in `findings`
    fixable: NotRequired[FixableCount]
    fixed: NotRequired[list[FixedPlace]]
    settings: NotRequired[CheckSettings]

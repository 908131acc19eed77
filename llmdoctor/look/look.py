"""`llmdoctor look PATH`, and `llmdoctor` without a command: what a path is, and which commands answer a question about it."""

from __future__ import annotations

import os
import platform

from llmdoctor.core.report import Report, Verdict
from llmdoctor.look.env import gpus, versions_of
from llmdoctor.look.options import LookOptions
from llmdoctor.look.recognise import recognise
from llmdoctor.look.results import LookResult
from llmdoctor.look.screen import document
from llmdoctor.look.types import Recognised
from llmdoctor.version import __version__

_LIBRARIES = ("transformers", "torch", "trl", "deepspeed")


def look_report(options: LookOptions) -> Report:
    """Return what `options.path` is. Raises QuestionError if nothing of that name can be read."""
    found = recognise(options.path)
    name = os.path.normpath(options.path)
    result = _result(found)
    rows: list[tuple[str, str]] = []
    if options.versions:
        installed = versions_of(_LIBRARIES)
        result["versions"], result["gpus"] = {"llmdoctor": __version__, **installed}, gpus()
        rows = [("llmdoctor", __version__), ("python", platform.python_version())]
        rows += [(library, version or "not installed") for library, version in installed.items()]
        rows.append(("gpu", ", ".join(gpus()) or "none found"))
    subject = "The current folder" if name == "." else name
    return Report(
        "look",
        subject={"path": name},
        result=result,
        document=document(found, tuple(rows)),
        verdict=Verdict(f"{subject} is {found.what}."),
    )


def _result(found: Recognised) -> LookResult:
    return {
        "kind": found.kind,
        "what": found.what,
        "evidence": [{"name": name, "value": value} for name, value in found.evidence],
        "commands": [{"command": one.command, "answers": one.answers} for one in found.suggestions],
        "inside": found.inside or {},
    }

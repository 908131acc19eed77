"""The demo's part about training targets: a pad token that is the end token, the audit that finds it, and real training both ways."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from llmdoctor.core.report import Report
from llmdoctor.labels.audit import audit_report
from llmdoctor.labels.options import LabelsOptions

DATA, BAD = "talks.jsonl", "pad-is-the-end"
PROMPT = "Describe this image."
COMMAND = f"llmdoctor labels audit {BAD} {DATA} --trainer transformers-clm"
END = "<|im_end|>"


def prepare(model: str) -> list[list[dict[str, str]]]:
    """Write the conversations, and a copy of the tokenizer whose pad token is the end token; return the conversations."""
    talks = []
    for size in ("small", "big", "round"):
        answer = f"The picture shows one {size} red shape on white."
        talks.append([{"role": "user", "content": PROMPT}, {"role": "assistant", "content": answer}])
    Path(DATA).write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    shutil.copytree(model, BAD, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    config = Path(BAD) / "tokenizer_config.json"
    value = json.loads(config.read_text())
    value["pad_token"] = END
    config.write_text(json.dumps(value, indent=2) + "\n")
    return talks


def audit() -> Report:
    """Return what the audit reports of the tokenizer whose pad token is the end token."""
    return audit_report(LabelsOptions(model=BAD, data=DATA, trainer="transformers-clm"))


def pad_of(report: Report) -> str | None:
    """Return the pad token that the fix of LAB001 names; None if the finding or such a fix is missing."""
    fixes = [finding.fix or "" for finding in report.findings if finding.code == "LAB001"]
    found = re.search(r'tokenizer\.pad_token = "(.+)"', "\n".join(fixes))
    return found and found[1]

"""The chat templates that TRL replaces under assistant_only_loss: llmdoctor/labels/trl_templates.json.

    python conformance/make_trl_templates.py UNPACKED...

Each UNPACKED is a folder with one release of trl (pip install --no-deps --target UNPACKED trl==VERSION). Writes the sha256 of each template
for which that release has a `*_training.jinja`, with its name and the first release that has it. No text of a template is stored.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

OUT = Path(__file__).parents[1] / "llmdoctor/labels/trl_templates.json"


def version_of(folder: Path) -> tuple[int, ...]:
    name = next(folder.glob("trl-*.dist-info")).name
    return tuple(map(int, name.removeprefix("trl-").removesuffix(".dist-info").split(".")))


def main() -> int:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    found: dict[str, dict[str, str]] = {}
    for folder in sorted(map(Path, sys.argv[1:]), key=version_of):
        since = ".".join(map(str, version_of(folder)))
        for training in sorted(folder.glob("trl/chat_templates/*_training.jinja")):
            known = training.with_name(training.name.replace("_training", ""))
            if known.exists():
                digest = hashlib.sha256(known.read_bytes()).hexdigest()
                found.setdefault(digest, {"name": known.stem, "since": since})
    OUT.write_text(json.dumps({"source": "trl/chat_templates", "templates": found}, indent=1) + "\n")
    print(f"{OUT}: {len(found)} templates")
    return 0


if __name__ == "__main__":
    sys.exit(main())

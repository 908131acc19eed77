"""Compare gencfg's callers.json with the sources that it was read from: each recorded line must hold the field.

    pip download --no-deps -d WHEELS lm_eval lighteval verl openrlhf llamafactory axolotl
    python conformance/check_callers.py WHEELS

Prints one line per library: the version, and how many of its lines agree. Exits 1 if any does not.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

CALLERS = Path(__file__).resolve().parent.parent / "llmdoctor" / "gencfg" / "callers.json"
OTHER_NAMES = {"max_new_tokens": ("max_tokens",), "min_new_tokens": ("min_tokens",)}


def main(folder: Path) -> int:
    """Compare every library whose wheel lies in `folder`."""
    wrong = 0
    for library, entry in json.loads(CALLERS.read_text()).items():
        version = entry["versions"][-1]
        wheel = next(folder.glob(f"{library}-{version}-*.whl"), None)
        if wheel is None:
            print(f"{library} {version}: no wheel in {folder}")
            continue
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            agree = total = 0
            for preset in entry["presets"].values():
                for record in preset["records"]:
                    member = next(name for name in names if name.endswith(record["file"]))
                    line = archive.read(member).decode().split("\n")[next(iter(record["lines"].values())) - 1]
                    words = (record["field"], *OTHER_NAMES.get(record["field"], ()), "generating_args.to_dict()")
                    total += 1
                    agree += any(word in line for word in words)
        wrong += total - agree
        print(f"{library} {version}: {agree} of {total} lines agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""Hold the vLLM entry of gencfg against the SamplingParams of each release, run.

    pip download --no-deps -d DIR vllm==0.10.2 && unzip -q DIR/vllm-0.10.2*.whl 'vllm/sampling_params.py' -d DIR/vllm-0.10.2
    python conformance/compare_vllm.py [--write] DIR

Each DIR/vllm-VERSION/vllm/sampling_params.py is run in a process of its own by make_vllm_rows.py, with 360 sets of parameters, and every outcome is
compared with effective_vllm(): the values, or the type of the exception and its message. --write keeps the rows of single parameters in
tests/gencfg/vllm_releases.jsonl, releases that did the same together, and the counts in conformance/compared.json. Exit status 1 if a row differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from conformance.compared import record  # noqa: E402
from llmdoctor.core.release import release as numbers  # noqa: E402
from llmdoctor.gencfg.engines.vllm import effective_vllm  # noqa: E402
from llmdoctor.gencfg.types import GenerateCall, Origin, SourcedValue  # noqa: E402

DATA = HERE.parent / "tests" / "gencfg" / "vllm_releases.jsonl"
NAMES = {"n": "num_return_sequences", "max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens"}


def main() -> int:
    """Compare every release in the folder of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    versions = sorted((path.name.removeprefix("vllm-") for path in chosen.folder.glob("vllm-*")), key=numbers)
    failed = False
    rows: dict[str, list[dict[str, Any]]] = {}
    for version in versions:
        file = chosen.folder / f"vllm-{version}" / "vllm" / "sampling_params.py"
        done = subprocess.run([sys.executable, str(HERE / "make_vllm_rows.py"), str(file)], check=True, capture_output=True, text=True)
        rows[version] = [json.loads(line) for line in done.stdout.splitlines()]
        wrong = [(row, difference) for row in rows[version] if (difference := differs(row, version))]
        for row, difference in wrong[:5]:
            print(f"  {version} {row['given']}: {difference}")
        print(f"{version}: {len(rows[version]) - len(wrong)} of {len(rows[version])} agree", flush=True)
        failed |= bool(wrong)
        if chosen.write:
            record("vllm", "values and refusals of SamplingParams", version, len(rows[version]) - len(wrong), len(rows[version]))
    if chosen.write:
        write(rows)
    return int(failed)


def differs(row: dict[str, Any], version: str) -> str | None:
    """Return how effective_vllm() differs from a row, in a clause; None if it agrees. Stop ids are compared by tests/gencfg/test_vllm.py."""
    user = {name: SourcedValue(value, Origin("user-config", name)) for name, value in row["given"].items()}
    effective = effective_vllm(
        GenerateCall(config={}, user_config=user), tokenizer_eos=None, max_model_len=4096, entrypoint="generate", version=version
    )
    seen, found = row.get("error"), effective.error
    if (seen is None) != (found is None):
        return f"{found and found.message!r} instead of {seen and seen['message']!r}"
    if seen is not None and found is not None:
        same = seen["type"] == found.type and (seen["message"] == found.message or seen["type"] == "TypeError")
        return None if same else f"{found.type} {found.message!r} instead of {seen['type']} {seen['message']!r}"
    wrong = [name for name, value in row["values"].items() if effective.fields.value(NAMES.get(name, name)) != value]
    return ", ".join(f"{name} {effective.fields.value(NAMES.get(name, name))} instead of {row['values'][name]}" for name in wrong) or None


def write(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Keep the rows of at most one parameter: a line for each, with the outcomes and the releases that had them."""
    lines = []
    for index, first in enumerate(next(iter(rows.values()))):
        if len(first["given"]) > 1:
            continue
        outcomes: list[dict[str, Any]] = []
        for version, found in rows.items():
            outcome = {name: value for name, value in found[index].items() if name in ("values", "error")}
            same = next((each for each in outcomes if {**each, "versions": 0} == {**outcome, "versions": 0}), None)
            if same is None:
                outcomes.append({"versions": [version], **outcome})
            else:
                same["versions"].append(version)
        lines.append(json.dumps({"given": first["given"], "outcomes": outcomes}, separators=(",", ":")))
    DATA.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())

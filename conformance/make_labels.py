"""Rows of labels from a real TRL release: what its trainers give to their model for a dataset and a configuration.

    python conformance/make_labels.py 0.17.0 -o rows.jsonl [--transformers 4.51.3] [--models DIR] [--keep ENVIRONMENT] [--trainer trl-sft]

Makes a throw-away environment with that release (pip, CPU torch), runs the real trainers (labels_worker.py) over every scenario of
labels_scenarios.py with every tokenizer of DIR (default: tests/labels/models; make_label_models.py makes others) or, with --each N, with N of
them in turn, and writes one row a line: {"id", "trainer", "version", "libraries", "model", "data", "config", "expected": {"rows": [{"ids",
"labels"}]} or {"error": class name}}. Compare with
`LABELS_ROWS=rows.jsonl LABELS_MODELS=DIR pytest tests/labels/test_rows.py`. Nothing here imports llmdoctor.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from labels_scenarios import SCENARIOS

ROOT = Path(__file__).parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="the trl release")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--transformers", help="a transformers release; default: the newest that trl accepts")
    parser.add_argument("--models", type=Path, default=ROOT / "tests/labels/models")
    parser.add_argument("--trainer", help="only this trainer's scenarios")
    parser.add_argument("--each", type=int, help="how many of the models each scenario runs with; default: all")
    parser.add_argument("--keep", type=Path, help="the environment to make or to use again")
    parser.add_argument("--here", action="store_true", help="use the environment that runs this script")
    options = parser.parse_args()
    if options.output.exists():
        parser.error(f"{options.output} exists")
    with tempfile.TemporaryDirectory(prefix="llmdoctor-labels-") as folder:
        python = Path(sys.executable) if options.here else _environment(options.keep or Path(folder) / "venv", options)
        request, worker = Path(folder) / "request.json", Path(__file__).with_name("labels_worker.py")
        models = [str(path) for path in sorted(options.models.iterdir()) if (path / "config.json").exists()]
        wanted = [one for one in SCENARIOS if options.trainer in (None, one[0])]
        request.write_text(json.dumps({"runs": _runs(wanted, models, options.each, options.version)}))
        subprocess.run([str(python), str(worker), str(request), str(options.output)], stdout=sys.stderr, check=True)
    print(f"{options.output}: {len(options.output.read_text().splitlines())} rows")
    return 0


def _runs(scenarios: list[Any], models: list[str], each: int | None, version: str) -> list[Any]:
    """Return (scenario, model) pairs; with `each`, the models take turns, from another one on for each release."""
    if each is None:
        return [(*scenario, model) for scenario in scenarios for model in models]
    start = sum(map(ord, version))
    return [
        (*scenario, models[(start + number * each + turn) % len(models)])
        for number, scenario in enumerate(scenarios)
        for turn in range(each)
    ]


def _environment(folder: Path, options: argparse.Namespace) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        wanted = [f"trl=={options.version}", "torch", "datasets", "accelerate"]
        wanted.append(f"transformers=={options.transformers}" if options.transformers else "transformers")
        subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True)
    return python


if __name__ == "__main__":
    sys.exit(main())

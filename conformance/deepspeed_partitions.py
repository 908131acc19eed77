"""Hold what `mem compare` predicts of a DeepSpeed release against that release, run: what each of two processes holds after a step, to the byte.

    python conformance/deepspeed_partitions.py [--sources DIR] [--write] RELEASE...

The sources of a release are fetched as by make_deepspeed_releases.py and run with the torch and transformers of this interpreter, two processes on a
CPU with gloo. --write keeps, for each kind of strategy, whether the bytes agree in llmdoctor/mem/deepspeed_compared.json, which `mem compare` reads,
and the counts in conformance/compared.json. Exit status 1 if a release that was written before has changed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from conformance.compared import record  # noqa: E402
from conformance.make_deepspeed_releases import source  # noqa: E402
from llmdoctor.core.errors import QuestionError  # noqa: E402
from llmdoctor.core.release import release as numbers  # noqa: E402
from tests.mem.conftest import write_config  # noqa: E402
from tests.mem.test_partitions import BASE, CASES, HELD, predicted  # noqa: E402

OUT = HERE.parent / "llmdoctor" / "mem" / "deepspeed_compared.json"
WORLD = 2
KINDS: dict[str, dict[str, Any]] = {"zero0": {**BASE, "zero_optimization": {"stage": 0}}, **CASES}


def main() -> int:
    """Compare the releases of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="+", metavar="RELEASE")
    parser.add_argument("--sources", type=Path, help="where the sources are kept")
    parser.add_argument("--write", action="store_true", help="keep the result")
    chosen = parser.parse_args()
    before: dict[str, dict[str, str]] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    table, changed = dict(before), False
    for release in chosen.releases:
        with tempfile.TemporaryDirectory() as folder:
            found = compare(source(release, chosen.sources or Path(folder)), release, Path(folder))
        for kind, outcome in found.items():
            print(f"  {release} {kind}: {outcome}")
        agreed = sum(outcome == "agrees" for outcome in found.values())
        ran = sum(not outcome.startswith("did not run") for outcome in found.values())
        print(f"{release}: {agreed} of the {ran} kinds that ran agree to the byte", flush=True)
        changed |= release in before and before[release] != found
        table[release] = found
        if chosen.write:
            ordered = dict(sorted(table.items(), key=lambda item: numbers(item[0])))
            unfinished = OUT.with_suffix(".new")
            unfinished.write_text("{\n" + ",\n".join(f"{json.dumps(each)}: {json.dumps(row)}" for each, row in ordered.items()) + "\n}\n")
            os.replace(unfinished, OUT)
            record("deepspeed", "partitions of ZeRO 0 to 3, to the byte", release, agreed, ran)
    return int(changed)


def compare(package: Path, release: str, folder: Path) -> dict[str, str]:
    """Return, for each kind of strategy, "agrees", or what the release does instead."""
    sizes = {"vocab_size": 1003, "hidden_size": 36, "num_attention_heads": 3, "num_key_value_heads": 1, "num_hidden_layers": 2}
    model = write_config(folder / "model", "qwen2", intermediate_size=51, **sizes)
    (folder / "cases.json").write_text(json.dumps(KINDS))
    (folder / "out").mkdir()
    worker = HERE.parent / "tests" / "mem" / "partitions_worker.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={WORLD}", str(worker)]
    paths = os.pathsep.join((str(package.parent), str(HERE.parent)))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
    arguments = [str(model), str(folder / "cases.json"), str(folder / "out")]
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=1200, check=False)
    records = [json.loads(line) for part in sorted((folder / "out").glob("*.jsonl")) for line in part.read_text().splitlines()]
    if not records:
        raise SystemExit(f"{release}: nothing ran\n{done.stderr[-3000:]}")
    return {kind: outcome(kind, [each for each in records if each["case"] == kind], model, release) for kind in KINDS}


def outcome(kind: str, records: list[dict[str, Any]], model: Path, release: str) -> str:
    """Return whether every process holds what was predicted."""
    errors = [each["error"] for each in records if "error" in each]
    path = model.parent / f"{kind}.json"
    path.write_text(json.dumps(KINDS[kind]))
    if len(records) < WORLD:
        return "did not run"
    for each in records:
        try:
            wanted = predicted(model, path, WORLD, each["rank"], release)
        except QuestionError as error:
            return "agrees" if errors else f"ran, and is refused here: {error}"
        if errors:
            return f"did not run: {errors[0]}"
        held = {name: each["held"].get(name, 0) for name in HELD}
        wrong = [f"{name} {held[name]} instead of {wanted[name]}" for name in HELD if held[name] != wanted[name]]
        if wrong:
            return ", ".join(wrong)
    return "agrees"


if __name__ == "__main__":
    sys.exit(main())

"""Hold the rules over DeepSpeed configs (MEM006, MEM007) against the DeepSpeedConfig of each release, run.

    python conformance/deepspeed_check.py [--sources DIR] [--write] RELEASE...

The sources of a release are fetched as by make_deepspeed_releases.py and imported in a process of its own, with the torch and pydantic of this
interpreter. Every field of every section with 16 values, every removed key and every key at the top level is one config: the release raises on it, or
it does not, and so does llmdoctor. --write keeps the counts in conformance/compared.json. Exit status 1 if a config differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from conformance.compared import record  # noqa: E402
from conformance.make_deepspeed_releases import source  # noqa: E402
from llmdoctor.configs import deepspeed_schema as schema  # noqa: E402
from llmdoctor.configs.deepspeed_releases import deepspeed_release  # noqa: E402
from llmdoctor.configs.view import Config  # noqa: E402
from llmdoctor.core.finding import Severity  # noqa: E402
from llmdoctor.files.jsonfile import parse  # noqa: E402
from llmdoctor.mem.config_rules.deepspeed import findings_under  # noqa: E402

VALUES: tuple[Any, ...] = (True, False, None, 0, 1, 3, -1, 0.5, 10**9, "1", "5e8", "maybe", "cpu", "auto", {}, [1])
# What the engine asserts and not the config, and objects with models of their own.
ENGINE = ("offload_optimizer at ZeRO stage 0", "needs offload_optimizer on cpu", "is odd")
SKIPPED = {"zenflow", "leaf_module", "legacy_stage1", "allgather_bucket_size", "offload_param", "offload_optimizer"}
WORKER = """
import json, logging, sys
from deepspeed.runtime.config import DeepSpeedConfig
logging.disable(logging.CRITICAL)
out = []
for config in json.load(open(sys.argv[1])):
    try:
        DeepSpeedConfig(config)
        out.append(None)
    except Exception as error:
        out.append(f"{type(error).__name__}: {error}"[:200])
json.dump(out, open(sys.argv[2], "w"))
"""


def main() -> int:
    """Compare the releases of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="+", metavar="RELEASE")
    parser.add_argument("--sources", type=Path, help="where the sources are kept")
    parser.add_argument("--write", action="store_true", help="keep the counts in conformance/compared.json")
    chosen = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        for release in chosen.releases:
            configs = list(configs_of(release))
            theirs = refused_by(source(release, chosen.sources or Path(temporary)), configs, Path(temporary))
            wrong = [
                (config, reason) for config, reason in zip(configs, theirs, strict=True) if refuses(config, release) != (reason is not None)
            ]
            for config, reason in wrong:
                print(f"  {release} {json.dumps(config)}: {reason or 'accepted'}")
            print(f"{release}: {len(configs) - len(wrong)} of {len(configs)} configs agree", flush=True)
            failed |= bool(wrong)
            if chosen.write:
                record("deepspeed", "configs refused (MEM006, MEM007)", release, len(configs) - len(wrong), len(configs))
    return int(failed)


def configs_of(release: str) -> Iterator[dict[str, Any]]:
    """Yield one config for each field and value, removed key and key at the top level."""
    known = deepspeed_release(release)
    for place, fields in schema.SECTIONS.items():
        for name in sorted({*fields, *known.sections[place], "bogus"} - SKIPPED):
            for value in VALUES:
                inner: dict[str, Any] = {name: value}
                for key in reversed(place):
                    inner = {key: inner}
                if name in ("compute_grad_norm", "ratio"):
                    inner["zero_optimization"]["stage"] = 3
                yield {"train_micro_batch_size_per_gpu": 1, **inner}
    for key in sorted(schema.REMOVED):
        yield {"train_micro_batch_size_per_gpu": 1, key: {"enabled": False}}
    for key in schema.REMOVED_ZERO:
        yield {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {key: 1}}


def refused_by(package: Path, configs: list[dict[str, Any]], folder: Path) -> list[str | None]:
    """Return, for each config, the exception that the release raises on it; None if it takes it."""
    given, found = folder / "configs.json", folder / "found.json"
    given.write_text(json.dumps(configs))
    env = {**os.environ, "PYTHONPATH": str(package.parent), "DS_ACCELERATOR": "cpu"}
    done = subprocess.run([sys.executable, "-c", WORKER, str(given), str(found)], env=env, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{package}: the configs could not be read\n{done.stderr[-2000:]}")
    out: list[str | None] = json.loads(found.read_text())
    return out


def refuses(config: dict[str, Any], release: str) -> bool:
    """Return whether a rule says that the release raises on the config."""
    file = parse(json.dumps(config).encode(), "ds.json", "ds.json")
    findings = findings_under(Config(file, config), deepspeed_release(release), None)
    errors = [each.message for each in findings if each.severity is Severity.ERROR and each.code in ("MEM006", "MEM007")]
    return any(not any(part in message for part in ENGINE) for message in errors)


if __name__ == "__main__":
    sys.exit(main())

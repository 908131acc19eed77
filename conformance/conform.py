"""Hold `llmdoctor gencfg` against real transformers, version by version.

    python conformance/conform.py [--write] [--home DIR] VERSION...

Each VERSION gets a throw-away environment (one torch for all, and the packages of that transformers in a folder of its own), runs
call_scenarios.json there through run_scenarios.py, and every row is compared with resolve(). A VERSION that llmdoctor/gencfg/library.json does not
have is added to it first, and to model_types.json if it is the newest (make_defaults.py, make_model_types.py). --write renews the rows of these
versions in tests/gencfg/data/conformance.jsonl, and their counts in compared.json. Exit status 1 if a row differs that KNOWN does not list.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from conformance import make_defaults, make_model_types  # noqa: E402
from conformance.compared import record  # noqa: E402
from conformance.run_scenarios import BASE, EMIT, PROMPT  # noqa: E402
from llmdoctor.gencfg import versions  # noqa: E402
from llmdoctor.gencfg.resolve import resolve  # noqa: E402
from llmdoctor.gencfg.types import ConfigLayer, Effective, GenerateCall, Origin, SourcedValue  # noqa: E402
from llmdoctor.gencfg.versions import known_versions  # noqa: E402

SCENARIOS = HERE / "call_scenarios.json"
DATA = HERE.parent / "tests" / "gencfg" / "data" / "conformance.jsonl"
TORCH = "torch==2.13.0"
# Set or read by other means than a value: the stamp, and objects that the files hold as dictionaries.
NOT_COMPARED = frozenset({"transformers_version", "compile_config", "watermarking_config", "bos_token_id", "eos_token_id", "pad_token_id"})
# Scenarios in which resolve() is known to differ under some version, with the reason.
KNOWN = {
    "assistant_early_exit": "Llama has no early exit; 5.0 to 5.17 raise or change the cache on the way",
    "cache_file_quantized": "4.42 to 4.47 cannot log a config that holds a dtype",
    "cache_kw_offloaded_static": "4.45 passes an argument that its cache does not have",
    "cache_sliding_with_window": "4.43 and 4.45 cannot build a sliding-window cache for Llama",
    "eos_float_frac": "4.40 compares with the fraction, so that nothing stops",
    "eos_float_nan_like": "4.40 compares with the float itself",
    "eos_list_empty_list": "4.37 reduces an empty tensor",
    "prefill_chunk": "5.0 alone wants a cache to be passed",
    "stop_strings_str_tokenizer": "4.41 cannot match a stop string that is one token",
    "stop_strings_tokenizer": "4.41 cannot match a stop string that is one token",
}
_PYTHON = {"None": "null", "True": "true", "False": "false"}


def main() -> int:
    """Run the versions named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", metavar="VERSION")
    parser.add_argument("--write", action="store_true", help="renew tests/gencfg/data/conformance.jsonl")
    parser.add_argument("--home", type=Path, default=Path("/tmp/llmdoctor-conformance"), help="where the environments are kept")
    parser.add_argument("--reuse", action="store_true", help="compare with the rows of the last run")
    parser.add_argument("--stored", action="store_true", help="compare with the rows that the tests hold; nothing is run")
    chosen = parser.parse_args()
    unread = [version for version in chosen.versions if version not in known_versions()]
    if unread:
        wheels = chosen.home / "wheels"
        wheels.mkdir(parents=True, exist_ok=True)
        make_defaults.add(unread, wheels)
        _add_model_types(unread, wheels)
        for cached in (versions._library, versions.field_defaults, versions.late_defaults):  # they hold the file as it was
            cached.cache_clear()
    failed = False
    for version in chosen.versions:
        defaults, rows = stored(version) if chosen.stored else observed(version, chosen.home, reuse=chosen.reuse)
        rows = [row for row in rows if not by_the_machine(row)]
        bad = [(row["scenario"], verdict) for row in rows if (verdict := disagreement(row, defaults))]
        for scenario, verdict in bad:
            print(f"  {version} {scenario}: {verdict}")
        print(f"{version}: {len(rows) - len(bad)} of {len(rows)} agree", flush=True)
        failed |= any(scenario not in KNOWN for scenario, _ in bad)
        if chosen.write:
            record("transformers", "calls of generate(): the effective config", version, len(rows) - len(bad), len(rows))
        if chosen.write and not chosen.stored:
            write(version, defaults, rows)
    return int(failed)


def _add_model_types(unread: list[str], wheels: Path) -> None:
    """Add the releases that are newer than all in the table of model types: it is made anew for others."""
    newest = make_model_types.minor(json.loads(make_model_types.OUT.read_text(encoding="utf-8"))["newest"])
    later = [version for version in unread if make_model_types.minor(version) > newest]
    if later:
        print(f"model types: {make_model_types.add(later, wheels)}")


# --- environments -------------------------------------------------------------------------------------------------------------------


def observed(version: str, home: Path, *, reuse: bool = False) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The library's defaults and what a version did in every scenario."""
    out = home / f"{version}.jsonl"
    if not (reuse and out.exists()):
        python, overlay = environment(version, home)
        env = {**os.environ, "PYTHONPATH": str(overlay), "TRANSFORMERS_VERBOSITY": "warning", "TQDM_DISABLE": "1"}
        command = [str(python), str(HERE / "run_scenarios.py"), str(SCENARIOS), str(out)]
        done = subprocess.run(command, check=False, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"{version}: run_scenarios.py failed\n{done.stderr[-2000:]}")
    first, *rows = (json.loads(line) for line in out.read_text().splitlines())
    if first["version"] != version:
        raise SystemExit(f"{version}: the environment has transformers {first['version']}")
    return first["defaults"], rows


def environment(version: str, home: Path) -> tuple[Path, Path]:
    """The interpreter with torch, and the folder with that transformers; made where they are not there yet."""
    home.mkdir(parents=True, exist_ok=True)
    python = home / "base" / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", str(home / "base"))
        run(str(python), "-m", "pip", "install", "--quiet", TORCH)
    overlay = home / "transformers" / version
    if not (overlay / "transformers").is_dir():
        numpy = "numpy<2" if version.startswith("4.") else "numpy"
        run(str(python), "-m", "pip", "install", "--quiet", "--target", str(overlay), f"transformers=={version}", numpy)
    return python, overlay


def run(*command: str) -> None:
    """A command that has to succeed."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


# --- comparing ----------------------------------------------------------------------------------------------------------------------


def call_of(inputs: dict[str, Any]) -> GenerateCall | None:
    """A scenario as the question it is; None where it replaces the whole generation config, which no option expresses."""
    config = {name: value for name, value in {**BASE, **(inputs.get("config") or {})}.items() if value != "__DEL__"}
    mutations: list[tuple[str, SourcedValue]] = []
    config_mutations: list[tuple[str, SourcedValue]] = []
    for assignment in inputs.get("mutate") or []:
        target, value = assignment.split("=", 1)
        if target == "model.generation_config":
            return None
        value = json.loads(_PYTHON.get(value, value.replace("'", '"')))
        (config_mutations if target.startswith("model.config.") else mutations).append(
            (target.split(".")[-1], SourcedValue(value, Origin("mutation", assignment)))
        )
    return GenerateCall(
        config=settings(config, "config.json"),
        generation_config=optional(inputs.get("gen_json"), "generation_config.json"),
        mutations=tuple(mutations),
        config_mutations=tuple(config_mutations),
        user_config=optional(inputs.get("user_gc"), "user-config"),
        kwargs=settings(inputs.get("kwargs") or {}, "kwargs"),
        prompt_length=len(PROMPT),
    )


def settings(values: dict[str, Any], layer: ConfigLayer) -> dict[str, SourcedValue]:
    """Values as settings of one layer."""
    return {name: SourcedValue(value, Origin(layer, layer)) for name, value in values.items()}


def optional(values: dict[str, Any] | None, layer: ConfigLayer) -> dict[str, SourcedValue] | None:
    """The same for a layer that may be missing."""
    return None if values is None else settings(values, layer)


def disagreement(row: dict[str, Any], defaults: dict[str, Any]) -> str | None:
    """How resolve() differs from a row, in a clause; None where it agrees."""
    call = call_of(row["inputs"])
    if call is None or by_the_machine(row):
        return None
    effective = resolve(call, row["version"])
    seen, found = (each and each["type"] for each in (row.get("error"), effective.error and {"type": effective.error.type}))
    if seen != found:
        message = (row.get("error") or {}).get("msg") or (effective.error and effective.error.message)
        return f"{found} instead of {seen} ({str(message)[:100]})"
    return None if seen else (_values(row, effective, defaults) or _stop(row, effective))


def by_the_machine(row: dict[str, Any]) -> bool:
    """Whether a package, a device or a hub that is missing decided, or the batch engine ran, which shows no final config."""
    error = row.get("error")
    if error is None:
        return "final" not in row["seen"]
    kwargs = row["inputs"].get("kwargs") or {}
    wanting = any(word in error["msg"] for word in ("CUDA", " GPU", "a new Stream"))
    absent = wanting or error["type"] in ("ImportError", "OSError", "ModuleNotFoundError")
    return absent or kwargs.get("cache_implementation") == "paged"


def _values(row: dict[str, Any], effective: Effective, defaults: dict[str, Any]) -> str | None:
    final = row["seen"]["final"]
    for name in {**defaults, **final}:
        want, resolved = final.get(name, defaults.get(name)), effective.fields.get(name)
        got = resolved.value if resolved else None
        if compares(name) and not equal(want, got):
            return f"{name}: {got!r} instead of {want!r}"
    extra = [name for name in effective.fields if name not in defaults and name not in final and compares(name)]
    return f"{extra[0]} is no field there" if extra else None


def compares(name: str) -> bool:
    """Whether a field's value is compared."""
    return name not in NOT_COMPARED and not name.startswith("_")


def flat(value: Any) -> list[Any]:
    """Ids as torch.isin reads them."""
    return [entry for item in value for entry in flat(item)] if isinstance(value, list) else [value]


def _first(value: Any) -> Any:
    """The id of a pad that is a list of one."""
    return flat(value)[0] if isinstance(value, list) and value else value


def _stop(row: dict[str, Any], effective: Effective) -> str | None:
    special, stop, inputs, new = row["seen"]["special"], effective.stop, row["inputs"], row["new_tokens"]
    if list(stop.eos_token_id) != flat(special["eos"] or []):
        return f"eos: {stop.eos_token_id} instead of {special['eos']}"
    if stop.pad_token_id != _first(special["pad"]):
        return f"pad: {stop.pad_token_id} instead of {special['pad']}"
    if stop.never_stops and new != stop.limit:
        return f"limit: {stop.limit} instead of {new}"
    if new > (stop.limit or new):
        return f"limit: {stop.limit} exceeded by {new}"
    # Another token than `emit` came out where a search or a processor had its way.
    others = ("num_beams", "penalty_alpha", "dola_layers", "suppress_tokens", "sequence_bias")
    searched = any(row["seen"]["final"].get(name) not in (None, 1, False) for name in others)
    runs_on = new == stop.limit and new > 1 and inputs.get("emit", EMIT) in stop.eos_token_id and not searched
    return "ran on, but never_stops is false" if runs_on and not stop.never_stops else None


def equal(left: Any, right: Any) -> bool:
    """As the contract compares: numbers by value, a bool only with a bool."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


# --- the rows that the tests hold ---------------------------------------------------------------------------------------------------


def read(path: Path = DATA) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(row, defaults) of every scenario and version in the file."""
    if not path.exists():
        return
    first, *entries = (json.loads(line) for line in path.read_text().splitlines())
    for entry in entries:
        for outcome in entry["outcomes"]:
            for version in outcome["versions"]:
                shared = {"version": version, "scenario": entry["scenario"], "inputs": entry["inputs"]}
                yield {**shared, **{name: value for name, value in outcome.items() if name != "versions"}}, first["defaults"][version]


def stored(version: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The library's defaults, and the rows of a version that the tests hold."""
    found = [(row, values) for row, values in read() if row["version"] == version]
    if not found:
        raise SystemExit(f"{version}: no rows in {DATA}")
    return found[0][1], [row for row, _ in found]


def write(version: str, defaults: dict[str, Any], rows: Iterable[dict[str, Any]]) -> None:
    """Replace the rows of one version: a line for each scenario, versions that did the same together."""
    kept = [(row, values) for row, values in read() if row["version"] != version]
    kept += [({**row, **compared(row)}, defaults) for row in rows if not by_the_machine(row)]
    entries: dict[str, dict[str, Any]] = {}
    every: dict[str, dict[str, Any]] = {}
    for row, values in kept:
        every[row["version"]] = values
        entry = entries.setdefault(row["scenario"], {"scenario": row["scenario"], "inputs": row["inputs"], "outcomes": []})
        outcome = compared(row)
        same = next((each for each in entry["outcomes"] if {**each, "versions": 0} == {**outcome, "versions": 0}), None)
        if same is None:
            entry["outcomes"].append({"versions": [row["version"]], **outcome})
        else:
            same["versions"] = sorted({*same["versions"], row["version"]}, key=numbers)
    DATA.parent.mkdir(parents=True, exist_ok=True)
    first = {"defaults": dict(sorted(every.items(), key=lambda item: numbers(item[0])))}
    DATA.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (first, *entries.values())))


def compared(row: dict[str, Any]) -> dict[str, Any]:
    """What of a row a comparison reads."""
    if "error" in row:
        return {"error": {"type": row["error"]["type"], "msg": row["error"]["msg"][:100]}}
    special = {name: row["seen"]["special"][name] for name in ("eos", "pad")}
    final = {name: value for name, value in row["seen"]["final"].items() if name not in NOT_COMPARED}
    return {"new_tokens": row["new_tokens"], "seen": {"final": final, "special": special}}


def numbers(version: str) -> list[int]:
    """A version's order."""
    return [int(part) for part in version.split(".")]


if __name__ == "__main__":
    sys.exit(main())

"""Hold resolve() against rows of real runs: what of a row counts, and where the two differ.

An outcome is what is compared, small enough to be kept: the error's type and stage, or the effective fields that differ from the library's defaults,
the ids that stop, the pad token, the number of new tokens and whether the sequence ran to the limit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llmdoctor.gencfg.resolve import resolve
from llmdoctor.gencfg.types import ConfigLayer, Effective, GenerateCall, Origin, SourcedValue
from llmdoctor.gencfg.versions import field_defaults, late_defaults, parse

SCENARIOS = Path(__file__).with_name("model_scenarios.json")
Json = Any
Outcome = dict[str, Any]
PROMPT_LENGTH = 4
# Not decoding: the version stamp, an object that the files hold as a dictionary, and what generate() hands to the cache or the
# compiler rather than to the loop.
IGNORED = frozenset({"transformers_version", "return_legacy_cache", "compile_config", "generation_kwargs", "watermarking_config"})
# Devices, packages and tokenizers that this machine has not, and what one model's class does not support.
MACHINE = (
    "CUDA",
    " GPU",
    "OffloadedStaticCache",
    "pin_memory",
    "This model does not support",
    "not compatible with this model",
    "max() arg is an empty sequence",
)
TOKENS = ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id")
STAGES = {"load": "load", "user_gc": "user_config", "generate": "generate"}
LITERALS = {"None": "null", "True": "true", "False": "false"}


def call_of(inputs: Mapping[str, Any], bases: Mapping[str, Any]) -> GenerateCall | None:
    """The GenerateCall that a scenario's inputs describe; None where a mutation is no plain assignment."""
    config = {**bases[inputs.get("base", "llama")], **(inputs.get("config") or {})}
    config = {name: value for name, value in config.items() if value != "__DEL__"}
    mutations: list[tuple[str, SourcedValue]] = []
    edits: list[tuple[str, SourcedValue]] = []
    for statement in inputs.get("mutate") or []:
        target, value = statement.split("=", 1)
        if target == "model.generation_config":
            return None
        setting = SourcedValue(json.loads(LITERALS.get(value, value)), Origin("mutation", statement))
        (edits if target.startswith("model.config.") else mutations).append((target.split(".")[-1], setting))
    generation, user = inputs.get("gen_json"), inputs.get("user_gc")
    return GenerateCall(
        config=settings(config, "config.json"),
        generation_config=None if generation is None else settings(generation, "generation_config.json"),
        mutations=tuple(mutations),
        config_mutations=tuple(edits),
        user_config=None if user is None else settings(user, "user-config"),
        kwargs=settings(inputs.get("kwargs") or {}, "kwargs"),
        prompt_length=inputs.get("prompt_length", PROMPT_LENGTH),
    )


def settings(values: Mapping[str, Json], layer: ConfigLayer) -> dict[str, SourcedValue]:
    """Plain values as settings of one layer."""
    return {name: SourcedValue(value, Origin(layer, layer)) for name, value in values.items()}


def outcome_of(row: Mapping[str, Any]) -> Outcome | None:
    """What counts of a row; None where it was not generate() that decided."""
    if "error" in row and not of_the_rules(row["error"]):
        return None
    if "error" in row:
        return {"error": [row["error"]["type"], STAGES[row["error"]["stage"]]]}
    seen = row["seen"]
    fields = {name: value for name, value in seen["final"].items() if name not in IGNORED and name not in TOKENS}
    eos = seen["special"]["eos"]
    limit = fields.get("max_length", 20) - prompt_of(row["inputs"])
    return {
        "fields": fields,
        "eos": flat(eos),
        "pad": seen["special"]["pad"],
        "new_tokens": row["new_tokens"],
        "stopped": row["new_tokens"] < limit,
        "warnings": sorted({message.split(": ", 1)[1][:60] for message in (*row["warnings"], *row["logs"])}),
    }


def of_the_rules(error: Mapping[str, str]) -> bool:
    """Whether an error says something about the configuration: not about a missing device or package, nor about one model's own code."""
    if error["type"] in ("ImportError", "OSError", "ConnectionError") or any(word in error["msg"] for word in MACHINE):
        return False
    return not error["where"].startswith(("models/", "integrations/"))


def prompt_of(inputs: Mapping[str, Any]) -> int:
    """The length that max_length counts from: an encoder-decoder's decoder starts with one token."""
    return 1 if inputs.get("base") in ("t5", "bart") else int(inputs.get("prompt_length", PROMPT_LENGTH))


def flat(value: Json) -> list[Json]:
    """The ids of a list, a list of lists or None."""
    if value is None:
        return []
    return [entry for item in value for entry in (flat(item) if isinstance(item, list) else [item])]


def differences(call: GenerateCall, version: str, outcome: Outcome) -> list[str]:
    """Where resolve() and the outcome of a real run differ; warnings are compared by warning_differences."""
    got = resolve(call, version)
    if "error" in outcome:
        wanted = tuple(outcome["error"])
        found = None if got.error is None else (got.error.type, got.error.stage)
        return [] if found == wanted else [f"error {found} instead of {wanted}"]
    if got.error is not None:
        return [f"invented {got.error.type} at {got.error.stage}: {got.error.message[:100]}"]
    return [*field_differences(got, version, outcome), *stop_differences(got, outcome)]


def field_differences(got: Effective, version: str, outcome: Outcome) -> list[str]:
    """Differences between effective fields."""
    minor = parse(version)
    defaults = {**field_defaults(minor), **late_defaults(minor)}
    wanted = {**defaults, **outcome["fields"]}
    found = []
    for name in sorted({*wanted, *got.fields} - IGNORED - set(TOKENS)):
        if name.startswith("_"):
            continue
        value = got.fields[name].value if name in got.fields else None
        if value != wanted.get(name):
            found.append(f"{name}: {value!r} instead of {wanted.get(name)!r}")
    return found


def stop_differences(got: Effective, outcome: Outcome) -> list[str]:
    """Differences in what ends decoding. A run that stopped before the limit refutes "never stops"; the reverse depends on the emitted token."""
    found = []
    if sorted(got.stop.eos_token_id) != sorted(outcome["eos"]):
        found.append(f"eos {list(got.stop.eos_token_id)} instead of {outcome['eos']}")
    if got.stop.pad_token_id != outcome["pad"]:
        found.append(f"pad {got.stop.pad_token_id} instead of {outcome['pad']}")
    if outcome["stopped"] and got.stop.never_stops:
        found.append(f"never_stops ({got.stop.because}), yet it stopped")
    if not outcome["stopped"] and got.stop.limit != outcome["new_tokens"]:
        found.append(f"limit {got.stop.limit} instead of {outcome['new_tokens']}")
    return found


def ran_on_with_eos(row: Mapping[str, Any]) -> bool:
    """Whether the model wanted to emit an eos all along and still ran to the limit: then nothing could have stopped it."""
    outcome = outcome_of(row)
    if outcome is None or "error" in outcome or outcome["stopped"] or "sequence_bias" in outcome["fields"]:
        return False
    emit = row["inputs"].get("emit", 145)
    if not outcome["eos"]:
        return True
    return emit in outcome["eos"] and (row["head"][0] == emit or row["tail"] != [emit]) and row["new_tokens"] > 1


def warning_differences(call: GenerateCall, version: str, outcome: Outcome) -> list[str]:
    """Warnings that one side has and the other has not, by their first words."""
    if "error" in outcome:
        return []
    wanted = set(outcome["warnings"])
    found = {message[:60] for message in resolve(call, version).warnings}
    return [f"missed: {text}" for text in sorted(wanted - found)] + [f"invented: {text}" for text in sorted(found - wanted)]


def read_rows(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Rows of a JSON Lines file."""
    return [json.loads(line) for line in lines]


def main() -> None:
    """Print where resolve() differs from the rows named on the command line; --write PATH renews the table of outcomes."""
    arguments = sys.argv[1:]
    path = arguments.pop(arguments.index("--write") + 1) if "--write" in arguments else None
    scenarios = json.loads(SCENARIOS.read_text())
    table: dict[str, dict[str, list[str]]] = {name: {} for name in scenarios["scenarios"]}
    for row in (row for name in arguments if name != "--write" for row in read_rows(Path(name).read_text().splitlines())):
        outcome, call = outcome_of(row), call_of(row["inputs"], scenarios["bases"])
        if outcome is None or call is None:
            continue
        if different := differences(call, row["version"], outcome):
            print(row["version"], row["scenario"], *different)
        kept = {key: value for key, value in outcome.items() if key != "warnings"}
        table[row["scenario"]].setdefault(json.dumps(kept), []).append(row["version"])
    if path:
        lines = (
            {"scenario": name, "outcomes": [[found, json.loads(text)] for text, found in rows.items()]}
            for name, rows in table.items()
            if rows
        )
        Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()

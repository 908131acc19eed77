"""Which releases of transformers and DeepSpeed a prediction is for, and what of it was compared with them.

deepspeed_compared.json is written by conformance/deepspeed_partitions.py: for each release and kind of strategy, whether two processes of it hold the
predicted bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from llmdoctor.configs.deepspeed import FORMAT
from llmdoctor.configs.deepspeed_releases import deepspeed_for
from llmdoctor.configs.versions import LibraryVersion, version_of
from llmdoctor.core.release import release
from llmdoctor.mem.settings import Strategy
from llmdoctor.modeldir.layerkinds import table

AGREES = "agrees"


def releases_for(near: str, deepspeed: str | None) -> dict[str, LibraryVersion]:
    """Return the releases that an answer about the file or model `near` is for; `deepspeed` is the one that the user names."""
    known = ("4.45.2", "4.57.6", str(table()["transformers"]))
    return {
        "transformers": version_of("transformers", near=near, known=known),
        "deepspeed": deepspeed_for(near, deepspeed),
    }


def release_limits(strategy: Strategy, chosen: Mapping[str, LibraryVersion], *, traced: bool) -> tuple[str, ...]:
    """Return the clauses of the verdict about releases; `traced` if the model's code of the installed transformers was run."""
    limits: list[str | None] = []
    transformers = chosen["transformers"]
    if traced and transformers.basis == "pinned" and transformers.installed != transformers.version:
        limits.append(
            f"activations are those of transformers {transformers.installed}, installed here, and {transformers.place} pins {transformers.version}"
        )
    limits += [doubt for doubt in transformers.doubts if "undecided" in doubt]
    if strategy.engine is not None:
        engine = chosen["deepspeed"]
        limits += [engine.pinned, *engine.doubts]
        if engine.basis == "named" and engine.version != engine.installed:
            limits.append(f"for DeepSpeed {engine.version}")
        limits.append(_compared_clause(strategy, engine.version))
    return tuple(dict.fromkeys(clause for clause in limits if clause is not None))


def kind_of(strategy: Strategy) -> str:
    """Return the kind of a DeepSpeed strategy, as deepspeed_compared.json names it."""
    engine = strategy.deepspeed
    if engine.master != "float32" and strategy.dtype != "float32":
        return f"zero{engine.zero.stage}-16-bit-masters"
    wide = engine.grad_accum == "float32" != strategy.dtype
    return f"zero{engine.zero.stage}" + ("-fp32-accumulation" if wide and engine.zero.stage > 0 else "")


def _compared_clause(strategy: Strategy, version: str) -> str | None:
    """Return what was not compared with a release; None for the one that the rules follow, whose steps were measured on a GPU too."""
    if release(version) == release(FORMAT.version):
        return None
    known, kind = list(_compared()), kind_of(strategy)
    below = next((each for each in reversed(known) if release(each) <= release(version) and _ran(each, kind)), None)
    above = next((each for each in known if release(each) >= release(version) and _ran(each, kind)), None)
    if below is not None and above is not None and _compared()[below][kind] == _compared()[above][kind] == AGREES:
        with_whom = "it" if below == above else f"{below} and {above}"
        return f"what is held between steps was compared with {with_whom}, the temporaries of a step are those of {FORMAT.version}"
    return f"this kind of strategy was not compared with DeepSpeed {version}: the rules are those of {FORMAT.version}"


def _ran(version: str, kind: str) -> bool:
    return not _compared()[version].get(kind, "did not run").startswith("did not run")


@cache
def _compared() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("deepspeed_compared.json").read_bytes())
    return found

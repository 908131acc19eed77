#!/usr/bin/env python3
"""Rows of what vLLM's own SamplingParams makes of values: the table that tests/gencfg/test_vllm.py holds llmdoctor against.

    pip download --no-deps vllm==0.33.0 -d DIR && unzip -q DIR/vllm-*.whl 'vllm/sampling_params.py' -d DIR
    python conformance/make_vllm_rows.py DIR/vllm/sampling_params.py > tests/gencfg/vllm_rows.jsonl

Only that one file of vLLM is run, with empty stand-ins for the modules around it (needs msgspec, pydantic and numpy):
SamplingParams itself, its checks, and update_from_generation_config, which adds the stop ids.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import json
import logging
import random
import sys
import types
from pathlib import Path
from typing import Any

INTERESTING: dict[str, list[Any]] = {
    "temperature": [0, 0.0, 1e-6, 0.005, 0.01, 0.7, 1.0, 2.0, 2.5, -1.0, "warm"],
    "top_p": [0.0, 0.001, 0.9, 1.0, 1.5, -0.5, 1],
    "top_k": [0, -1, -2, 1, 50, 50.0, 0.0],
    "min_p": [0.0, 0.1, 1.0, 1.1, -0.1],
    "repetition_penalty": [1.0, 1.05, 0.0, -1.0],
    "presence_penalty": [0.0, 2.5, -2.0],
    "frequency_penalty": [0.0, -3.0, 2.0],
    "max_tokens": [1, 16, 512, 0, -5],
    "min_tokens": [0, 3, 600, -1],
    "n": [1, 2, 0, 20000],
    "stop": ["END", ["a", "b"], ""],
    "ignore_eos": [False, True],
    "stop_token_ids": [[7], [5, 5, 9]],
}
READ = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "max_tokens",
    "min_tokens",
    "n",
)


class Validation(ValueError):
    """Stands in for vLLM's VLLMValidationError, under its name."""

    def __init__(self, message: str = "", **_: Any) -> None:
        super().__init__(message)


Validation.__name__ = "VLLMValidationError"


class StandIn(types.ModuleType):
    """A module of vLLM whose names are empty stand-ins: what each release imports around sampling_params.py differs."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        logger = logging.getLogger("vllm")
        logger.setLevel(logging.CRITICAL)
        logger.warning_once = logger.info_once = logger.warning  # type: ignore[attr-defined]
        known = {
            "VLLMValidationError": Validation,
            "VLLM_MAX_N_SEQUENCES": 16384,
            "VLLM_BATCH_INVARIANT": False,
            "init_logger": lambda *_: logger,
            "is_mistral_tokenizer": lambda _: False,
        }
        return known[name] if name in known else type(name, (), {})


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stand-in for every module of vLLM."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:  # noqa: ARG002
        found = name == "vllm" or name.startswith("vllm.")
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if found else None

    def create_module(self, spec: Any) -> types.ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__path__ = []


def load(path: Path) -> Any:
    """SamplingParams of the file at `path`, of any release from 0.10 on."""
    sys.meta_path.insert(0, StandIns())
    spec = importlib.util.spec_from_file_location("vllm.sampling_params", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["vllm.sampling_params"] = found
    spec.loader.exec_module(found)
    return found.SamplingParams


def run(sampling_params: Any, given: dict[str, Any], file_eos: Any, tokenizer_eos: int | None) -> dict[str, Any]:
    """What one set of parameters comes to, or the exception."""
    try:
        made = sampling_params(**given)
        made.update_from_generation_config({} if file_eos is None else {"eos_token_id": file_eos}, tokenizer_eos)
    except Exception as error:
        return {"error": {"type": type(error).__name__, "message": str(error)}}
    stops = {*(made.stop_token_ids or ()), getattr(made, "_eos_token_id", None)} - {None}
    return {"values": {name: getattr(made, name) for name in READ}, "stop_ids": sorted(stops), "stop": made.stop}


def rows() -> Any:
    """Every interesting value alone, then mixtures (the same ones each time)."""
    chosen = random.Random(0)
    yield {}
    yield from ({name: value} for name, values in INTERESTING.items() for value in values)
    names = list(INTERESTING)
    for _ in itertools.repeat(None, 300):
        yield {name: chosen.choice(INTERESTING[name]) for name in chosen.sample(names, chosen.randint(2, 5))}


def main() -> None:
    sampling_params = load(Path(sys.argv[1]))
    eos = itertools.cycle([([5, 6], 5), (6, 5), (None, 5), ([5, 6], None), (None, None), ([], 4)])
    for given, (file_eos, tokenizer_eos) in zip(rows(), eos, strict=False):
        outcome = run(sampling_params, given, file_eos, tokenizer_eos)
        print(json.dumps({"given": given, "file_eos": file_eos, "tokenizer_eos": tokenizer_eos, **outcome}))


if __name__ == "__main__":
    main()

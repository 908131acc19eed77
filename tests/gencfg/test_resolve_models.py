"""resolve() against real runs of 13 model families on 33 versions: class defaults, nested language models, prompt lengths, stamps.

data/models.jsonl holds, for each scenario of conformance/model_scenarios.json, what came out under which versions
(run_model_scenarios.py, compare_models.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance import compare_models as compare

HERE = Path(__file__).parent
SCENARIOS: dict[str, Any] = json.loads((HERE.parent.parent / "conformance" / "model_scenarios.json").read_text())
ROWS = [json.loads(line) for line in (HERE / "data" / "models.jsonl").read_text().splitlines()]
CASES = [(row["scenario"], version, outcome) for row in ROWS for versions, outcome in row["outcomes"] for version in versions]
VERSIONS = sorted({version for _, version, _ in CASES}, key=lambda text: [int(part) for part in text.split(".")])
# What is known to differ, by scenario: the versions in which it does.
KNOWN = {
    # 4.51 and 4.52 also take a cache_implementation from the model's config beside a generation_config.json.
    **{f"model_{kind}_{case}": ("4.51.3", "4.52.4") for kind in ("gemma2", "gemma3") for case in ("json", "json_no_eos", "json_default")},
    "model_mistral_sliding_cache": ("4.44.2",),  # StaticCache's constructor does not fit there
}


@pytest.mark.parametrize("version", VERSIONS)
def test_given_a_version_when_resolved_then_every_scenario_agrees(version: str) -> None:
    found = {}
    for scenario, at, outcome in CASES:
        call = compare.call_of(SCENARIOS["scenarios"][scenario], SCENARIOS["bases"]) if at == version else None
        if call is not None and version not in KNOWN.get(scenario, ()) and (different := compare.differences(call, version, outcome)):
            found[scenario] = different
    assert found == {}


def test_the_table_covers_the_versions() -> None:
    assert {"4.37.2", "4.42.4", "4.52.4", "5.0.0", "5.23.0"} <= set(VERSIONS)
    assert len(CASES) > 3000


def test_given_a_wrong_outcome_when_compared_then_it_is_noticed() -> None:
    scenario, version, outcome = next(case for case in CASES if "fields" in case[2])
    call = compare.call_of(SCENARIOS["scenarios"][scenario], SCENARIOS["bases"])
    assert call is not None
    assert compare.differences(call, version, {**outcome, "eos": [7]}) != []
    assert compare.differences(call, version, {**outcome, "fields": {**outcome["fields"], "top_k": 49}}) != []

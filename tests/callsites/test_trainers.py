"""PYC016: the releases that the rule names are those of the sources, and a pinned release decides what a stop token does."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmdoctor.callsites.check import check_source
from llmdoctor.callsites.trainers import STOPS_SINCE
from llmdoctor.core.release import release
from llmdoctor.gencfg.trainers import load_preset, preset_versions

SCRIPT = """
from trl import PPOConfig, PPOTrainer
PPOTrainer(args=PPOConfig("out", stop_token="eos"), model=policy, ref_model=ref, reward_model=reward, value_model=value, train_dataset=data)
"""


def eos_set(name: str, version: str) -> list[object]:
    """What the preset of a release sets the model's eos_token_id to."""
    return [
        dict(each.value) for each in load_preset(f"{name}@{version}").assignments if each.field == "eos_token_id" and each.target == "model"
    ]


def test_stop_token_reaches_generate_since_the_release_that_the_rule_names() -> None:
    versions = preset_versions("trl")
    taken = [version for version in versions if release(version) < (1, 13) and eos_set("trl-ppo", version) == [{"constant": None}]]
    assert STOPS_SINCE not in taken
    assert taken[-1] == versions[versions.index(STOPS_SINCE) - 1]


def test_rloo_takes_eos_away_up_to_the_release_that_the_rule_names() -> None:
    taken = [version for version in preset_versions("trl") if eos_set("trl-rloo", version) == [{"constant": None}]]
    assert taken[-1] == "0.21.0"


@pytest.mark.parametrize(("pin", "severities"), [("trl==0.13.0", ["info"]), ("trl==0.14.0", []), ("trl>=0.15", [])])
def test_a_stop_token_helps_in_the_pinned_release(pin: str, severities: list[str], tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(pin + "\n")
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    assert [finding.severity.value for finding in check_source(SCRIPT, str(path))] == severities

"""The prediction seen to come true: the real processor, the real generate() and the real PPOTrainer on the tiny Qwen2-VL."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import MissingExtra
from llmdoctor.core.installed import installed_version
from llmdoctor.demo.live.tiny_qwen2_vl import build
from llmdoctor.gencfg import live
from llmdoctor.gencfg.trained import SpecialIds, Training, apply_preset
from llmdoctor.gencfg.trainers import load_preset
from llmdoctor.gencfg.types import GenerateCall, Origin, SourcedValue
from tests.gencfg.ppo import trl_ppo_policy

pytestmark = pytest.mark.live
for package in ("torch", "transformers", "qwen_vl_utils", "torchvision", "PIL"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

# The case of the facts, with a limit that a test can wait for.
SCRIPT = {
    "max_new_tokens": 96,
    "temperature": 1.0,
    "top_k": 0.0,
    "top_p": 1.0,
    "do_sample": True,
    "return_dict_in_generate": True,
    "output_scores": True,
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tiny") / "qwen2-vl")


@pytest.fixture(scope="module")
def ids(directory: Path) -> list[int]:
    found: list[int] = json.loads((directory / "generation_config.json").read_text())["eos_token_id"]
    return found


@pytest.fixture
def loaded(directory: Path) -> live.Loaded:
    return live.load(directory)


def test_the_scripts_call_ends_its_turn(loaded: live.Loaded, ids: list[int]) -> None:
    for seed in range(5):
        result = live.run_call(loaded, user_config=SCRIPT, seed=seed)
        (sequence,) = result.sequences
        assert (sequence.stop_reason, sequence.passed_terminator_at) == ("eos", None)
        assert 8 <= sequence.new_tokens <= 30
        assert sequence.text.endswith("<|im_end|>")
        assert result.eos_token_id == tuple(ids)


def test_the_same_call_without_the_models_eos_runs_to_the_limit(loaded: live.Loaded, ids: list[int]) -> None:
    result = live.run_call(loaded, user_config=SCRIPT, mutations={"eos_token_id": None})
    (sequence,) = result.sequences
    assert (sequence.stop_reason, sequence.new_tokens) == ("length", 96)
    assert sequence.passed_terminator_at is not None
    assert 7 <= sequence.passed_terminator_at < 30
    assert result.eos_token_id == ()
    assert loaded.model.generation_config.eos_token_id == ids, "a mutation is for one call"


def test_a_user_config_with_eos_stops_whatever_the_model_says(loaded: live.Loaded, ids: list[int]) -> None:
    result = live.run_call(loaded, user_config={**SCRIPT, "eos_token_id": ids}, mutations={"eos_token_id": None})
    assert result.sequences[0].stop_reason == "eos"


def test_other_reasons_to_stop_are_told_apart(loaded: live.Loaded) -> None:
    tokenizer = loaded.processor.tokenizer
    config = {**SCRIPT, "stop_strings": ["red"]}
    stopped = live.run_call(loaded, user_config=config, kwargs={"tokenizer": tokenizer}, mutations={"eos_token_id": None})
    assert stopped.sequences[0].stop_reason == "stop_string"
    short = live.run_call(loaded, user_config={**SCRIPT, "max_new_tokens": 3})
    assert (short.sequences[0].stop_reason, short.sequences[0].new_tokens) == ("length", 3)


def test_several_sequences_are_counted_without_their_padding(loaded: live.Loaded) -> None:
    result = live.run_call(loaded, user_config={**SCRIPT, "num_return_sequences": 3})
    assert [sequence.stop_reason for sequence in result.sequences] == ["eos"] * 3
    assert all(sequence.text.count("<|im_end|>") == 1 for sequence in result.sequences)


def test_a_call_without_a_config_and_an_image_file(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    live.draw_image().save(path)
    result = live.run_call(directory, kwargs={"max_new_tokens": 40}, image=path, prompt="What is on this picture?")
    assert result.sequences[0].stop_reason == "eos"
    assert result.config["temperature"] == 0.01


def test_watched_names_the_line_of_an_assignment(loaded: live.Loaded, ids: list[int]) -> None:
    with live.watched(loaded.model) as seen:
        loaded.model.generation_config.eos_token_id = None
    loaded.model.generation_config.top_k = 3
    (one,) = seen
    assert (one.field, one.value, one.before) == ("eos_token_id", None, ids)
    assert one.file == __file__
    assert "generation_config.eos_token_id = None" in Path(__file__).read_text().splitlines()[one.line - 1]
    assert type(loaded.model.generation_config).__name__ == "GenerationConfig"


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "qwen_vl_utils" else find(name, *rest))
    with pytest.raises(MissingExtra, match=r"qwen-vl-utils.*\[vlm\]"):
        live.run_call(directory, user_config=SCRIPT)


# --- the real trainer -------------------------------------------------------------------------------------------------------------

has_ppo = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None
    or not ((0, 13) <= tuple(map(int, (installed_version("trl") or "0.0").split(".")[:2])) <= (1, 12)),
    reason="no trl with a PPOTrainer is installed",
)


def predicted(ids: list[int], **arguments: Any) -> SourcedValue:
    """What the preset says happens to eos."""
    config = {"eos_token_id": SourcedValue(ids, Origin("generation_config.json", "generation_config.json:5"))}
    call = apply_preset(
        "trl-ppo", GenerateCall(generation_config=config), Training(tokens=SpecialIds(ids[0]), arguments=arguments), own_call=False
    )
    return dict(call.mutations)["eos_token_id"]


@has_ppo
@pytest.mark.parametrize("arguments", [{}, {"stop_token": "eos"}, {"stop_token_id": 5}], ids=["default", "eos", "id"])
def test_the_real_ppo_trainer_assigns_what_the_preset_says_where_it_says(
    loaded: live.Loaded, ids: list[int], arguments: dict[str, Any]
) -> None:
    with live.watched(loaded.model) as seen:
        policy = trl_ppo_policy(loaded, **arguments)
    expected = predicted(ids, **arguments)
    assert policy is loaded.model
    changes = [item for item in seen if not item.field.startswith("_") and "/trl/" in item.file]
    assert [(item.field, item.value, item.line) for item in changes] == [("eos_token_id", expected.value, expected.origin.line)]
    assert changes[0].file.endswith(str(expected.origin.file))
    assert policy.generation_config.eos_token_id == expected.value


@has_ppo
def test_the_real_ppo_trainer_makes_the_scripts_call_run_on_and_the_fix_ends_it(loaded: live.Loaded, ids: list[int]) -> None:
    assert live.run_call(loaded, user_config=SCRIPT).sequences[0].stop_reason == "eos"
    trl_ppo_policy(loaded)
    inside = live.run_call(loaded, user_config=SCRIPT).sequences[0]
    assert (inside.stop_reason, inside.new_tokens) == ("length", 96)
    assert inside.passed_terminator_at is not None
    assert live.run_call(loaded, user_config={**SCRIPT, "eos_token_id": ids}).sequences[0].stop_reason == "eos"
    trl_ppo_policy(loaded, stop_token="eos")
    assert live.run_call(loaded, user_config=SCRIPT).eos_token_id == (ids[0],)


@has_ppo
def test_a_checkpoint_saved_from_the_policy_loses_its_eos(loaded: live.Loaded, tmp_path: Path) -> None:
    trl_ppo_policy(loaded).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    assert saved.get("eos_token_id") is None
    assert "checkpoint" in (load_preset("trl-ppo").warns or "")

"""Calls of which something is not modelled: the verdict says what. The exceptions were seen in transformers 5.23.0 on tiny models."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmdoctor.core.report import Verdict
from llmdoctor.gencfg.options import GencfgOptions
from llmdoctor.gencfg.show import show_report
from tests.conftest import write_model

T5 = {"model_type": "t5", "is_encoder_decoder": True, "vocab_size": 16, "eos_token_id": 11, "decoder_start_token_id": 0}


def verdict(path: Path, *sets: str) -> Verdict:
    found = show_report(GencfgOptions(model=str(path), sets=("max_new_tokens=5", *sets), transformers="5.23.0")).verdict
    assert found is not None
    return found


@pytest.mark.parametrize(
    "name",
    [
        "inputs_embeds",
        "assistant_model",
        "past_key_values",
        "decoder_input_ids",
        "stopping_criteria",
        "logits_processor",
        "custom_generate",
    ],
)
def test_the_verdict_names_an_argument_that_is_not_modelled(tmp_path: Path, name: str) -> None:
    write_model(tmp_path / "model")
    assert f"{name} is not modelled" in verdict(tmp_path / "model", f'{name}="x"').text
    assert "not modelled" not in verdict(tmp_path / "model", f"{name}=null").text


def test_a_forced_first_token_outside_the_vocabulary_fails_where_it_acts(tmp_path: Path) -> None:
    write_model(tmp_path / "decoder")
    write_model(tmp_path / "t5", config=T5)
    assert "IndexError" in verdict(tmp_path / "t5", "forced_bos_token_id=16").text
    assert verdict(tmp_path / "t5", "forced_bos_token_id=15").status == "ok"
    assert "IndexError" not in verdict(tmp_path / "t5", "forced_bos_token_id=16", "decoder_input_ids=[[0, 5]]").text.partition(";")[0]
    decoder = verdict(tmp_path / "decoder", "forced_bos_token_id=99").text
    assert decoder.startswith("The call stops")
    assert "a prompt of one token raises IndexError" in decoder


def test_a_cache_and_a_kind_of_cache_together_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    assert "ValueError" in verdict(tmp_path / "model", 'past_key_values="x"', 'cache_implementation="static"').text


def test_a_trainer_that_generates_with_vllm_is_answered_by_vllms_rules(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    plain, with_vllm = (
        show_report(GencfgOptions(model=str(tmp_path / "model"), presets=("trl-grpo@1.0.0",), engine=engine)) for engine in (None, "vllm")
    )
    assert plain.verdict is not None
    assert with_vllm.verdict is not None
    assert "without vLLM" in plain.verdict.text
    assert "generating with vLLM (use_vllm=True)" in with_vllm.verdict.text
    assert "without vLLM" not in with_vllm.verdict.text

"""Mutated real files: no traceback, no hang, no exit code outside the contract."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdoctor.cli.main import main
from tests.conftest import write_model

FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")
COMMANDS = (["gencfg", "show"], ["gencfg", "check"], ["gencfg", "diff"], ["gencfg", "show", "--engine", "vllm"])
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

scalars = (
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(st.characters(blacklist_categories=()), max_size=12)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8
)


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The command in this process; its exit code and all it wrote."""
    start = time.monotonic()
    with mock.patch.object(sys, "argv", ["llmdoctor", *arguments]), pytest.raises(SystemExit) as stop:
        main()
    assert time.monotonic() - start < 10
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out + captured.err


def judge(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(arguments, capsys)
    assert code in (0, 1, 2, 3), text
    assert "Traceback" not in text
    assert "\x1b" not in text


@SETTINGS
@given(
    file=st.sampled_from(FILES),
    command=st.sampled_from(COMMANDS),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6), st.binary(max_size=6)), min_size=1, max_size=4),
)
def test_mutated_bytes(file: str, command: list[str], cuts: list[tuple[float, int, bytes]], tmp_path: Path, capsys: Any) -> None:
    model = write_model(tmp_path / "model")
    data = (model / file).read_bytes()
    for place, length, insert in cuts:
        at = int(place * len(data))
        data = data[:at] + insert + data[at + length :]
    (model / file).write_bytes(data)
    judge([*command, str(model)], capsys)


FIELDS = (
    "eos_token_id pad_token_id bos_token_id do_sample temperature top_k top_p max_length max_new_tokens min_length min_new_tokens num_beams "
    "num_return_sequences suppress_tokens sequence_bias bad_words_ids stop_strings cache_implementation transformers_version vocab_size text_config "
    "model_type auto_map eos_token chat_template added_tokens model added_tokens_decoder watermarking_config use_cache _from_model_config "
    "forced_eos_token_id repetition_penalty compile_config max_position_embeddings is_encoder_decoder decoder architectures"
).split()


@SETTINGS
@given(
    file=st.sampled_from(FILES),
    command=st.sampled_from(COMMANDS),
    changes=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), values, min_size=1, max_size=5),
    version=st.sampled_from(["4.37.2", "4.41.2", "4.45.2", "4.49.0", "4.57.6", "5.0.0", "5.23.0", "9.9.9"]),
)
def test_mutated_values(file: str, command: list[str], changes: dict[str, Any], version: str, tmp_path: Path, capsys: Any) -> None:
    model = write_model(tmp_path / "model")
    content = json.loads((model / file).read_text())
    content.update(changes)
    (model / file).write_text(json.dumps(content))
    judge([*command, str(model), "--transformers", version], capsys)


@SETTINGS
@given(
    sets=st.dictionaries(st.sampled_from(FIELDS), values, max_size=3),
    mutations=st.dictionaries(st.sampled_from(FIELDS), values, max_size=3),
)
def test_mutated_call(sets: dict[str, Any], mutations: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    model = write_model(tmp_path / "model")
    options = [f"--set={name}={json.dumps(value)}" for name, value in sets.items()]
    options += [f"--mutate={name}={json.dumps(value)}" for name, value in mutations.items()]
    judge(["gencfg", "show", str(model), *options], capsys)
    judge(["gencfg", "diff", str(model), *(option.replace("--", "--right-", 1) for option in options)], capsys)

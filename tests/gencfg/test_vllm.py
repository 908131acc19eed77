"""The vLLM side, held against rows that vLLM 0.33.0's own SamplingParams made (conformance/make_vllm_rows.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdoctor.gencfg.engines.table import engines
from llmdoctor.gencfg.engines.types import same_meaning
from llmdoctor.gencfg.engines.vllm import effective_vllm
from llmdoctor.gencfg.types import Effective, GenerateCall, Origin, SourcedValue

END, TEXT = 151645, 151643
ROWS = [json.loads(line) for line in (Path(__file__).parent / "vllm_rows.jsonl").read_text().splitlines()]
# vLLM's name -> the field here.
FIELDS = {"max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens", "n": "num_return_sequences", "stop": "stop_strings"}
QWEN = {
    "bos_token_id": TEXT,
    "pad_token_id": TEXT,
    "do_sample": True,
    "eos_token_id": [END, TEXT],
    "repetition_penalty": 1.05,
    "temperature": 0.01,
    "top_p": 0.001,
    "top_k": 1,
    "transformers_version": "4.37.0",
}


def layer(name: Any, values: dict[str, Any]) -> dict[str, SourcedValue]:
    return {key: SourcedValue(value, Origin(name, f"{name}:{line}")) for line, (key, value) in enumerate(values.items(), 2)}


def qwen(config: dict[str, Any] | None = None, **parts: Any) -> GenerateCall:
    outer = (
        {"model_type": "qwen2", "eos_token_id": END, "max_position_embeddings": 32768, "vocab_size": 152064} if config is None else config
    )
    return GenerateCall(config=layer("config.json", outer), generation_config=layer("generation_config.json", QWEN), **parts)


def values(effective: Effective) -> dict[str, Any]:
    return {name: field.value for name, field in effective.fields.items()}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: json.dumps(row["given"])[:60])
def test_a_row_of_the_real_sampling_params(row: dict[str, Any]) -> None:
    file = {} if row["file_eos"] is None else {"eos_token_id": row["file_eos"]}
    call = GenerateCall(config={}, generation_config=layer("generation_config.json", file), kwargs=layer("kwargs", row["given"]))
    effective = effective_vllm(call, tokenizer_eos=row["tokenizer_eos"], max_model_len=4096, entrypoint="generate")
    if "error" in row:
        assert effective.error is not None
        assert (effective.error.type, effective.error.message) == (row["error"]["type"], row["error"]["message"])
        return
    assert effective.error is None
    ours = values(effective)
    assert {name: ours[FIELDS.get(name, name)] for name in row["values"]} == row["values"]
    assert sorted(effective.stop.eos_token_id) == row["stop_ids"]


def test_the_files_values_stand_under_a_request_that_names_none() -> None:
    effective = effective_vllm(qwen(), tokenizer_eos=END)
    found = values(effective)
    assert (found["temperature"], found["top_p"], found["top_k"], found["repetition_penalty"]) == (0.01, 0.001, 1, 1.05)
    assert found["do_sample"] is True
    assert effective.fields["temperature"].origin.source == "generation_config.json:7"
    assert effective.transformers == "vllm 0.33.0"
    assert any("temperature" in warning and "--generation-config vllm" in warning for warning in effective.warnings)


def test_a_request_wins_over_the_file_and_says_what_it_overrode() -> None:
    effective = effective_vllm(qwen(user_config=layer("user-config", {"temperature": 1.0, "top_k": 0.0})), tokenizer_eos=END)
    field = effective.fields["temperature"]
    assert (field.value, field.origin.layer) == (1.0, "user-config")
    assert [setting.value for setting in field.overrides] == [0.01]
    assert effective.error is None
    top_k = effective.fields["top_k"].value
    assert (top_k, type(top_k)) == (0, int), "the server makes an int of a whole float"


def test_sampling_params_passed_to_generate_take_nothing_from_the_file() -> None:
    request = {"user_config": layer("user-config", {"max_new_tokens": 512})}
    effective = effective_vllm(qwen(**request), tokenizer_eos=END, entrypoint="generate")
    assert values(effective)["temperature"] == 1.0
    assert any("take nothing from generation_config.json" in warning for warning in effective.warnings)
    assert values(effective_vllm(qwen(), tokenizer_eos=END, entrypoint="generate"))["temperature"] == 0.01


def test_a_float_top_k_is_refused_by_sampling_params_itself() -> None:
    script = layer("user-config", {"max_new_tokens": 512, "top_k": 0.0})
    error = effective_vllm(qwen(user_config=script), tokenizer_eos=END, entrypoint="generate").error
    assert error is not None
    assert (error.type, error.message) == ("VLLMValidationError", "top_k must be an integer, got float")


def test_the_limits_of_the_two_ways_in() -> None:
    assert effective_vllm(qwen(prompt_length=100), tokenizer_eos=END).stop.limit == 32768 - 100
    assert effective_vllm(qwen(prompt_length=100), tokenizer_eos=END, entrypoint="generate").stop.limit == 16
    call_kwargs = qwen(prompt_length=32760, kwargs=layer("kwargs", {"max_new_tokens": 512}))
    assert effective_vllm(call_kwargs, tokenizer_eos=END).stop.limit == 8
    file = GenerateCall(config=qwen().config, generation_config=layer("generation_config.json", {"max_new_tokens": 77}))
    assert effective_vllm(file, tokenizer_eos=END).stop.limit == 77


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"text_config": {"max_position_embeddings": 4096}, "max_position_embeddings": 1}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": 8192, "model_max_length": 131072}, 131072),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        ({"max_position_embeddings": 4096, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 4096),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}, 4096),
        ({"max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "rope_scaling": {"type": "longrope"}}, 4096),
        ({}, None),
    ],
)
def test_the_context_is_read_from_config_json(config: dict[str, Any], length: int | None) -> None:
    stop = effective_vllm(qwen(config, prompt_length=0), tokenizer_eos=END).stop
    assert stop.limit == length


def test_a_request_beyond_the_context_is_refused() -> None:
    error = effective_vllm(qwen(kwargs=layer("kwargs", {"max_tokens": 40000})), tokenizer_eos=END).error
    assert error is not None
    assert error.message.startswith("max_tokens=40000 cannot be greater than max_model_len=32768")
    error = effective_vllm(qwen(prompt_length=40000), tokenizer_eos=END).error
    assert error is not None
    assert "exceeds model's maximum context length" in error.message


def test_it_also_stops_at_the_tokenizers_eos() -> None:
    call = GenerateCall(config={}, generation_config=layer("generation_config.json", {"eos_token_id": TEXT}))
    effective = effective_vllm(call, tokenizer_eos=END)
    assert effective.stop.eos_token_id == (TEXT, END)
    assert effective.fields["eos_token_id"].origin.source == "vllm 0.33.0: the tokenizer's eos and generation_config.json:2"
    assert effective_vllm(call, tokenizer_eos=TEXT).fields["eos_token_id"].origin.source == "generation_config.json:2"


def test_without_generation_config_json_the_ids_of_config_json_count() -> None:
    for config, expected in (
        ({"eos_token_id": 7}, (7,)),
        ({"eos_token_id": [7, 8]}, (7, 8)),
        ({"text_config": {"eos_token_id": 9}}, (9,)),
        ({"eos_token_id": 7, "text_config": {"eos_token_id": 9}}, (7,)),
        ({"model_type": "llama"}, (2,)),
    ):
        assert effective_vllm(GenerateCall(config=layer("config.json", config)), tokenizer_eos=None).stop.eos_token_id == expected
    file = GenerateCall(config=layer("config.json", {"eos_token_id": 7, "temperature": 0.1}), generation_config={})
    assert effective_vllm(file, tokenizer_eos=None).stop.never_stops, "where the file exists, config.json's eos does not count"


@pytest.mark.live
def test_the_fallback_is_that_of_the_real_library(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", minversion="5.16")
    for number, config in enumerate(
        (
            {"model_type": "llama"},
            {"model_type": "qwen2"},
            {"model_type": "qwen2_vl"},
            {"model_type": "llama", "eos_token_id": 5, "temperature": 0.3},
        )
    ):
        path = tmp_path / str(number)
        path.mkdir()
        (path / "config.json").write_text(json.dumps(config))
        # transformers_utils/config.py:1299 of vLLM: GenerationConfig.from_model_config(get_config(...)), then to_diff_dict()
        real = transformers.GenerationConfig.from_model_config(transformers.AutoConfig.from_pretrained(str(path))).to_diff_dict()
        ours = effective_vllm(GenerateCall(config=layer("config.json", config)), tokenizer_eos=None)
        expected = real.get("eos_token_id")
        assert ours.stop.eos_token_id == (() if expected is None else (expected,)), config
        assert values(ours)["temperature"] == real.get("temperature", 1.0) == 1.0


def test_a_side_that_cannot_stop_says_why() -> None:
    def because(call: GenerateCall, eos: int | None = None) -> str:
        stop = effective_vllm(call, tokenizer_eos=eos).stop
        assert stop.never_stops
        return stop.because or ""

    bare = GenerateCall(config=layer("config.json", {"vocab_size": 10}), generation_config={})
    assert "no eos_token_id" in because(bare)
    assert "ignore_eos" in because(qwen(kwargs=layer("kwargs", {"ignore_eos": True})), END)
    assert "min_new_tokens 8" in because(qwen(kwargs=layer("kwargs", {"min_tokens": 8, "max_tokens": 8})), END)
    assert "vocabulary of 10" in because(bare, 12)
    assert not effective_vllm(
        GenerateCall(generation_config={}, kwargs=layer("kwargs", {"stop": "END"})), tokenizer_eos=None
    ).stop.never_stops


def test_what_vllm_does_not_understand_is_listed() -> None:
    call = GenerateCall(
        config={},
        generation_config=layer("generation_config.json", {"do_sample": False, "suppress_tokens": [1], "num_beams": None}),
        user_config=layer("user-config", {"no_repeat_ngram_size": 3, "return_dict_in_generate": True}),
        mutations=tuple(layer("mutation", {"eos_token_id": None}).items()),
    )
    said = " | ".join(effective_vllm(call, tokenizer_eos=END).warnings)
    for words in (
        "vLLM has no no_repeat_ngram_size:",
        "does not read suppress_tokens from",
        "temperature 0 is greedy",
        "do not reach vLLM",
    ):
        assert words in said
    assert "return_dict_in_generate" not in said
    assert effective_vllm(call, tokenizer_eos=END).stop.eos_token_id == (END,), "a mutation in Python changes no file"


@pytest.mark.parametrize(
    ("name", "hf", "vllm", "differ"),
    [
        ("min_p", None, 0.0, False),
        ("top_k", 0, -1, False),
        ("top_k", 50, 0, True),
        ("top_k", 0.0, 0, False),
        ("temperature", None, 1.0, False),
        ("temperature", 1.0, 0.01, True),
        ("do_sample", None, True, True),
        ("do_sample", False, False, False),
        ("stop_strings", None, [], False),
        ("max_new_tokens", 512, 512, False),
        ("max_new_tokens", None, 512, True),
        ("num_beams", 1, None, False),
        ("num_beams", 4, None, True),
        ("suppress_tokens", [3], None, True),
        ("max_length", 513, None, False),
        ("output_scores", True, None, False),
        ("pad_token_id", 3, None, False),
    ],
)
def test_a_difference_is_one_of_meaning(name: str, hf: Any, vllm: Any, differ: bool) -> None:
    table = engines()
    assert same_meaning(name, (table["transformers"], hf), (table["vllm"], vllm)) is not differ


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)
_NAMES = st.sampled_from(
    (
        *("eos_token_id", "temperature", "top_k", "top_p", "min_p", "max_new_tokens", "repetition_penalty", "stop_strings", "ignore_eos"),
        *("max_position_embeddings", "vocab_size", "rope_scaling", "text_config", "model_type", "min_new_tokens", "do_sample", "seed"),
    )
)


@settings(max_examples=400, deadline=None)
@given(config=st.dictionaries(_NAMES, _JSON), file=st.dictionaries(_NAMES, _JSON), call_kwargs=st.dictionaries(_NAMES, _JSON))
def test_any_json_gets_an_answer(config: dict[str, Any], file: dict[str, Any], call_kwargs: dict[str, Any]) -> None:
    call = GenerateCall(layer("config.json", config), layer("generation_config.json", file), kwargs=layer("kwargs", call_kwargs))
    for entrypoint in ("chat", "generate"):
        effective = effective_vllm(call, tokenizer_eos=3, entrypoint=entrypoint)  # type: ignore[arg-type]
        assert all(isinstance(item, int) for item in effective.stop.eos_token_id)
        assert effective.error is not None or effective.fields["do_sample"].value in (True, False)


# --- releases (gencfg/engines/vllm_releases.py) ------------------------------------------------------------------------------------

RELEASES = [json.loads(line) for line in Path(__file__).with_name("vllm_releases.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("row", RELEASES, ids=lambda row: json.dumps(row["given"])[:60])
def test_a_row_of_every_release(row: dict[str, Any]) -> None:
    """Rows of conformance/compare_vllm.py: one parameter under the SamplingParams of 25 releases."""
    for outcome in row["outcomes"]:
        for version in outcome["versions"]:
            call = GenerateCall(config={}, kwargs=layer("kwargs", row["given"]))
            effective = effective_vllm(call, tokenizer_eos=None, max_model_len=4096, entrypoint="generate", version=version)
            found = None if effective.error is None else effective.error.type
            assert found == outcome.get("error", {}).get("type"), version
            for name, value in outcome.get("values", {}).items():
                assert effective.fields.value(FIELDS.get(name, name)) == value, (version, name)


def test_what_the_server_of_a_release_does() -> None:
    def chat(version: str, file: dict[str, Any], **request: Any) -> Effective:
        made = GenerateCall(
            config=layer("config.json", {"model_type": "qwen2", "max_position_embeddings": 1000}),
            generation_config=layer("generation_config.json", file),
            kwargs=layer("kwargs", request),
            prompt_length=100,
        )
        return effective_vllm(made, tokenizer_eos=END, version=version)

    assert chat("0.30.0", {"presence_penalty": 0.5}).fields.value("presence_penalty") == 0.0
    assert any("presence_penalty" in warning for warning in chat("0.30.0", {"presence_penalty": 0.5}).warnings)
    assert chat("0.31.0", {"presence_penalty": 0.5}).fields.value("presence_penalty") == 0.5
    assert chat("0.16.0", {"max_new_tokens": 50}, max_tokens=200).stop.limit == 50
    assert chat("0.17.1", {"max_new_tokens": 50}, max_tokens=200).stop.limit == 200
    refused = chat("0.10.2", {}, max_tokens=950).error
    assert refused is not None
    assert "too large" in refused.message
    assert chat("0.33.0", {}, max_tokens=950).stop.limit == 900
    old = chat("0.10.2", {})
    assert (old.transformers, old.rules) == ("vllm 0.10.2", "0.10.2")
    assert old.fields["temperature"].origin.line is None

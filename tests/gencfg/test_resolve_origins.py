"""Where a value came from, what it replaced, and what holds for any input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdoctor.core.errors import QuestionError
from llmdoctor.gencfg.resolve import resolve
from llmdoctor.gencfg.types import ConfigLayer, GenerateCall, Origin, Resolved, SourcedValue
from llmdoctor.gencfg.versions import field_defaults, known_versions, late_defaults, parse

CONFIG = {"model_type": "llama", "vocab_size": 200, "max_position_embeddings": 2048, "eos_token_id": 145, "bos_token_id": 143}
FILE = {"bos_token_id": 143, "pad_token_id": 143, "do_sample": True, "eos_token_id": [145, 143], "temperature": 0.01, "top_k": 1}
STAMPED_OLD, STAMPED_NEW = {**FILE, "transformers_version": "4.37.0"}, {**FILE, "transformers_version": "4.50.0"}
SCRIPT = {"max_new_tokens": 512, "temperature": 1.0, "top_k": 0.0, "do_sample": True}


def of(values: Mapping[str, Any], layer: ConfigLayer) -> dict[str, SourcedValue]:
    return {name: SourcedValue(value, Origin(layer, f"{layer} {name}")) for name, value in values.items()}


def call(
    file: Mapping[str, Any] | None = None,
    user: Mapping[str, Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    mutations: tuple[tuple[str, Any], ...] = (),
) -> GenerateCall:
    return GenerateCall(
        of(CONFIG, "config.json"),
        None if file is None else of(file, "generation_config.json"),
        tuple((name, SourcedValue(value, Origin("mutation", f"mutation {name}"))) for name, value in mutations),
        user_config=None if user is None else of(user, "user-config"),
        kwargs=of(kwargs or {}, "kwargs"),
        prompt_length=4,
    )


def layers(found: Resolved) -> list[ConfigLayer]:
    return [found.origin.layer, *(setting.origin.layer for setting in found.overrides)]


@pytest.mark.parametrize("version", ["4.45.2", "4.49.0", "4.57.6", "5.0.0", "5.23.0"])
def test_given_a_user_config_without_eos_then_eos_comes_from_the_file(version: str) -> None:
    found = resolve(call(STAMPED_OLD, SCRIPT), version)
    eos = found.fields["eos_token_id"]
    assert (eos.value, eos.origin.layer, eos.origin.source) == (
        [145, 143],
        "generation_config.json",
        "generation_config.json eos_token_id",
    )
    assert not found.stop.never_stops


@pytest.mark.parametrize("version", ["4.41.2", "4.49.0", "4.57.6", "5.23.0"])
def test_given_eos_nulled_after_loading_then_the_chain_keeps_what_the_file_said(version: str) -> None:
    found = resolve(call(STAMPED_OLD, None, {"max_new_tokens": 8}, (("eos_token_id", None),)), version)
    eos = found.fields["eos_token_id"]
    assert (eos.value, eos.origin.layer) == (None, "mutation")
    assert [setting.value for setting in eos.overrides] == [[145, 143]]
    assert layers(eos) == ["mutation", "generation_config.json"]
    assert found.stop.never_stops
    assert found.stop.limit == 8


@pytest.mark.parametrize("version", ["4.45.2", "4.57.6", "5.23.0"])
def test_given_the_trainer_nulled_eos_then_a_user_config_has_none_and_the_mutation_is_named(version: str) -> None:
    found = resolve(call(STAMPED_OLD, SCRIPT, None, (("eos_token_id", None), ("pad_token_id", None))), version)
    eos = found.fields["eos_token_id"]
    assert (eos.value, eos.origin.layer) == (None, "mutation")
    assert [setting.value for setting in eos.overrides] == [[145, 143]]
    assert (found.stop.never_stops, found.stop.limit) == (True, 512)


def test_given_an_open_gate_then_the_files_temperature_replaces_the_users() -> None:
    temperature = resolve(call(STAMPED_NEW, SCRIPT), "4.50.3").fields["temperature"]
    assert (temperature.value, temperature.origin.layer) == (0.01, "generation_config.json")
    assert layers(temperature) == ["generation_config.json", "user-config"]
    assert temperature.overrides[0].value == 1.0


def test_given_a_shut_gate_then_the_user_keeps_the_temperature() -> None:
    temperature = resolve(call(STAMPED_OLD, SCRIPT), "4.50.3").fields["temperature"]
    assert (temperature.value, temperature.origin.layer) == (1.0, "user-config")


@pytest.mark.parametrize("version", known_versions())
def test_given_an_argument_then_it_wins_and_the_rest_are_overrides(version: str) -> None:
    found = resolve(call(STAMPED_OLD, {"temperature": 0.7, "do_sample": True}, {"temperature": 0.9}), version)
    temperature = found.fields["temperature"]
    assert (temperature.value, temperature.origin.layer) == (0.9, "kwargs")
    assert temperature.overrides[0].origin.layer == "user-config"
    assert temperature.overrides[0].value == 0.7


def test_given_two_mutations_then_both_are_in_the_chain_the_latest_first() -> None:
    top_k = resolve(call(FILE, None, None, (("top_k", 5), ("top_k", 6))), "5.23.0").fields["top_k"]
    assert [top_k.value, *(setting.value for setting in top_k.overrides)] == [6, 5, 1]


@pytest.mark.parametrize("version", known_versions())
def test_given_nothing_set_then_the_library_or_its_class_is_named(version: str) -> None:
    found = resolve(call(FILE), version)
    assert found.fields["num_beams"].origin.layer == "library-default"
    assert found.fields["num_beams"].overrides == ()


def test_given_no_eos_under_4_57_then_the_class_default_is_named_and_under_5_there_is_none() -> None:
    bare = GenerateCall({"model_type": SourcedValue("llama", Origin("config.json", "config.json"))}, prompt_length=4)
    eos = resolve(bare, "4.57.6").fields["eos_token_id"]
    assert (eos.value, eos.origin.layer) == (2, "class-default")
    assert resolve(bare, "5.0.0").fields["eos_token_id"].value is None


@pytest.mark.parametrize("version", ["four", "4.36.0", "", "4"])
def test_given_a_version_without_rules_then_the_question_is_refused(version: str) -> None:
    with pytest.raises(QuestionError):
        resolve(call(FILE), version)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.sampled_from(["", "never", "145", "static"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "nbits", "0"]), inner, max_size=2),
    max_leaves=5,
)
NAMES = st.sampled_from(sorted({*field_defaults(parse("4.57.6")), *late_defaults(parse("5.23.0")), "my_field", "_private", "tokenizer"}))
LAYER = st.dictionaries(NAMES, JSON, max_size=4)
LAYERS: tuple[ConfigLayer, ...] = ("config.json", "generation_config.json", "user-config", "kwargs", "mutation")


@st.composite
def calls(draw: st.DrawFn) -> GenerateCall:
    changes = st.lists(st.tuples(NAMES, JSON), max_size=3)
    mutations = tuple((name, SourcedValue(value, Origin("mutation", "mutation"))) for name, value in draw(changes))
    edits = tuple((name, SourcedValue(value, Origin("mutation", "config mutation"))) for name, value in draw(changes))
    file, user = draw(st.none() | LAYER), draw(st.none() | LAYER)
    return GenerateCall(
        config=draw(st.none() | LAYER.map(lambda values: of({**CONFIG, **values}, "config.json"))),
        generation_config=None if file is None else of(file, "generation_config.json"),
        mutations=mutations,
        config_mutations=edits,
        user_config=None if user is None else of(user, "user-config"),
        kwargs=of(draw(LAYER), "kwargs"),
        prompt_length=draw(st.integers(0, 30)),
    )


def given_by(generate_call: GenerateCall, name: str) -> dict[ConfigLayer, list[Any]]:
    """What each layer gave for a field."""
    changes = (*generate_call.mutations, *generate_call.config_mutations)
    maps = {
        "config.json": generate_call.config,
        "generation_config.json": generate_call.generation_config,
        "user-config": generate_call.user_config,
        "kwargs": generate_call.kwargs,
    }
    found: dict[ConfigLayer, list[Any]] = {layer: [values[name].value] for layer, values in maps.items() if values and name in values}  # type: ignore[misc]
    return {**found, "mutation": [setting.value for changed, setting in changes if changed == name]}


@settings(max_examples=400, deadline=None)
@given(calls(), st.sampled_from(known_versions()))
def test_given_any_values_then_resolve_answers_and_every_value_is_its_layers(generate_call: GenerateCall, version: str) -> None:
    found = resolve(generate_call, version)
    for name, resolved in found.fields.items():
        if resolved.origin.layer in LAYERS:
            given_values = given_by(generate_call, name)[resolved.origin.layer]
            assert any(value is resolved.value or value == resolved.value for value in given_values), name


@settings(max_examples=200, deadline=None)
@given(calls(), st.text(max_size=8))
def test_given_any_version_text_then_only_the_question_is_refused(generate_call: GenerateCall, version: str) -> None:
    try:
        found = resolve(generate_call, version)
    except QuestionError:
        return
    assert found.transformers


@pytest.mark.parametrize(("version", "said"), [("4.57.6", True), ("5.12.1", True), ("5.13.1", False), ("5.23.0", False)])
def test_the_pad_token_is_announced_up_to_5_12(version: str, said: bool) -> None:
    """transformers 5.13 says nothing of it for a single sequence (generation/utils.py, _prepare_special_tokens)."""
    warnings = resolve(call({"eos_token_id": 145}), version).warnings
    assert any("pad_token_id" in warning for warning in warnings) == said

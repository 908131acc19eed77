"""The presets say what the released trainers do: held against the sources of the trainers installed here, and against known cases."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.installed import installed_version
from llmdoctor.gencfg import trainers as presets
from llmdoctor.gencfg.causes import passed_cause
from llmdoctor.gencfg.trace.sides import answer_of
from llmdoctor.gencfg.trained import SpecialIds, Training, apply_preset, preset_limits, preset_notes
from llmdoctor.gencfg.trainers import call_advice, load_preset, preset_advice, preset_at, preset_names
from llmdoctor.gencfg.types import GenerateCall, Origin, SourcedValue

END, TEXT = 151645, 151643
ROOT = Path(__file__).parent.parent.parent


def settings_of(**values: Any) -> dict[str, SourcedValue]:
    return {key: SourcedValue(value, Origin("generation_config.json", "generation_config.json:5")) for key, value in values.items()}


def qwen(**config: Any) -> GenerateCall:
    """The case of the facts: two ids that end a sequence."""
    return GenerateCall(
        config=settings_of(eos_token_id=END, pad_token_id=TEXT, **config),
        generation_config=settings_of(eos_token_id=[END, TEXT], pad_token_id=TEXT),
    )


def after(
    name: str, call: GenerateCall, *, eos: int | None = None, pad: int | None = None, transformers: str | None = None, **arguments: Any
) -> Any:
    """The call after what the trainer does to the model alone."""
    training = Training(tokens=SpecialIds(eos, pad), transformers=transformers, arguments=arguments)
    return apply_preset(name, call, training, own_call=False)


def changes(call: GenerateCall) -> dict[str, Any]:
    return {name: setting.value for name, setting in call.mutations}


# trl version, preset, what it assigns, and where: read in the sources one by one, not generated.
READ_BY_HAND = [
    ("0.9.6", "trl-ppo", "eos_token_id", None, "trl/trainer/ppov2_trainer.py", 85),
    ("0.9.6", "trl-ppo", "pad_token_id", None, "trl/trainer/ppov2_trainer.py", 88),
    ("0.9.6", "trl-rloo", "eos_token_id", None, "trl/trainer/rloo_trainer.py", 68),
    ("0.11.4", "trl-ppo", "eos_token_id", None, "trl/trainer/ppov2_trainer.py", 111),
    ("0.11.4", "trl-rloo", "eos_token_id", None, "trl/trainer/rloo_trainer.py", 92),
    ("0.12.0", "trl-ppo", "eos_token_id", None, "trl/trainer/ppo_trainer.py", 121),
    ("0.12.2", "trl-ppo", "eos_token_id", None, "trl/trainer/ppo_trainer.py", 123),
    ("0.13.0", "trl-ppo", "eos_token_id", None, "trl/trainer/ppo_trainer.py", 141),
    ("0.13.0", "trl-ppo", "pad_token_id", None, "trl/trainer/ppo_trainer.py", 144),
    ("0.13.0", "trl-rloo", "eos_token_id", None, "trl/trainer/rloo_trainer.py", 109),
    ("0.15.2", "trl-ppo", "eos_token_id", None, "trl/trainer/ppo_trainer.py", 143),
    ("0.15.2", "trl-rloo", "eos_token_id", None, "trl/trainer/rloo_trainer.py", 105),
    ("0.19.1", "trl-ppo", "eos_token_id", None, "trl/trainer/ppo_trainer.py", 145),
    ("0.19.1", "trl-rloo", "eos_token_id", None, "trl/trainer/rloo_trainer.py", 107),
    ("0.24.0", "trl-ppo", "eos_token_id", None, "trl/trainer/ppo_trainer.py", 195),
    ("0.29.1", "trl-ppo", "eos_token_id", None, "trl/experimental/ppo/ppo_trainer.py", 399),
    ("1.0.0", "trl-ppo", "eos_token_id", None, "trl/experimental/ppo/ppo_trainer.py", 410),
    ("1.12.0", "trl-ppo", "eos_token_id", None, "trl/experimental/ppo/ppo_trainer.py", 401),
    ("1.16.0", "trl-grpo", "pad_token_id", TEXT, "trl/trainer/grpo_trainer.py", 406),
    ("1.16.0", "trl-dpo", "pad_token_id", TEXT, "trl/trainer/dpo_trainer.py", 618),
]


@pytest.mark.parametrize(("version", "name", "field", "value", "file", "line"), READ_BY_HAND)
def test_a_preset_assigns_what_the_source_of_that_version_assigns(
    version: str, name: str, field: str, value: Any, file: str, line: int
) -> None:
    call = after(f"{name}@{version}", qwen(), eos=END, pad=TEXT)
    setting = dict(call.mutations)[field]
    assert setting.value == value
    assert setting.origin == Origin("mutation", f"trl {version} {file.rsplit('/', 1)[-1]}:{line}", file, None, line)


def test_ppo_up_to_0_13_clears_pad_too_and_later_versions_only_eos() -> None:
    assert changes(after("trl-ppo@0.13.0", qwen())) == {"eos_token_id": None, "pad_token_id": None}
    assert changes(after("trl-ppo@0.14.0", qwen())) == {"eos_token_id": None}


def test_stop_token_eos_sets_one_id_from_0_14_on() -> None:
    stop_token = {"stop_token": "eos"}
    assert changes(after("trl-ppo@1.0.0", qwen(), eos=END, **stop_token)) == {"eos_token_id": END}
    assert changes(after("trl-ppo@1.0.0", qwen(), stop_token_id=7)) == {"eos_token_id": 7}
    assert changes(after("trl-ppo@0.13.0", qwen(), eos=END, **stop_token))["eos_token_id"] is None


def test_sft_unites_eos_only_where_a_new_one_is_asked_for() -> None:
    def call(**arguments: Any) -> dict[str, Any]:
        return changes(after("trl-sft@1.16.0", qwen(), eos=7, transformers="4.50.0", **arguments))

    assert "eos_token_id" not in call()
    assert call(eos_token="<|end|>")["eos_token_id"] == [7, END, TEXT]


def test_a_trainer_that_trains_like_transformers_also_aligns_its_tokens() -> None:
    new = after("trl-sft@1.0.0", qwen(), eos=7, transformers="5.23.0")
    assert changes(new) == {"eos_token_id": [7, END, TEXT]}
    assert new.mutations[0][1].origin.source == "transformers 5.23.0 trainer_utils.py:1205"
    assert not after("trl-sft@1.0.0", qwen(), eos=7, transformers="4.55.4").mutations
    assert changes(after("trl-ppo@1.0.0", qwen(), eos=7, transformers="5.23.0")) == {"eos_token_id": None}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("trl-pppo", "trl-ppo, trl-reward"),
        ("trl-ppo@", "version is missing"),
        ("trl-ppo@newest", "not a version"),
        ("trl-ppo@0.8.0", "older than any"),
        ("trl-ppo@1.16.0", "trl 1.16.0 has no such trainer; versions 0.9.2 to 1.12.0"),
        ("trl-grpo@0.9.6", "has no such trainer"),
        ("transformers-trainer@4.50.0", "has no such trainer"),
        ("", "unknown preset"),
    ],
)
def test_a_preset_that_is_none_is_refused_in_one_sentence(name: str, words: str) -> None:
    with pytest.raises(QuestionError, match=words) as caught:
        load_preset(name)
    assert "\n" not in str(caught.value)


def test_a_newer_version_is_answered_with_the_newest_and_says_so() -> None:
    assert load_preset("trl-sft@2.0.0").known == "1.16.0"
    assert any("newer than any version known here" in note for note in preset_notes("trl-sft@2.0.0", Training()))
    assert not preset_notes("trl-ppo@1.0.0", Training())


def test_the_default_version_is_the_installed_one_or_the_newest_with_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    for installed, answered in (("0.13.0", "0.13.0"), ("1.16.0", "1.12.0"), (None, "1.12.0"), ("unknown", "1.12.0")):
        monkeypatch.setattr(presets, "installed_version", lambda _, found=installed: found)
        assert load_preset("trl-ppo").version == answered
        assert bool(preset_notes("trl-ppo", Training())) == (installed != answered)


def test_advice_names_what_that_version_understands() -> None:
    fix, watch = preset_advice("trl-ppo@1.0.0") or (None, None)
    assert 'PPOConfig(stop_token="eos")' in (fix or "")
    assert "checkpoint" in (watch or "")
    assert "only cuts the text afterwards" in ((preset_advice("trl-ppo@0.13.0") or ("",))[0] or "")
    assert preset_advice("trl-grpo@1.0.0") is None
    assert preset_advice("trl-rloo@0.22.0") is None


def test_what_a_harness_passes_is_a_call_of_its_own() -> None:
    training = Training(tokens=SpecialIds(END, TEXT), transformers="5.23.0")
    lighteval = apply_preset("lighteval-transformers", qwen(), training)
    assert lighteval.kwargs["eos_token_id"].value == END
    assert lighteval.kwargs["eos_token_id"].origin.layer == "trainer"
    lm_eval = apply_preset("lm-eval-hf", replace(qwen(), prompt_length=100), training)
    assert lm_eval.kwargs["max_length"].value == 356
    limits = preset_limits("lighteval-transformers", training)
    assert any("max_new_tokens" in limit for limit in limits)
    assert load_preset("openrlhf-vllm").engine == "vllm"


def test_an_unknown_tokenizer_is_said_and_not_guessed() -> None:
    assert not after("trl-grpo@1.13.0", qwen(), transformers="4.50.0").mutations
    assert any("pad_token_id" in note for note in preset_notes("trl-grpo@1.13.0", Training()))


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(preset_names()),
    eos=st.one_of(st.none(), st.integers(0, 9)),
    pad=st.one_of(st.none(), st.integers(0, 9)),
    model_eos=st.one_of(st.none(), st.integers(0, 9), st.lists(st.integers(0, 9))),
)
def test_a_preset_only_ever_appends_mutations(name: str, eos: int | None, pad: int | None, model_eos: Any) -> None:
    earlier = (("temperature", SourcedValue(0.5, Origin("mutation", "--mutate temperature"))),)
    before = GenerateCall(
        config={}, generation_config=settings_of(eos_token_id=model_eos), mutations=earlier, user_config=settings_of(top_k=3)
    )
    version = load_preset(name).known
    trained = after(name, before, eos=eos, pad=pad, transformers="5.23.0")
    assert trained.mutations[:1] == earlier
    assert (trained.config, trained.generation_config, trained.user_config, trained.kwargs) == (
        before.config,
        before.generation_config,
        before.user_config,
        {},
    )
    assert all(setting.origin.layer == "mutation" and setting.origin.line for _, setting in trained.mutations[1:])
    assert version


# --- against the sources installed here -------------------------------------------------------------------------------------------


def site(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(found.origin).parent.parent


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_presets", ROOT / "conformance" / "make_presets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_presets"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def known_version(library: str) -> str:
    version = installed_version(library)
    if version not in presets._data()[library]["versions"]:
        pytest.skip(f"{library} {version} is not among the known versions")
    return str(version)


@pytest.mark.parametrize("name", preset_names())
def test_each_recorded_line_of_the_installed_library_holds_the_assignment(name: str) -> None:
    library = load_preset(name).library
    if library not in ("transformers", "trl"):
        pytest.skip("conformance/check_callers.py compares the lines of this library")
    root, version = site(library), known_version(library)
    try:
        preset = load_preset(name, version=version)
    except QuestionError:
        pytest.skip(f"{library} {version} has no {name}")
    for item in preset.assignments:
        line = (root / item.file).read_text(encoding="utf-8").splitlines()[item.line - 1]
        written = f"generation_config.{item.field} =" if item.target == "model" else item.field
        if "align" in item.value:  # 5.18 and later: setattr(generation_config, name, ...)
            assert "setattr" in line or written in line
        elif item.field != "*":
            assert written in line


@pytest.mark.parametrize("library", ["trl", "transformers"])
def test_reading_the_installed_library_again_gives_the_recorded_facts(library: str, tmp_path: Path) -> None:
    root, version, make = site(library), known_version(library), generator()
    if library == "transformers":  # the three files that matter; the package has thousands
        for file in ("trainer.py", "trainer_utils.py", "trainer_seq2seq.py"):
            (tmp_path / library).mkdir(exist_ok=True)
            shutil.copy(root / library / file, tmp_path / library / file)
        root = tmp_path
    facts = (make.trl_facts if library == "trl" else make.transformers_facts)(root, version)
    recorded = make.unpack(presets._data()[library])[version]
    for found in facts.values():
        found["records"].sort(key=lambda record: (record["target"], record["file"], record["line"]))
    assert facts == recorded


def test_packing_is_reversible() -> None:
    make = generator()
    for library in ("trl", "transformers"):
        packed = presets._data()[library]
        assert make.pack(make.unpack(packed)) == packed


@pytest.mark.live
@settings(max_examples=300, deadline=None)
@given(
    own=st.one_of(st.none(), st.integers(0, 4)),
    eos=st.one_of(st.none(), st.integers(0, 4), st.lists(st.integers(0, 4), unique=True)),
    declared=st.one_of(st.none(), st.integers(0, 4), st.lists(st.integers(0, 4), unique=True)),
)
def test_the_alignment_is_that_of_the_real_trainer(own: int | None, eos: Any, declared: Any) -> None:
    utils = pytest.importorskip("transformers.trainer_utils")
    if not hasattr(utils, "align_special_tokens"):
        pytest.skip("this transformers has its alignment elsewhere")
    config = SimpleNamespace(eos_token_id=declared, pad_token_id=None, bos_token_id=None)
    config.get_text_config = lambda: config
    model = SimpleNamespace(config=config, generation_config=SimpleNamespace(eos_token_id=eos, pad_token_id=None, bos_token_id=None))
    utils.align_special_tokens(model, SimpleNamespace(eos_token_id=own, pad_token_id=None, bos_token_id=None))
    call = GenerateCall(config=settings_of(eos_token_id=declared), generation_config=settings_of(eos_token_id=eos))
    aligned = changes(after("transformers-trainer", call, eos=own)).get("eos_token_id", eos)
    assert aligned == model.generation_config.eos_token_id


@pytest.mark.parametrize("name", ["trl-online-dpo", "trl-nash-md", "trl-xpo"])
def test_a_trainer_that_leaves_out_none_gets_the_default_of_transformers(name: str) -> None:
    """Seen with the real trainers of trl 0.24.0 under transformers 4.57.6 (conformance/check_trainers.py): top_k is 50."""
    training = Training(tokens=SpecialIds(END, TEXT), transformers="4.57.6")
    call = apply_preset(f"{name}@0.24.0", GenerateCall(), training)
    assert call.user_config is not None
    assert "top_k" not in call.user_config
    assert call.user_config["max_new_tokens"].value == 64


def test_a_line_that_a_subclass_shares_is_that_of_its_parent() -> None:
    """DPPO is a subclass of GRPO without a config of its own there: the fix is GRPO's."""
    found = preset_at("trl", "1.0.0", "trl/trainer/grpo_trainer.py", 774)
    assert found == "trl-grpo@1.0.0"
    assert call_advice(found, [2, 4]) == 'GRPOConfig(generation_kwargs={"eos_token_id": [2, 4]})'


def test_a_trace_of_a_trainer_that_narrows_eos_has_the_fix_for_the_trainer() -> None:
    origin = {
        "layer": "user-config",
        "source": "trl 1.0.0 grpo_trainer.py:774",
        "file": "/x/site-packages/trl/trainer/grpo_trainer.py",
        "line": 774,
    }
    earlier = {"overrides": [{"layer": "mutation", "value": [2, 4], "source": "a.py:1"}]}
    record = {
        "kind": "generate",
        "transformers": "5.23.0",
        "effective": {"eos_token_id": 2, "max_new_tokens": 5},
        "provenance": {"eos_token_id": {**origin, **earlier}},
        "sequences": [],
    }
    assert passed_cause(answer_of(record), 4).fix == 'GRPOConfig(generation_kwargs={"eos_token_id": [2, 4]})'

"""Which limits the first line of an answer carries, and that what no library reads is not shown as effective."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report
from llmdoctor.gencfg.check import check_report
from llmdoctor.gencfg.diff import diff_report
from llmdoctor.gencfg.options import DiffOptions, GencfgCheckOptions, GencfgOptions
from llmdoctor.gencfg.show import show_report
from tests.conftest import END, EOS, write_model

V = "5.23.0"


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "model"))


def text(report: Report) -> str:
    assert report.verdict is not None
    return report.verdict.text


def show(model: str, **options: Any) -> Report:
    return show_report(GencfgOptions(**{"model": model, "transformers": V, **options}))


def test_a_limit_that_nothing_sets_is_named_as_the_default(model: str) -> None:
    report = show(model)
    assert "20 new tokens (the default)" in text(report)
    assert report.result is not None
    assert report.result["stop"]["limit_is_default"] is True
    assert {"what": "limit of new tokens", "value": 20} in report.result["inputs"]["assumed"]
    chosen = show(model, sets=("max_new_tokens=20",))
    assert "default" not in text(chosen)


def test_a_version_that_is_not_installed_or_not_known_is_in_the_verdict(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmdoctor.configs.versions.installed_version", lambda name: V if name == "transformers" else None)
    assert "4.49.0, which is not installed here" in text(show(model, transformers="4.49.0"))
    assert "newer than every version known here" in text(show(model, transformers="9.1.0"))
    assert "installed" not in text(show(model))
    assert "none is installed" in text(show(model, transformers=None, engine="vllm"))
    assert "sources of TGI" in text(show(model, transformers=None, engine="tgi"))


def test_without_a_key_the_answer_is_another_and_says_so(model: str) -> None:
    report = show(model, without=("eos_token_id",))
    assert "without eos_token_id" in text(report)
    assert report.result is not None
    assert report.result["stop"]["never_stops"] is True
    with pytest.raises(QuestionError, match="no file that was read sets temprature"):
        show(model, without=("temprature",))
    checked = check_report(GencfgCheckOptions(paths=(model,), without=("eos_token_id",), transformers=V))
    assert "without eos_token_id" in text(checked)
    assert "GEN001" in {finding.code for finding in checked.findings}


def test_a_field_that_no_version_has_is_ignored_and_not_effective(tmp_path: Path) -> None:
    fields = {"eos_token_id": [END, EOS], "temprature": 0.2, "max_tokens": 512, "vendor_note": 1, "top_k": 3, "do_sample": True}
    model = str(write_model(tmp_path / "model", generation_config=fields))
    result = show(model).result
    assert result is not None
    assert not {"temprature", "max_tokens", "vendor_note"} & result["effective"].keys()
    ignored = {entry["key"]: entry["reason"] for entry in result["inputs"]["ignored"]}
    assert "temperature" in ignored["temprature"]
    assert "max_new_tokens" in ignored["max_tokens"]
    found = {
        finding.evidence["field"]: finding
        for finding in check_report(GencfgCheckOptions(paths=(model,))).findings
        if finding.code == "GEN023"
    }
    assert {name: finding.severity.value for name, finding in found.items()} == {
        "temprature": "warning", "max_tokens": "warning", "vendor_note": "info",
    }  # fmt: skip


def test_every_key_of_the_files_is_used_or_ignored_with_a_reason(model: str) -> None:
    result = show(model).result
    assert result is not None
    inputs = result["inputs"]
    keys = {name.rsplit("#/", 1)[-1] for name in (*inputs["used"], *(entry["key"] for entry in inputs["ignored"]))}
    for name in ("config.json", "generation_config.json"):
        assert json.loads((Path(model) / name).read_text()).keys() <= keys


def test_a_preset_that_passes_its_own_config_says_with_which_arguments(model: str) -> None:
    report = show(model, presets=("trl-grpo@1.0.0",))
    assert "with the default arguments of trl 1.0.0's GRPOTrainer, without vLLM" in text(report)
    assert report.result is not None
    assert report.result["provenance"]["max_new_tokens"]["layer"] == "trainer"
    config = Path(model) / "call.json"
    config.write_text("{}")
    assert "without the GenerationConfig that trl 1.0.0's GRPOTrainer passes itself" in text(
        show(model, presets=("trl-grpo@1.0.0",), config=str(config))
    )


def test_a_trainer_that_passes_the_end_of_a_turn_is_found_with_a_fix_for_it(tmp_path: Path) -> None:
    tokenizer = {
        "eos_token": "<|endoftext|>",
        "chat_template": json.loads((write_model(tmp_path / "m") / "tokenizer_config.json").read_text())["chat_template"],
    }
    model = str(write_model(tmp_path / "model", tokenizer_config=tokenizer))
    plain = GencfgOptions(model=model, transformers=V)
    trained = GencfgOptions(model=model, transformers=V, presets=("trl-grpo@1.0.0",))
    report = diff_report(DiffOptions(left=plain, right=trained))
    assert text(report).startswith(f"The right call does not stop at {END} <|im_end|>, with which a turn ends")
    (finding,) = [each for each in report.findings if each.code == "GEN002"]
    assert finding.fix is not None
    assert finding.fix.startswith("GRPOConfig(generation_kwargs=")
    assert str(END) in finding.fix


def test_options_of_the_same_type_are_not_confused(model: str) -> None:
    report = show(model, sets=("max_new_tokens=7",), mutate=("pad_token_id=3",), mutate_config=("bos_token_id=4",))
    assert report.result is not None
    provenance = report.result["provenance"]
    assert (provenance["max_new_tokens"]["layer"], provenance["pad_token_id"]["layer"]) == ("kwargs", "mutation")
    assert report.result["effective"]["pad_token_id"] == 3
    assert report.result["effective"]["bos_token_id"] == EOS


def test_a_forced_eos_beyond_the_vocabulary_is_an_index_error(model: str) -> None:
    result = show(model, sets=("forced_eos_token_id=99999",)).result
    assert result is not None
    assert result["error"]["type"] == "IndexError"


@pytest.mark.parametrize(("rows", "codes"), [(None, {"GEN024"}), (16, {"GEN024"}), (18, set())])
def test_an_adapter_that_stores_the_larger_embedding_has_the_tokens(tmp_path: Path, rows: int | None, codes: set[str]) -> None:
    base = write_model(tmp_path / "base")
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({"id": 16, "content": "<|done|>", "special": True})
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base), "peft_type": "LORA"}))
    (adapter / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((base / "tokenizer_config.json").read_text())
    template = settings["chat_template"].replace("<|im_end|>", "<|done|>")
    (adapter / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<|im_end|>", "chat_template": template}))
    if rows is not None:
        entry = {"dtype": "U8", "shape": [rows, 1], "data_offsets": [0, rows]}
        header = json.dumps({"base_model.model.model.embed_tokens.weight": entry}).encode()
        (adapter / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(rows))
    findings = check_report(GencfgCheckOptions(paths=(str(adapter),), transformers=V)).findings
    assert {finding.code for finding in findings if finding.code == "GEN024"} == codes
    assert any(finding.code == "GEN002" for finding in findings) is not bool(codes), "an id that cannot be produced is no fix"


@pytest.mark.parametrize(("version", "own"), [("0.10.2", True), ("0.11.2", False), ("0.33.0", False)])
def test_vllm_stops_an_adapter_at_the_eos_of_its_own_tokenizer_until_0_10(version: str, own: bool, tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base), "peft_type": "LORA"}))
    (adapter / "tokenizer.json").write_text((base / "tokenizer.json").read_text())
    (adapter / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<|im_start|>"}))
    stops = [show(str(path), engine=f"vllm@{version}", transformers=None).result for path in (base, adapter)]
    ids = [set(result["stop"]["eos_token_id"]) for result in stops if result is not None]
    assert (len(ids[1] - ids[0]) == 1) is own
    assert own or ids[0] == ids[1]


@pytest.mark.parametrize("engine", ["tgi", "ollama", "tensorrt-llm"])
def test_without_a_tokenizer_an_engine_that_takes_its_eos_token_is_undecided(engine: str, tmp_path: Path) -> None:
    """No file of the directory gives such an engine a stop id; the tokenizer that it needs to run is elsewhere, and may give one."""
    folder = tmp_path / "config-only"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "eos_token_id": END}))
    alone = show(str(folder), engine=engine, transformers=None)
    assert alone.verdict is not None
    assert alone.verdict.status == "undecided"
    assert "no tokenizer" in text(alone)
    assert alone.findings == ()
    both = diff_report(DiffOptions(left=GencfgOptions(model=str(folder)), right=GencfgOptions(model=str(folder), engine=engine)))
    assert both.verdict is not None
    assert both.verdict.status == "undecided"
    assert "runs past" not in str(both.document)


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}{{ message.content }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    ],
    ids=["not Jinja", "without an end"],
)
def test_a_template_that_cannot_be_rendered_leaves_the_end_of_a_turn_unknown(model: str, tmp_path: Path, template: str) -> None:
    odd = write_model(
        tmp_path / "odd", tokenizer_config={"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": template}
    )
    clause = "the end of a turn is unknown, because the chat template cannot be rendered"
    assert clause in text(show(str(odd)))
    assert clause in text(diff_report(DiffOptions(left=GencfgOptions(model=model), right=GencfgOptions(model=str(odd)))))
    assert clause not in text(show(model))

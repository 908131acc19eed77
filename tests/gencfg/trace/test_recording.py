"""The recorder over the real library, in this process: what it records, and that nothing is left of it."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.demo.live.tiny_qwen2_vl import build
from tests.conftest import Outcome

pytestmark = pytest.mark.live
for package in ("torch", "transformers", "torchvision", "PIL"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

from llmdoctor.gencfg.trace.recording import Recording, recording  # noqa: E402

Records = list[dict[str, Any]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tiny") / "qwen2-vl")


def snapshot() -> list[Any]:
    """Everything that the recorder could leave behind."""
    from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    kinds = (GenerationConfig, GenerationMixin, PreTrainedModel, PreTrainedTokenizerBase)
    # copyreg keeps what it finds out of a class on it, when an instance is copied or pickled.
    held = [{name: value for name, value in vars(kind).items() if name != "__slotnames__"} for kind in kinds]
    return [*held, list(sys.meta_path)]


@pytest.fixture
def recorded() -> Iterator[Recording]:
    before = snapshot()
    with recording() as found:
        yield found
    assert snapshot() == before


def of(found: Recording, kind: str) -> Records:
    return [record for record in found.records if record["kind"] == kind]


@pytest.fixture
def model(recorded: Recording, directory: Path) -> Any:
    from transformers import Qwen2VLForConditionalGeneration

    return Qwen2VLForConditionalGeneration.from_pretrained(directory).eval()


@pytest.fixture
def inputs(directory: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Describe this image."}], tokenize=False, add_generation_prompt=True)
    return tokenizer(text, return_tensors="pt")


def line_of(words: str) -> int:
    """The line of this file with these words."""
    return next(number for number, line in enumerate(Path(__file__).read_text().splitlines(), 1) if words in line)


def test_an_exception_leaves_nothing_behind() -> None:
    before = snapshot()
    with pytest.raises(ZeroDivisionError), recording():
        _ = 1 / 0
    assert snapshot() == before


def test_a_patched_library_behaves_as_before(recorded: Recording, model: Any) -> None:
    import copy
    import pickle

    from transformers import GenerationConfig

    config = GenerationConfig(eos_token_id=[1, 2], custom=3)
    assert copy.deepcopy(config).to_dict() == config.to_dict() == pickle.loads(pickle.dumps(config)).to_dict()
    assert config.update(temperature=0.5, nonsense=1) == {"nonsense": 1}
    assert "generation_config" in vars(model)
    assert copy.deepcopy(model).generation_config.to_dict() == model.generation_config.to_dict()
    del model.generation_config
    with pytest.raises(AttributeError, match="generation_config"):
        _ = model.generation_config


def test_an_assignment_has_its_line_and_what_it_replaced(recorded: Recording, model: Any) -> None:
    model.generation_config.temperature = 0.3  # the assignment
    (record,) = of(recorded, "mutation")
    assert (record["target"], record["field"], record["before"], record["after"]) == ("model.generation_config", "temperature", 0.01, 0.3)
    assert (Path(record["file"]).name, record["line"]) == (Path(__file__).name, line_of("# the assignment"))


def test_a_config_that_is_replaced_whole(recorded: Recording, model: Any) -> None:
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(max_new_tokens=3)  # the replacement
    (record,) = of(recorded, "mutation")
    assert (record["target"], record["field"]) == ("model", "generation_config")
    assert record["before"]["eos_token_id"] == [336, 334]
    assert record["after"]["eos_token_id"] is None
    assert record["line"] == line_of("# the replacement")


def test_a_config_that_update_changes(recorded: Recording, model: Any) -> None:
    model.generation_config.update(top_k=7)  # the update
    (record,) = of(recorded, "mutation")
    assert (record["field"], record["line"]) == ("top_k", line_of("# the update"))


def test_every_layer_of_a_call(recorded: Recording, model: Any, inputs: Any) -> None:
    from transformers import GenerationConfig

    model.generation_config.top_p = 0.5  # mutation
    config = GenerationConfig(max_new_tokens=40, do_sample=True)  # user config
    config.temperature = 0.9
    model.generate(**inputs, generation_config=config, top_k=5)  # the call
    (call,) = of(recorded, "generate")
    layers = {name: (entry["layer"], entry["line"]) for name, entry in call["provenance"].items()}
    assert layers["top_p"] == ("mutation", line_of("# mutation"))
    assert layers["max_new_tokens"] == ("user-config", line_of("# user config"))
    assert layers["temperature"] == ("user-config", line_of("config.temperature = 0.9"))
    assert layers["top_k"] == ("kwargs", line_of("# the call"))
    assert layers["eos_token_id"][0] == "generation_config.json"
    assert layers["max_length"][0] == "derived"
    assert call["line"] == line_of("# the call")
    assert call["effective"]["max_length"] == call["prompt_length"] + 40
    assert call["kwargs"] == {"top_k": 5}


def test_what_the_recorder_saw_is_what_the_rules_predict(
    recorded: Recording, model: Any, inputs: Any, directory: Path, tmp_path: Path
) -> None:
    """A live run feeds the same models: the recorded config and the one resolved from the files are the same."""
    from transformers import GenerationConfig

    from llmdoctor.gencfg.calls import resolve_files
    from llmdoctor.gencfg.options import GencfgOptions

    passed = {"max_new_tokens": 20, "temperature": 1.0, "do_sample": True}
    (tmp_path / "call.json").write_text(json.dumps(passed))
    model.generate(**inputs, generation_config=GenerationConfig(**passed))
    (call,) = of(recorded, "generate")
    options = GencfgOptions(model=str(directory), config=str(tmp_path / "call.json"), prompt_length=call["prompt_length"])
    predicted = resolve_files(options).effective
    fields = {name: field.value for name, field in predicted.fields.items() if field.value is not None}
    assert call["transformers"] == predicted.transformers
    for name in {*fields, *call["effective"]} - {"transformers_version"}:
        assert call["effective"].get(name) == fields.get(name) or name.startswith("_"), name


def test_beams_and_returned_sequences_have_a_prompt_each(recorded: Recording, model: Any, inputs: Any) -> None:
    model.generate(**inputs, num_beams=2, num_return_sequences=2, max_new_tokens=16, do_sample=False)
    (call,) = of(recorded, "generate")
    assert [sequence["prompt_tokens"] for sequence in call["sequences"]] == [call["prompt_length"]] * 2


def test_a_call_that_fails_is_recorded_and_raises_as_it_would_have(recorded: Recording, model: Any, inputs: Any) -> None:
    with pytest.raises(ValueError, match="temperature"):
        model.generate(**inputs, do_sample=True, temperature=-1.0)
    (call,) = of(recorded, "generate")
    assert call["error"]["type"] == "ValueError"
    assert call["sequences"] == []


def test_a_fault_in_the_recorder_is_a_record_and_the_call_goes_on(
    recorded: Recording, model: Any, inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmdoctor.gencfg.trace import calls

    def broken(*_: Any) -> Any:
        raise LookupError("planted")

    monkeypatch.setattr(calls, "ending", broken)
    assert model.generate(**inputs, max_new_tokens=16).shape[0] == 1
    (fault,) = of(recorded, "fault")
    assert fault["error"] == "LookupError: planted"


def test_a_stop_string_and_a_criterion_of_ones_own(recorded: Recording, model: Any, inputs: Any, directory: Path) -> None:
    from transformers import AutoTokenizer, StoppingCriteria, StoppingCriteriaList

    class Third(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            import torch

            return torch.full((input_ids.shape[0],), input_ids.shape[1] >= inputs["input_ids"].shape[1] + 3)

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model.generation_config.eos_token_id = None
    model.generate(**inputs, max_new_tokens=30, stop_strings=["shows"], tokenizer=tokenizer)
    model.generate(**inputs, max_new_tokens=30, stopping_criteria=StoppingCriteriaList([Third()]))
    strings, own = of(recorded, "generate")
    assert strings["sequences"][0]["stop_reason"] == "stop_string"
    assert own["sequences"][0]["stop_reason"] == "other"
    assert own["sequences"][0]["new_tokens"] == 3
    assert own["custom"] == {"stopping_criteria": ["Third"]}
    assert recorded.complaint() is None


def test_a_call_that_cannot_stop_is_complained_of(recorded: Recording, model: Any, inputs: Any) -> None:
    model.generate(**inputs, max_new_tokens=20)
    assert recorded.complaint() is None
    model.generation_config.eos_token_id = None  # the damage
    model.generate(**inputs, max_new_tokens=20)
    complaint = recorded.complaint()
    assert complaint is not None
    assert f"test_recording.py:{line_of('# the damage')} set model.generation_config.eos_token_id [336, 334] -> None" in complaint
    report = recorded.report()
    assert report.findings[0].code == "GEN001"


def test_a_list_that_became_one_id_is_the_cause_of_running_past_the_other(recorded: Recording, model: Any, inputs: Any) -> None:
    """What stop_token="eos" of TRL's PPO does to a chat model whose turns end with the other id."""
    model.generation_config.eos_token_id = 334  # one id
    model.generate(**inputs, max_new_tokens=13)
    report = recorded.report()
    (finding,) = report.findings
    assert (finding.code, finding.severity.value) == ("GEN014", "error")
    assert finding.cause == f"test_recording.py:{line_of('# one id')} set eos_token_id [336, 334] -> 334, without 336 <|im_end|>"
    assert finding.fix == "GenerationConfig(..., eos_token_id=[336, 334])"


def test_a_positional_criterion_counts(recorded: Recording, model: Any, inputs: Any) -> None:
    from transformers import StoppingCriteriaList

    criteria = StoppingCriteriaList([lambda input_ids, scores, **_: input_ids.new_ones(input_ids.shape[0], dtype=bool)])
    model.generate(inputs["input_ids"], None, None, criteria, eos_token_id=None, max_new_tokens=9)
    (call,) = of(recorded, "generate")
    assert [sequence["stop_reason"] for sequence in call["sequences"]] == ["other"]
    assert recorded.complaint() is None


def test_padding_is_nobodys_token(recorded: Recording, model: Any, inputs: Any) -> None:
    """One row runs to the limit, the other was ended by a criterion and filled up."""
    import torch
    from transformers import StoppingCriteriaList

    def first_row_after_three(input_ids: Any, scores: Any, **_: Any) -> Any:
        done = torch.zeros(input_ids.shape[0], dtype=torch.bool)
        done[0] = input_ids.shape[1] >= inputs["input_ids"].shape[1] + 3
        return done

    both = {name: value.repeat(2, 1) for name, value in inputs.items()}
    criteria = StoppingCriteriaList([first_row_after_three])
    model.generate(**both, max_new_tokens=6, eos_token_id=341, pad_token_id=334, stopping_criteria=criteria)
    (call,) = of(recorded, "generate")
    ends = [(each["new_tokens"], each["stop_reason"], each["passed_terminator_at"]) for each in call["sequences"]]
    assert ends == [(3, "other", None), (6, "length", None)]


@pytest.mark.parametrize("how", ["in place", "in __dict__"])
def test_a_change_that_was_not_seen_is_not_blamed_on_the_file(how: str, recorded: Recording, model: Any, inputs: Any) -> None:
    if how == "in place":
        model.generation_config.eos_token_id.clear()
    else:
        model.generation_config.__dict__["eos_token_id"] = None
    model.generate(**inputs, max_new_tokens=20)
    (call,) = of(recorded, "generate")
    entry = call["model_provenance"]["eos_token_id"]
    assert (entry["layer"], entry["source"]) == ("mutation", "code that the recorder did not see")
    assert entry["overrides"][0]["value"] == [336, 334]
    complaint = recorded.complaint()
    assert complaint is not None
    assert "code that the recorder did not see set model.generation_config.eos_token_id [336, 334] ->" in complaint


def test_a_model_from_before_the_recording_is_not_blamed_on_a_file(directory: Path, inputs: Any) -> None:
    from transformers import Qwen2VLForConditionalGeneration

    model = Qwen2VLForConditionalGeneration.from_pretrained(directory)
    model.generation_config.eos_token_id = None
    with recording() as found:
        model.generate(**inputs, max_new_tokens=4)
        complaint = found.complaint()
    assert complaint is not None
    assert "the change was not recorded" in complaint


def test_an_argument_of_from_pretrained_is_not_in_the_file(recorded: Recording, directory: Path) -> None:
    from transformers import GenerationConfig

    config = GenerationConfig.from_pretrained(directory, top_k=7, eos_token_id=99)  # both arguments
    latest = {name: sources[-1] for name, sources in _origins(recorded).of(config).items()}
    assert (latest["top_k"].layer, latest["eos_token_id"].layer, latest["temperature"].layer) == (
        "user-config",
        "user-config",
        "generation_config.json",
    )
    assert latest["top_k"].fields("top_k")["line"] == line_of("# both arguments")
    assert "num_beams" not in latest


def _origins(found: Recording) -> Any:
    return found._recorder.origins


def test_two_recordings_that_end_in_the_order_they_began(directory: Path, inputs: Any) -> None:
    from transformers import Qwen2VLForConditionalGeneration

    before = snapshot()
    first, second = Recording(None), Recording(None)
    Qwen2VLForConditionalGeneration.from_pretrained(directory).generate(**inputs, max_new_tokens=4)
    first.close()
    Qwen2VLForConditionalGeneration.from_pretrained(directory).generate(**inputs, max_new_tokens=4)
    second.close()
    assert snapshot() == before
    assert [len(of(each, "generate")) for each in (first, second)] == [1, 2]


def test_a_file_holds_the_same_as_memory(directory: Path, inputs: Any, tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    from transformers import Qwen2VLForConditionalGeneration

    with recording(tmp_path / "run.jsonl"):
        Qwen2VLForConditionalGeneration.from_pretrained(directory).generate(**inputs, max_new_tokens=16)
    assert [path.name for path in tmp_path.iterdir()] == ["run.jsonl"]
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert kinds == ["run", "load", "generate"]
    outcome = llmdoctor("gencfg", "trace", "--summary", "run.jsonl", cwd=tmp_path)
    assert outcome.code == 0
    assert outcome.out.startswith("Every sequence stopped: 1 of 1.")


def test_a_trainer_callback_traces_until_training_ends(directory: Path, inputs: Any, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from transformers import Qwen2VLForConditionalGeneration, Trainer, TrainerCallback, TrainingArguments

    from llmdoctor.gencfg.trace.live import trace_callback

    before = snapshot()
    model = Qwen2VLForConditionalGeneration.from_pretrained(directory)

    class Sampling(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, model: Any, **__: Any) -> None:
            model.generation_config.eos_token_id = None
            model.generate(**inputs, max_new_tokens=20)

    reported: dict[str, Any] = {}

    class Reporter(TrainerCallback):  # type: ignore[misc]
        """Takes what it is given when it is called, as the callbacks of TensorBoard and others do."""

        def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
            reported.update({**logs, **reported})  # the first log wins: the last one of a training is its summary

    rows = [{"input_ids": inputs["input_ids"][0], "labels": inputs["input_ids"][0]}]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=1, logging_steps=1, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True
    )
    callback = trace_callback(tmp_path / "run.jsonl")
    Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[Reporter(), callback, Sampling()]).train()
    assert reported["llmdoctor/sequences"] == 1
    assert 0 <= reported["llmdoctor/past_terminator_share"] <= reported["llmdoctor/at_limit_share"] == 1
    assert snapshot() == before
    records = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [record["kind"] for record in records] == ["run", "mutation", "generate"]


TEST = """
import unittest
import pytest
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

def ask(eos):
    model = Qwen2VLForConditionalGeneration.from_pretrained({directory!r})
    if not eos:
        model.generation_config.eos_token_id = None
    inputs = AutoTokenizer.from_pretrained({directory!r})("Describe", return_tensors="pt")
    model.generate(**inputs, max_new_tokens=4)

def test_stops(generate_must_stop):
    ask(True)
    assert len([record for record in generate_must_stop.records if record["kind"] == "generate"]) == 1

def test_runs_on(generate_must_stop):
    ask(False)

def test_is_not_asked():
    ask(False)

class TestOld(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _judged(self, generate_must_stop): pass

    def test_runs_on_too(self):
        ask(False)

@pytest.mark.must_stop
def test_marked_runs_on():
    ask(False)

@pytest.mark.max_memory("20GiB")
def test_is_not_measured_without_a_gpu():
    assert False, "it would prove nothing"

@pytest.mark.max_memory(20)
def test_a_size_without_a_unit():
    pass
"""


def test_the_pytest_fixture_fails_a_test_whose_generate_cannot_stop(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(TEST.format(directory=str(directory)))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--strict-markers", "test_user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert re.search(
        "3 failed, 3 passed, 1 skipped, 1 error|4 failed, 3 passed, 1 error", done.stdout
    )  # the second on a machine with a GPU
    assert "FAILED test_user.py::test_marked_runs_on" in done.stdout
    assert "max_memory takes one size with its unit" in done.stdout
    assert "test_user.py:9 set model.generation_config.eos_token_id [336, 334] -> None" in done.stdout
    assert "FAILED test_user.py::test_runs_on" in done.stdout
    assert "ERROR test_user.py::TestOld::test_runs_on_too" in done.stdout


OWN = """
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM


class Own(Qwen2ForCausalLM):
    def generate(self, ids, temperature=1.0, reach=False, **rest):
        if reach:
            return super().generate(ids, temperature=temperature, **rest)
        return torch.cat([ids, ids], 1)


config = Qwen2Config(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
model = Own(config).eval()
"""


@pytest.mark.live
@pytest.mark.parametrize("reach", [False, True])
def test_a_generate_of_the_models_own_is_a_call(reach: bool, tmp_path: Path) -> None:
    code = compile(OWN, str(tmp_path / "own.py"), "exec")
    with recording() as found:
        names: dict[str, Any] = {}
        exec(code, names)
        names["model"].generate(names["torch"].tensor([[5, 6]]), temperature=0.6, reach=reach, max_new_tokens=2, do_sample=True)
    (record,) = [each for each in found.records if each["kind"] == "generate"]
    assert (record.get("own") is None) == reach
    assert (record["effective"]["temperature"], record["effective"]["max_new_tokens"]) == (0.6, 2)
    report = found.report()
    assert report.verdict is not None
    assert ("the model's own" in report.verdict.text) == (not reach)


@pytest.mark.live
def test_a_generate_in_a_thread_has_the_line_that_starts_the_thread() -> None:
    with recording() as found:
        names: dict[str, Any] = {}
        exec(compile(OWN, "own.py", "exec"), names)
        call = {"reach": True, "max_new_tokens": 2}
        thread = threading.Thread(target=names["model"].generate, args=(names["torch"].tensor([[5, 6]]),), kwargs=call)
        line = sys._getframe().f_lineno + 1
        thread.start()
        thread.join()
    (record,) = [each for each in found.records if each["kind"] == "generate"]
    assert f"test_recording.py:{line}" in [record["source"], *record["stack"]]

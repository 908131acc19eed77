"""What `check` takes a file for, that it opens each once, and that what it leaves out has a reason."""

from __future__ import annotations

import json
import pickle
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.check.check import check_report
from llmdoctor.check.options import CheckOptions
from llmdoctor.configs.recognise import is_accelerate, is_deepspeed, is_training
from llmdoctor.files.project import ProjectSettings
from llmdoctor.requests.request_files import is_request
from tests.conftest import Outcome, write_model

MESSAGES = [{"role": "user", "content": "hi"}]
DEEPSPEED = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 2}}
LINE = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "m", "messages": MESSAGES, "max_tokens": 5, "temperature": 9},
}
_opened: Counter[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str) and not arguments[2] & 0o200000:  # not a folder
        _opened[arguments[0]] += 1


sys.addaudithook(_hook)


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value, indent=1))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One of everything that is recognised, and much that is not."""
    write_model(tmp_path / "model")
    (tmp_path / "alone").mkdir()
    write(tmp_path / "alone" / "config.json", {"model_type": "qwen2", "eos_token_id": 1, "vocab_size": 3})
    write(tmp_path / "ds" / "config.json", DEEPSPEED)
    write(tmp_path / "ds.json", DEEPSPEED)
    write(tmp_path / "train.yaml", "output_dir: out\nper_device_train_batch_size: 1\ndeepspeed: ds.json\n")
    write(tmp_path / "llama_factory.yaml", "model_name_or_path: m\nstage: sft\nper_device_train_batch_size: 1\ndeepspeed: ds.json\n")
    write(
        tmp_path / "axolotl.yml", "base_model: m\ndatasets: []\nmicro_batch_size: 1\nsequence_len: 8\nnum_epochs: 1\ndeepspeed: ds.json\n"
    )
    write(
        tmp_path / "accelerate.yaml",
        "compute_environment: LOCAL_MACHINE\ndistributed_type: DEEPSPEED\ndeepspeed_config:\n  zero_stage: 2\n",
    )
    write(tmp_path / "request.json", {"model": "./model", "messages": MESSAGES, "max_tokens": 5})
    write(tmp_path / "batch.jsonl", "".join(json.dumps(LINE) + "\n" for _ in range(3)))
    write(tmp_path / "data.jsonl", json.dumps({"messages": MESSAGES, "model": "gpt-4"}) + "\n")
    write(tmp_path / "app" / "config.json", {"port": 80})
    write(tmp_path / "compose.yaml", "services:\n  a: {image: b}\n")
    (tmp_path / "ck").mkdir()
    (tmp_path / "ck" / "training_args.bin").write_bytes(pickle.dumps({"output_dir": "o", "per_device_train_batch_size": 1}))
    write(tmp_path / "code.py", "x = 1\n")
    return tmp_path


def kinds(path: Path) -> dict[str, str]:
    report = check_report(CheckOptions(paths=(str(path),)), ProjectSettings())
    assert report.result is not None
    return {str(Path(subject["path"]).relative_to(path)): subject["kind"] for subject in report.result["subjects"]}


def test_each_file_is_what_it_is(tree: Path) -> None:
    assert kinds(tree) == {
        "model": "model", "alone": "model", "ds/config.json": "DeepSpeed config", "ds.json": "DeepSpeed config", "train.yaml": "training arguments",
        "llama_factory.yaml": "training arguments", "axolotl.yml": "training arguments", "accelerate.yaml": "accelerate config",
        "request.json": "request", "batch.jsonl": "batch of requests", "ck/training_args.bin": "training arguments", "code.py": "python",
    }  # fmt: skip


def test_each_file_is_opened_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_report(CheckOptions(paths=(str(tree),)), ProjectSettings())  # what is imported on the way is opened too
    counts: Counter[str] = Counter()
    monkeypatch.setattr(sys.modules[__name__], "_opened", counts)
    check_report(CheckOptions(paths=(str(tree),)), ProjectSettings())
    monkeypatch.setattr(sys.modules[__name__], "_opened", None)
    inside = {name: count for name, count in counts.items() if name.startswith(str(tree))}
    assert set(inside.values()) == {1}, inside
    assert {"ds.json", "batch.jsonl", "training_args.bin", "compose.yaml", "generation_config.json"} <= {Path(name).name for name in inside}


def test_what_is_left_out_has_its_reason(tmp_path: Path, llmdoctor: Any) -> None:
    write(tmp_path / "broken.json", '{"zero_optimization": {"stage": 2,')
    write(tmp_path / "helm.yaml", "deepspeed: {{ .Values.x }}\nper_device_train_batch_size: {% if x %}\n")
    write(tmp_path / "large.json", "[" + "1," * 600_000 + "1]")
    write(tmp_path / "large.yaml", "a:\n" + "- 1\n" * 100_000)
    (tmp_path / "training_args.bin").write_bytes(b"\x82\x01.")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "training_args.bin").write_bytes(pickle.dumps([1]))
    write(tmp_path / "batch.jsonl", json.dumps(LINE) + "\n{\n")
    outcome: Outcome = llmdoctor("check", "--format", "json", cwd=tmp_path)
    assert (outcome.code, [finding["code"] for finding in outcome.report["findings"]]) == (1, ["DIR001"])  # broken.json
    skipped = {entry["what"]: entry["reason"] for entry in outcome.report["skipped"]}
    assert set(skipped) == {
        "helm.yaml", "large.json", "large.yaml", "training_args.bin", "other/training_args.bin", "batch.jsonl",
    }  # fmt: skip
    assert "not YAML" in skipped["helm.yaml"]
    assert "at most 1048576 are read" in skipped["large.json"]
    assert "EXT1" in skipped["training_args.bin"]
    assert "line 2" in skipped["batch.jsonl"]


def test_a_named_file_of_no_kind_is_said(tmp_path: Path, llmdoctor: Any) -> None:
    write(tmp_path / "notes.txt", "x")
    outcome: Outcome = llmdoctor("check", "notes.txt", "--format", "json", cwd=tmp_path)
    assert outcome.code == 3
    assert "not a kind of file that is checked" in outcome.report["skipped"][0]["reason"]


@pytest.mark.parametrize(
    ("looks", "value", "expected"),
    [
        (is_deepspeed, {"zero_optimization": {}}, True),
        (is_deepspeed, {"train_batch_size": 4, "optimizer": {"type": "Adam"}}, True),
        (is_deepspeed, {"train_batch_size": 4, "log_history": []}, False),  # transformers' trainer_state.json
        (is_deepspeed, {"train_batch_size": 4, "optimizer": "adam"}, False),
        (is_deepspeed, [1], False),
        (is_training, {"per_device_train_batch_size": 1}, False),
        (is_training, {"output_dir": "a", "seed": 1}, False),
        (is_training, {"output_dir": "a", "learning_rate": 1, "bf16": True, "max_steps": 3}, True),
        (is_accelerate, {"distributed_type": "NO", "mixed_precision": "no"}, True),
        (is_accelerate, {"distributed_type": 3}, False),
        (is_request, {"model": "m", "messages": []}, False),  # a chat of a data set
        (is_request, {"model": "m", "messages": [], "temperature": 1}, True),
        (is_request, {"model": "m", "messages": [], "temperature": 1, "choices": []}, False),  # an answer that repeats the request
        (is_request, {"prompt": "a", "temperature": 1}, False),
        (is_request, {"url": "/v1/embeddings", "body": {}}, False),
    ],
)
def test_recognising(looks: Any, value: Any, expected: bool) -> None:
    assert looks(value) is expected


AUTO = {
    "train_micro_batch_size_per_gpu": "auto",
    "bf16": {"enabled": "auto"},
    "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"},
}


@pytest.mark.parametrize(
    ("name", "text", "reported"),
    [
        ("train.py", 'engine = deepspeed.initialize(model=m, config="conf/ds.json")\n', True),
        ("train.py", 'args = TrainingArguments(deepspeed="conf/ds.json")\n', False),
        ("train.py", 'accelerator = Accelerator()\nengine = deepspeed.initialize(m, config="conf/ds.json")\n', False),
        ("train.py", 'engine = deepspeed.initialize(model=m, config="conf/other.json")\n', False),
        ("run.sh", "deepspeed train.py --deepspeed_config conf/ds.json\n", True),
        ("run.sh", "deepspeed train.py --deepspeed conf/ds.json\n", False),
        ("run.sh", "accelerate launch --deepspeed_config_file conf/ds.json train.py\n", False),
    ],
)
def test_auto_where_deepspeed_reads_the_file_itself(name: str, text: str, reported: bool, tmp_path: Path) -> None:
    write(tmp_path / "conf" / "ds.json", AUTO)
    write(tmp_path / name, text)
    found = [
        finding for finding in check_report(CheckOptions(paths=(str(tmp_path),)), ProjectSettings()).findings if finding.code == "MEM009"
    ]
    assert bool(found) is reported
    if reported:
        assert name in found[0].message
        assert "train_micro_batch_size_per_gpu raises TypeError; bf16 is off, which leaves fp32" in found[0].message


def test_what_is_mended(tmp_path: Path, llmdoctor: Any) -> None:
    """--fix makes what DeepSpeed refuses or has renamed into what it takes, and leaves the rest of the file alone."""
    write(
        tmp_path / "ds.json",
        '{\n    "train_batch_size": 4,  \n    "zero_optimization": {"stage": 2, "cpu_offload": true, "reduce_bucket_size": "5e8"}\n}\n',
    )
    write(tmp_path / "r.json", {"model": "m", "messages": MESSAGES, "max_tokens": 5, "temperature": 0, "top_p": 0.9})
    before: Outcome = llmdoctor("check", "--format", "json", cwd=tmp_path)
    assert {finding["code"] for finding in before.report["findings"]} == {"MEM007", "MEM012", "GEN018"}
    after: Outcome = llmdoctor("check", "--fix", "--format", "json", cwd=tmp_path)
    assert after.report["findings"] == []
    text = (tmp_path / "ds.json").read_text()
    assert text.startswith('{\n    "train_batch_size": 4,  \n    "zero_optimization": {"stage": 2, ')
    assert json.loads(text)["zero_optimization"] == {"stage": 2, "reduce_bucket_size": 500000000, "offload_optimizer": {"device": "cpu"}}
    assert "top_p" not in json.loads((tmp_path / "r.json").read_text())


@pytest.mark.parametrize(("where", "reported"), [("ds/nope.json", True), ("other/ds.json", False), ("/somewhere/else.json", False)])
def test_a_deepspeed_file_that_is_nowhere(where: str, reported: bool, tmp_path: Path, llmdoctor: Any) -> None:
    write(tmp_path / "other" / "ds.json", '{"zero_optimization": {"stage": 2}}')
    write(tmp_path / "runs" / "a.yaml", f"output_dir: o\nper_device_train_batch_size: 2\nlearning_rate: 1.0e-5\ndeepspeed: {where}\n")
    report = llmdoctor("check", "--format", "json", cwd=tmp_path).report
    assert any("which is not in the working directory" in finding["message"] for finding in report["findings"]) == reported


def test_a_file_above_is_named_alike_on_every_machine(tmp_path: Path, llmdoctor: Any) -> None:
    write(tmp_path / "ds.json", '{"zero_optimization": {"stage": 2}, "train_batch_size": "auto", "gradient_accumulation_steps": 4}')
    write(tmp_path / "ex" / "a.yaml", "output_dir: o\nper_device_train_batch_size: 2\ngradient_accumulation_steps: 8\ndeepspeed: ds.json\n")
    report = llmdoctor("check", "--format", "json", cwd=tmp_path / "ex").report
    assert [finding["code"] for finding in report["findings"]] == ["MEM008"]
    assert "../ds.json" in report["findings"][0]["message"]
    assert str(tmp_path) not in json.dumps(report["findings"])


def test_a_subject_that_fails_does_not_end_the_check_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever raises in one file, the rest is checked, and the verdict and `skipped` say what was not."""
    from llmdoctor.callsites import check as callsites
    from llmdoctor.gencfg import check as gencfg

    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    write_model(tmp_path / "model")
    write(tmp_path / "ds.json", json.dumps({"zero_optimization": {"stage": 2}, "train_batch_size": 8}))
    write(tmp_path / "a.py", "x = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gencfg, "check_directory", fail)
    monkeypatch.setattr(callsites, "check_data", fail)
    report = check_report(CheckOptions())
    assert [subject["path"] for subject in (report.result or {})["subjects"]] == ["ds.json"]
    assert sorted(skipped.what for skipped in report.skipped) == ["a.py", "model"]
    assert all("RuntimeError" in skipped.reason for skipped in report.skipped)
    assert "2 files could not be checked" in report.verdict.text

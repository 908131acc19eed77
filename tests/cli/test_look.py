"""`llmdoctor look` and bare `llmdoctor`: each kind is recognised, and every command that is offered can be pasted and answers."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from syrupy.assertion import SnapshotAssertion

from llmdoctor.look.logs import SIGNS
from llmdoctor.look.look import look_report
from llmdoctor.look.options import LookOptions
from tests.conftest import Outcome, write_model

Run = Callable[..., Outcome]
ROOT = Path(__file__).parents[1]
TRACE = ROOT / "gencfg" / "trace" / "data"
CONFIG = {
    "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 16, "eos_token_id": 11, "hidden_size": 8, "intermediate_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
}  # fmt: skip
CHAT = [{"role": "user", "content": "hi"}]
TOP = [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.2}]
RESPONSE = {
    "choices": [
        {
            "finish_reason": "stop",
            "message": {"content": "a"},
            "logprobs": {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": TOP}]},
        }
    ]
}


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


FILES: dict[str, tuple[str, bytes]] = {
    "run.jsonl": ("trace", b""),
    "outputs.jsonl": ("outputs", b'{"completion_ids": [1, 2, 11], "finish_reason": "stop"}\n{"completion_ids": [1, 2, 3]}\n'),
    "responses.jsonl": ("outputs", text(RESPONSE) + b"\n" + text(RESPONSE) + b"\n"),
    "rows.jsonl": ("records", b'{"a": 1}\n{"a": 2}\n'),
    "ds.json": ("strategy", text({"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True}, "zero_optimization": {"stage": 2},
                                   "optimizer": {"type": "AdamW", "params": {"lr": 1e-5}}})),
    "args.json": ("strategy", text({"output_dir": "o", "learning_rate": 1e-5, "bf16": True, "per_device_train_batch_size": 2})),
    "args.yaml": ("strategy", b"output_dir: o\nper_device_train_batch_size: 2\nlearning_rate: 1.0e-5\nbf16: true\n"),
    "request.json": ("request", text({"model": "m", "messages": CHAT, "temperature": 0, "top_p": 0.9})),
    "batch.jsonl": ("request", text({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions",
                                     "body": {"model": "m", "messages": CHAT, "max_tokens": 5}}) + b"\n{}\n"),
    "chat.json": ("messages", text(CHAT)),
    "logits.json": ("numbers", b"[0.5, 0.25, 0.25]"),
    "train.log": ("log", b"1\nSetting `pad_token_id` to `eos_token_id`:11 for open-end generation.\ntorch.OutOfMemoryError: CUDA out of memory.\n"),
    "trainer.log": ("log", b"{'loss': 1.2}\nTraceback (most recent call last):\ntorch.OutOfMemoryError: CUDA out of memory.\n"),
    "metrics.log": ("log", b'{"loss": 1.2}\n{"loss": 1.1}\ntorch.OutOfMemoryError: CUDA out of memory.\n'),
    "notes.txt": ("text", b"nothing\n"),
    "dump.jsonl": ("logprobs", b'{"old_log_probs": [-1.0, -2.0], "rollout_log_probs": [-1.0, -2.0], "response_mask": [1, 1]}\n' * 40),
    "rollouts.jsonl": ("logprobs", b'{"response": "a", "old_log_probs": [-1.0, -2.0], "rollout_log_probs": [-1.0, -2.0]}\n' * 40),
    "train.py": ("code", b"model.generate()\n"),
    "empty.json": ("empty", b""),
    "package.json": ("json", b'{"scripts": {}}'),
    "known.json": ("baseline", text({"schema": "llmdoctor.baseline/1", "findings": []})),
    "broken-baseline.json": ("baseline", text({"schema": "llmdoctor.baseline/1", "findings": 1.5})),
    "report.json": ("report", text({"schema": "llmdoctor.report/1", "command": "check", "findings": []})),
    "picture.png": ("unknown", b"\x89PNG\r\n\x1a\n\0\0\0\0"),
    "archive.zip": ("pickle", b"PK\x03\x04rest"),
    "training_args.bin": ("pickle", b"cos\nsystem\n(S'true'\ntR."),
    "zero3.json": ("strategy", text({"train_micro_batch_size_per_gpu": "auto", "zero_optimization": {"stage": 3}, "bf16": {"enabled": "auto"}})),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one thing of each kind, beside a model."""
    root = tmp_path_factory.mktemp("a folder")
    write_model(root / "model", config=CONFIG)
    files = root / "model" / "runs"  # a file's model is looked for above it
    files.mkdir()
    for name, (_, data) in FILES.items():
        (files / name).write_bytes(data)
    shutil.copy(next(TRACE.glob("*.jsonl")), files / "run.jsonl")
    np.save(files / "logits.npy", np.zeros((2, 16), np.float32))
    save_file({"input_ids": np.ones((1, 4), np.int64), "attention_mask": np.ones((1, 4), np.int64)}, files / "inputs.safetensors")
    save_file({"lm_head.weight": np.ones((1, 4), np.float32)}, files / "weights.safetensors")
    np.savez(files / "sides.npz", old_log_probs=np.full(40, -1.0), rollout_log_probs=np.full(40, -1.0))
    np.savez(files / "trainer.npz", logprobs=np.full(40, -1.0), tokens=np.ones(40, int))
    shutil.copy(files / "trainer.npz", files / "engine.npz")
    (files / "snapshot.pickle").write_bytes(pickle.dumps({"segments": [], "device_traces": []}))
    (root / "model" / "chat_template.jinja").write_text("{{ messages }}")
    return root


KINDS = {**{name: kind for name, (kind, _) in FILES.items()}, "logits.npy": "tensors", "inputs.safetensors": "tensors",
         "sides.npz": "logprobs", "trainer.npz": "logprobs", "weights.safetensors": "weights", "snapshot.pickle": "snapshot"}  # fmt: skip
ANSWERED = (0, 1, 3)
# What is only possible: the file may hold something else than the command asks for.
UNSURE = {"records", "tensors", "numbers", "messages"}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_recognised_and_its_commands_answer(name: str, folder: Path, llmdoctor: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    result = look_report(LookOptions(path=f"model/runs/{name}")).result
    assert result is not None
    assert result["kind"] == KINDS[name]
    assert all(
        "mem compare" not in entry["command"] or name != "zero3.json" or name not in entry["command"] for entry in result["commands"]
    )
    for entry in [] if KINDS[name] in UNSURE or name.startswith("broken") else result["commands"]:
        words = shlex.split(entry["command"])
        assert words[0] == "llmdoctor"
        assert "MODEL" not in words
        words = ["model/runs/engine.npz" if word == "ENGINE" else word for word in words]
        if words[1] == "check" and name.endswith((".yaml", ".json", ".jsonl", ".bin")):
            continue  # the rules of those files have tests of their own
        if words[1:3] == ["mem", "compare"] and name != "args.yaml":
            continue  # seconds each: one file's and the model's stand for all
        ran = llmdoctor(*words[1:], cwd=folder)
        assert ran.code in ANSWERED, (entry["command"], ran.err)


def test_a_model_directory(folder: Path, llmdoctor: Run) -> None:
    result = llmdoctor("look", "model", "--format", "json", cwd=folder).report["result"]
    assert (result["kind"], result["what"]) == ("model", "a model directory (qwen2)")
    for entry in result["commands"]:
        assert llmdoctor(*shlex.split(entry["command"])[1:], cwd=folder).code in ANSWERED


def test_a_checkpoint_and_an_adapter(tmp_path: Path, llmdoctor: Run) -> None:
    checkpoint = write_model(tmp_path / "checkpoint-5", config=CONFIG)
    (checkpoint / "trainer_state.json").write_text('{"global_step": 5, "log_history": []}')
    adapter = write_model(
        tmp_path / "adapter",
        config=None,
        generation_config=None,
        adapter_config={"base_model_name_or_path": "org/base", "peft_type": "LORA"},
    )
    assert llmdoctor("look", str(checkpoint), "--format", "json").report["result"]["kind"] == "checkpoint"
    assert llmdoctor("look", str(checkpoint / "trainer_state.json"), "--format", "json").report["result"]["kind"] == "trainer-state"
    assert llmdoctor("look", str(adapter), "--format", "json").report["result"]["kind"] == "adapter"
    assert llmdoctor("look", str(adapter / "adapter_config.json"), "--format", "json").report["result"]["kind"] == "model-file"


def test_bare_llmdoctor_looks_at_where_one_stands(folder: Path, llmdoctor: Run) -> None:
    outcome = llmdoctor(cwd=folder)
    assert outcome.code == 0
    assert outcome.out.startswith("The current folder is a folder with 1 model directory, ")
    offered = outcome.out.partition("\nTry")[2].partition("\nMODEL")[0].partition("\nNext")[0]
    commands = [line.split("#")[0].split() for line in offered.splitlines() if line.strip().startswith("llmdoctor ")]
    assert len(commands) == 3
    for command in commands:
        assert llmdoctor(*shlex.split(" ".join(command))[1:], cwd=folder).code in ANSWERED


def test_a_hub_id_in_the_cache(tmp_path: Path, llmdoctor: Run) -> None:
    repository = tmp_path / "models--org--name"
    write_model(repository / "snapshots" / "abc", config=CONFIG)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    env = {"HF_HUB_CACHE": str(tmp_path)}
    result = llmdoctor("look", "org/name", "--format", "json", env=env).report["result"]
    assert result["commands"][0]["command"] == "llmdoctor gencfg check org/name"
    missing = llmdoctor("look", "org/other", env=env)
    assert (missing.code, missing.err) == (
        2,
        "llmdoctor: org/other: no such file or directory, and no model of that name in the hub cache\n",
    )


def test_configs_in_a_repository_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "m", config=CONFIG)
    (tmp_path / "ds.json").write_bytes(FILES["ds.json"][1])
    (tmp_path / "package.json").write_bytes(FILES["package.json"][1])
    monkeypatch.chdir(tmp_path)
    result = look_report(LookOptions()).result
    assert result is not None
    assert result["inside"]["config"] == 1
    assert [entry["command"].split(" --")[0] for entry in result["commands"]] == [
        "llmdoctor check",
        "llmdoctor mem compare m",
        "llmdoctor gencfg show m",
    ]


@pytest.mark.parametrize("name", ["a b; rm -rf $HOME", "-f", "$(id)", "\x1b[2J"])
def test_a_name_cannot_get_out_of_its_word(name: str, tmp_path: Path, llmdoctor: Run) -> None:
    (tmp_path / name).write_bytes(FILES["outputs.jsonl"][1])
    outcome = llmdoctor("look", "--format", "json", "--", name, cwd=tmp_path)
    for entry in outcome.report["result"]["commands"]:
        words = shlex.split(entry["command"])
        assert any(Path(word).name == name for word in words)
        assert words[:2] in (["llmdoctor", "gencfg"], ["llmdoctor", "sample"])
    assert "\x1b" not in llmdoctor("look", "--", name, cwd=tmp_path).out


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: sign.phrase[:20])
def test_a_phrase_is_the_librarys_own(sign: Any) -> None:
    """Each phrase stands in the source of the library that writes it; that of CUDA is in a binary, which is not searched."""
    if sign.phrase.startswith(("out of memory", "Setting")):
        return  # in a binary; in transformers to 5.12 (4.57.6, generation/utils.py:2102)
    name = "deepspeed" if "DeepSpeed" in sign.phrase else "transformers"
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    places = ("generation", "runtime/zero") if name == "transformers" else ("runtime/zero",)
    sources = [path.read_text() for place in places for path in (Path(spec.origin).parent / place).glob("*.py")]
    assert any(sign.phrase in source.replace('"\n            "', "").replace('" "', "") for source in sources)


def test_the_screen(folder: Path, llmdoctor: Run, snapshot: SnapshotAssertion) -> None:
    screens = [
        llmdoctor("look", name, cwd=folder).out for name in ("model", "model/runs/ds.json", "model/runs/train.log", "model/runs/run.jsonl")
    ]
    assert "\n".join(screens) == snapshot


@pytest.mark.parametrize(
    ("script", "what", "proposed"),
    [
        ("args = SFTConfig(output_dir='o', per_device_train_batch_size=2)\n", "a training script", "mem compare MODEL --strategy s.py"),
        ("args = TrainingArguments('o', per_device_train_batch_size=N)\n", "a training script", "mem measure -- python s.py"),
        ("t = PPOTrainer(PPOConfig(output_dir='o'), model=M)\n", "a training script", "gencfg show MODEL --preset trl-ppo"),
        ("print(model.generate(**batch))\n", "a Python file", "gencfg trace -o run.jsonl -- python s.py"),
    ],
)
def test_a_script_is_proposed_to_the_commands_that_read_or_run_it(
    script: str, what: str, proposed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.py").write_text(script)
    result = look_report(LookOptions(path="s.py")).result
    assert result is not None
    assert result["what"] == what
    assert any(proposed in entry["command"] for entry in result["commands"])


def test_a_configuration_is_about_the_model_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with two models the one that is named is proposed; a hub id that is not in the cache is replaced by no other."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_model(tmp_path / name, config=CONFIG)
    arguments = "output_dir: o\nper_device_train_batch_size: 2\nlearning_rate: 1.0e-5\n"
    for named, proposed in (("b", "mem compare b --strategy sft.yaml"), ("org/absent", "mem compare MODEL --strategy sft.yaml")):
        Path("sft.yaml").write_text(f"{arguments}model_name_or_path: {named}\n")
        for path in ("sft.yaml", "."):
            result = look_report(LookOptions(path=path)).result
            assert result is not None
            assert any(proposed in entry["command"] for entry in result["commands"]), path


@pytest.mark.parametrize("keys", [("prompt", "completion"), ("messages",)])
def test_what_a_model_is_trained_on_is_proposed_to_labels(keys: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data.jsonl").write_bytes(text({key: CHAT if key == "messages" else "a" for key in keys}) + b"\n")
    result = look_report(LookOptions(path="data.jsonl")).result
    assert result is not None
    assert "llmdoctor labels inspect MODEL data.jsonl" in [entry["command"] for entry in result["commands"]]

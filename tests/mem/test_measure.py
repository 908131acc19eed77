"""Real steps: the real Trainer on a CPU beside the prediction, the user's own command, and how it ends when a process dies."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem import cases, measure
from llmdoctor.mem.compare import compare_report
from llmdoctor.mem.measure import measure_report
from llmdoctor.mem.options import MeasureOptions, MemCompareOptions
from tests.conftest import run_command

pytestmark = pytest.mark.live
ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, torch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 64))
optimizer = torch.optim.AdamW(model.parameters())
for step in range(4):
    model(torch.randn(8, 64)).pow(2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    print("step", step)
sys.exit(5)
"""
WEIGHTS = 4 * (64 * 256 + 256 + 256 * 64 + 64)


def test_the_trainer_holds_what_is_predicted(models: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "measured.jsonl"
    strategies = ("trainer:adamw_torch_fused,bf16",)
    report = measure_report(MeasureOptions(model=str(models["qwen2"]), strategy=strategies, batch=1, seq_len=16, output=str(out), steps=2))
    assert report.result is not None
    rows = {row["what"]: row for row in report.result["beside"]}
    assert rows["steady params"]["error"] == 0
    assert abs(rows["steady optimizer_state"]["error"]) < 1e-3
    again = compare_report(
        MemCompareOptions(model=str(models["qwen2"]), strategy=strategies, batch=1, seq_len=16, measured=str(out))
    ).result
    assert again is not None
    assert {row["what"] for row in again["measured"]} == set(rows)


def test_the_users_own_command(tmp_path: Path) -> None:
    script, out = tmp_path / "train.py", tmp_path / "run.jsonl"
    script.write_text(SCRIPT)
    done = run_command("mem", "measure", "-o", str(out), "--", sys.executable, str(script), timeout=120)
    assert done.code == 5
    assert done.out == "step 0\nstep 1\nstep 2\nstep 3\n"
    assert "Measured 4 steps" in done.err
    records = [json.loads(line) for line in out.read_text().splitlines()]
    held = {record["phase"]: record["components"] for record in records if record.get("components")}
    assert held["between steps"]["params"] == WEIGHTS
    assert held["between steps"]["optimizer_state"] == 2 * WEIGHTS + 4 * 4
    assert held["backward"]["grads"] == WEIGHTS
    assert "grads" not in held["between steps"]
    assert {path.name for path in tmp_path.iterdir()} == {"train.py", "run.jsonl"}


def test_it_stops_when_told_to(tmp_path: Path) -> None:
    script, out = tmp_path / "train.py", tmp_path / "run.jsonl"
    script.write_text(SCRIPT)
    done = run_command("mem", "measure", "--stop-after", "2", "-o", str(out), "--", sys.executable, str(script), timeout=120)
    assert (done.code, done.out) == (0, "step 0\nstep 1\n")


def test_a_command_that_trains_nothing(tmp_path: Path) -> None:
    done = run_command("mem", "measure", "-o", str(tmp_path / "run.jsonl"), "--", sys.executable, "-c", "print(3)")
    assert (done.code, done.out) == (0, "3\n")
    assert "nothing was measured" in done.err
    assert not list(tmp_path.iterdir())


def test_a_killed_worker_is_a_sentence(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    monkeypatch.setattr(cases, "_execute", lambda *_: subprocess.CompletedProcess([], -9, "", ""))
    with pytest.raises(QuestionError, match="killed by signal 9"):
        measure_report(MeasureOptions(model=str(models["qwen2"]), strategy=("trainer:sgd,bf16",), batch=1, seq_len=16))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mem", "measure"], "expected one of MODEL"),
        (["mem", "measure", "x", "--snapshot", "y"], "expected one of MODEL"),
        (["mem", "measure", "-o", "x.json", "--", "true"], "ends in .jsonl"),
        (["mem", "measure", "--", "no-such-command-here"], "command not found"),
        (["mem", "measure", "--summary", "nowhere.jsonl"], "no such file"),
        (["mem", "compare", "nowhere", "--strategy", "deepspeed:zero2"], "no such"),
        (["mem", "compare", "model"], "no --strategy"),
        (["mem", "compare", "model", "--strategy", "deepspeed:zero2", "--world-size", "0"], "at least 1 process"),
        (["mem", "compare", "model", "--strategy", "deepspeed:zero2", "--batch", "0"], "--batch 0"),
        (["mem", "compare", "model", "--strategy", "deepspeed:zero2", "--image", "big"], "--image big"),
        (["mem", "compare", "model", "--strategy", "deepspeed:zero2", "--stage", "llm"], "no vision part"),
        (["mem", "compare", "model", "--strategy", "deepspeed:zero2", "--gpu-memory", "lots"], "--gpu-memory lots"),
        (["mem", "compare", "model", "--strategy", "deepspeed:zero2", "--trainable", "nothing.like.this"], "no parameter of the model"),
        (["mem", "compare", "model", "--strategy", "deepspeed:zero2", "--static", "--trainable", "no.such"], "no parameter of the model"),
        (["mem", "compare", "unknown", "--strategy", "deepspeed:zero2"], "transformers cannot read this config"),
        (["mem", "compare", "model", "--strategy", "deepspeed:zero2", "--measured", "strategy.json"], "not a record"),
    ],
    ids=lambda value: " ".join(value[-3:]) if isinstance(value, list) else "",
)
def test_bad_input_is_exit_2_and_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    from tests.mem.conftest import write_config

    write_config(tmp_path / "model", "llama")
    write_config(tmp_path / "unknown", "llama", model_type="no_such_type")
    (tmp_path / "strategy.json").write_text("{}")
    done = run_command(*arguments, cwd=tmp_path)
    assert done.code == 2
    assert sentence in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert "Traceback" not in done.err
    assert not done.out


@pytest.fixture
def broken_deepspeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation of DeepSpeed that cannot be imported, first on the path."""
    (tmp_path / "site" / "deepspeed").mkdir(parents=True)
    (tmp_path / "site" / "deepspeed" / "__init__.py").write_text("raise RuntimeError('a broken build')")
    (tmp_path / "site" / "deepspeed-0.19.8.dist-info").mkdir()
    (tmp_path / "site" / "deepspeed-0.19.8.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: deepspeed\nVersion: 0.19.8\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{ROOT}")


@pytest.mark.usefixtures("broken_deepspeed")
def test_a_broken_deepspeed_breaks_nothing_that_does_not_need_it(models: dict[str, Path]) -> None:
    model = str(models["qwen2"])
    compared = run_command("mem", "compare", model, "--strategy", "deepspeed:zero2", "--seq-len", "16", timeout=120)
    assert (compared.code, compared.err) == (0, "")
    measured = run_command("mem", "measure", model, "--strategy", "trainer:sgd,bf16", "--seq-len", "16", "--steps", "2", timeout=120)
    assert measured.code == 0, measured.err
    assert "Measured on" in measured.out


def test_a_step_that_runs_out_of_memory_is_a_result(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from llmdoctor.report import Style, render

    base = {"schema": "llmdoctor.mem/1", "strategy": "trainer:sgd,bf16", "rank": 0, "world_size": 1, "device": "cuda:0"}
    records = [
        {**base, "kind": "phase", "phase": "forward", "step": 1, "peak_bytes": 5},
        {**base, "kind": "failed", "outcome": "out_of_memory", "message": "CUDA out of memory", "phase": "backward", "step": 1},
    ]
    monkeypatch.setattr(measure, "run_case", lambda *_: records)
    report = measure_report(MeasureOptions(model=str(models["qwen2"]), strategy=("trainer:sgd,bf16",), batch=1, seq_len=16))
    assert "out of memory" in render(report, "text", Style(80, False))
    assert report.result is not None
    assert report.result["strategies"][0]["failed"]["phase"] == "backward"

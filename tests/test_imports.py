"""Start-up is a feature: what a command does not need it does not import. Seen in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_model

HEAVY = ("torch", "transformers", "deepspeed", "numpy", "scipy", "accelerate", "trl", "jinja2", "pydantic", "importlib.metadata")
PROBE = """
import sys, json
sys.argv = ["llmdoctor", *json.loads(sys.argv[1])]
from llmdoctor.cli.main import main
try:
    main()
except SystemExit as stop:
    code = stop.code
print(json.dumps({"code": code, "modules": [name for name in json.loads(sys.stdin.read()) if name in sys.modules]}), file=sys.stderr)
"""


def imported(arguments: list[str], tmp_path: Path) -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(arguments)],
        input=json.dumps(HEAVY),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    seen = json.loads(done.stderr.strip().splitlines()[-1])
    return seen["code"] or 0, set(seen["modules"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["gencfg", "--help"],
        ["gencfg", "show", "model"],
        ["gencfg", "show", "model", "--engine", "vllm"],
        ["gencfg", "diff", "model", "--right-preset", "trl-ppo", "--format", "json"],
        ["gencfg", "check", "model"],
        ["gencfg", "runaway", "outputs.jsonl"],
        ["gencfg", "runaway", "outputs.jsonl", "--model", "model"],
        ["mask", "--help"],
        ["gencfg", "check", "model", "--format", "sarif"],
        ["gencfg", "check", "model", "--format", "html"],
        ["mem", "--help"],
        ["mem", "kvcache", "model", "--cache", "static:2048"],
        ["mem", "compare", "model", "--static", "--strategy", "deepspeed:zero2"],
        ["sample", "--help"],
        ["sample", "replay", "--help"],
        ["check", "."],
        ["check", "--help"],
        ["rule"],
        ["rule", "GEN001"],
    ],
    ids=" ".join,
)
def test_static_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    kind = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 16, "eos_token_id": 11}
    write_model(tmp_path / "model", config={**kind, **sizes})
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 2}}')
    (tmp_path / "train.yaml").write_text("output_dir: o\nper_device_train_batch_size: 1\n")
    (tmp_path / "outputs.jsonl").write_text(json.dumps({"token_ids": [5, 11, *[6, 7] * 40], "finish_reason": "length"}))
    code, modules = imported(arguments, tmp_path)
    assert code in (0, 1)
    assert modules == set()


@pytest.mark.parametrize(
    "arguments", [["--shape", "1,64"], ["--lengths", "5,8", "--format", "json"], ["--shape", "1,100000"]], ids=" ".join
)
def test_a_plan_of_masks_takes_numpy_and_nothing_heavier(arguments: list[str], tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    code, modules = imported(["mask", "inspect", "model", *arguments], tmp_path)
    assert code in (0, 1)
    assert modules == {"numpy"}


def test_env_reads_metadata_and_imports_no_package(tmp_path: Path) -> None:
    code, modules = imported(["env"], tmp_path)
    assert code == 0
    assert modules <= {"importlib.metadata"}


def test_the_probe_can_fail(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import jinja2\n" + PROBE, json.dumps(["--version"])],
        input=json.dumps(HEAVY),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert "jinja2" in json.loads(done.stderr.strip().splitlines()[-1])["modules"]

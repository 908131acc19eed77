"""The case itself, traced: the script, the PPO trainer, the launchers, as their users start them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.demo.live.tiny_qwen2_vl import build
from tests.conftest import Outcome, run_command

pytestmark = pytest.mark.live
for package in ("torch", "transformers", "qwen_vl_utils", "torchvision", "PIL"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

SCRIPTS = Path(__file__).parents[1] / "runs"
BIN = Path(sys.executable).parent
MODEL = "qwen2-vl-tiny"
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str
    records: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["kind"] == kind]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model and the users' scripts."""
    folder = tmp_path_factory.mktemp("runs")
    build(folder / MODEL)
    for script in SCRIPTS.glob("*.py"):
        shutil.copy(script, folder)
    return folder


def traced(place: Path, name: str, *command: str) -> Run:
    """`llmdoctor gencfg trace -o NAME.jsonl -- COMMAND`, with the environment's programs on the path as after `activate`."""
    env = {**os.environ, **QUIET, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1", "COLUMNS": "80"}
    full = [sys.executable, "-m", "llmdoctor", "gencfg", "trace", "-o", f"{name}.jsonl", "--overwrite", "--", *command]
    done = subprocess.run(full, cwd=place, env=env, capture_output=True, text=True, timeout=240, check=False)
    records = [json.loads(line) for line in (place / f"{name}.jsonl").read_text().splitlines()]
    run = Run(done.returncode, done.stdout, done.stderr, records)
    assert run.code == 0, run.err
    assert not run.of("fault")
    return run


@pytest.fixture(scope="module")
def infer(place: Path) -> Run:
    return traced(place, "infer", "python", "infer.py", MODEL)


@pytest.fixture(scope="module")
def train(place: Path) -> Run:
    pytest.importorskip("trl.experimental.ppo")
    return traced(place, "train", "python", "train.py", MODEL, "--save", "policy")


@pytest.fixture(scope="module")
def compared(place: Path, infer: Run, train: Run) -> Outcome:
    return run_command("gencfg", "diff", "infer.jsonl", "train.jsonl#2", cwd=place)


def ppo_line() -> int:
    """The line of the installed trl on which PPOTrainer takes the policy's eos_token_id away."""
    spec = importlib.util.find_spec("trl")
    assert spec is not None
    assert spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0], "experimental", "ppo", "ppo_trainer.py").read_text().splitlines()
    return next(
        number
        for number, line in enumerate(source, 1)
        if "generation_config.eos_token_id" in line and line.rstrip().endswith("# None or int")
    )


def test_the_script_stops_and_every_field_says_where_it_came_from(infer: Run) -> None:
    (call,) = infer.of("generate")
    (sequence,) = call["sequences"]
    assert (sequence["stop_reason"], sequence["new_tokens"], sequence["passed_terminator_at"]) == ("eos", 11, None)
    assert sequence["prompt_tokens"] == call["prompt_length"]
    provenance = call["provenance"]
    assert provenance["eos_token_id"]["source"] == "generation_config.json:5"
    assert provenance["eos_token_id"]["layer"] == "generation_config.json"
    assert provenance["temperature"]["layer"] == "user-config"
    assert Path(provenance["temperature"]["file"]).name == "infer.py"
    assert [entry["value"] for entry in provenance["temperature"]["overrides"]] == [0.01]
    lines = (SCRIPTS / "infer.py").read_text().splitlines()
    assert "model.generate(" in lines[call["line"] - 1]
    assert "GenerationConfig(" in lines[provenance["temperature"]["line"] - 1]
    assert [load["class"] for load in infer.of("load")] == ["Qwen2VLForConditionalGeneration"]


def test_importing_qwen_vl_utils_is_answered_with_evidence(infer: Run) -> None:
    (record,) = [record for record in infer.of("import") if record["package"] == "qwen_vl_utils"]
    assert record["changed"] == []
    assert record["observed"] > 200
    assert "qwen_vl_utils" in (SCRIPTS / "infer.py").read_text().splitlines()[record["line"] - 1]


def test_the_trainer_clears_eos_and_the_trace_says_where(train: Run) -> None:
    eos = [record for record in train.of("mutation") if record["field"] == "eos_token_id" and record["after"] is None]
    assert eos
    assert all(record["file"].endswith("trl/experimental/ppo/ppo_trainer.py") for record in eos)
    assert all(record["line"] == ppo_line() for record in eos)
    for call in train.of("generate"):
        for sequence in call["sequences"]:
            assert sequence["stop_reason"] == "length"
            assert call["terminators"][str(sequence["passed_terminator"])] == "<|im_end|>"
            assert sequence["passed_terminator_at"] == 10
    assert "2 of 2 calls cannot stop before the limit: eos_token_id was cleared by trl" in " ".join(train.err.split())
    assert "of the tokens were" in train.err


def test_the_diff_of_the_two_names_trl_and_clears_qwen_vl_utils(compared: Outcome, train: Run) -> None:
    eos = next(record for record in train.of("mutation") if record["field"] == "eos_token_id")
    place = f"trl {eos['version']} ppo_trainer.py:{ppo_line()}"
    assert compared.code == 1
    assert " ".join(compared.out.split()).startswith(f"The right call never stops: eos_token_id was cleared by {place}")
    text = " ".join(compared.out.split())
    assert f"Cause {place} set model.generation_config.eos_token_id [336, 334] -> None" in text
    assert re.search(r"Checked Importing qwen_vl_utils, trl changed no generation default \(\d+ checked\)", text)


def test_each_line_of_the_fix_restores_stopping(compared: Outcome, place: Path, infer: Run) -> None:
    stop_token, ids = re.search(r'stop_token="(\w+)"', compared.out), re.search(r"eos_token_id=\[([\d, ]+)\]\)", compared.out)
    assert stop_token
    assert ids
    options = [("--stop-token", stop_token[1]), ("--no-step", "--eos", *ids[1].replace(",", "").split())]
    for name, option in enumerate(options):
        call = traced(place, f"fixed{name}", "python", "train.py", MODEL, *option).of("generate")[-1]
        assert [sequence["stop_reason"] for sequence in call["sequences"]] == ["eos"]


def test_a_saved_policy_carries_the_damage_and_check_finds_it(train: Run, place: Path) -> None:
    outcome = run_command("gencfg", "check", "policy", "--format", "json", cwd=place)
    assert outcome.code == 1
    assert "GEN001" in [finding["code"] for finding in outcome.report["findings"]]
    clean = run_command("gencfg", "check", MODEL, "--format", "json", cwd=place)
    assert clean.code == 0


def test_a_trace_alone_is_held_against_a_plain_call_of_its_model(train: Run, place: Path) -> None:
    report = run_command("gencfg", "diff", "train.jsonl", "--format", "json", cwd=place).report
    assert report["result"]["runaway"] == {"left": False, "right": True}
    assert "ppo_trainer.py" in report["result"]["cause"]
    moved = place / "moved"
    os.rename(place / MODEL, moved)
    try:
        gone = run_command("gencfg", "diff", "train.jsonl", "--format", "json", cwd=place).report
    finally:
        os.rename(moved, place / MODEL)
    assert gone["result"]["runaway"] == {"left": False, "right": True}


LAUNCHERS: dict[str, tuple[list[str], int]] = {
    "torchrun": (["torchrun", "--nproc_per_node", "2", "ddp.py", MODEL], 2),
    "accelerate": (["accelerate", "launch", "--cpu", "--num_processes", "1", "--num_machines", "1", "accelerate_run.py", MODEL], 1),
    "deepspeed": (["deepspeed", "--num_gpus", "2", "deepspeed_run.py", MODEL], 2),
    "module": (["python", "-m", "torch.distributed.run", "--nproc_per_node", "1", "ddp.py", MODEL], 1),
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_rank_under_a_launcher(name: str, place: Path) -> None:
    command, ranks = LAUNCHERS[name]
    if name in ("accelerate", "deepspeed"):
        pytest.importorskip(name)
    run = traced(place, name, *command)
    calls = run.of("generate")
    assert sorted(call["rank"] for call in calls) == list(range(ranks))
    assert [call["call"] for call in calls] == list(range(1, ranks + 1))
    assert all(sequence["stop_reason"] == "eos" for call in calls for sequence in call["sequences"])
    assert all(Path(call["file"]).parent == place for call in calls)
    assert len(run.out.split("new tokens")) == ranks + 1
    expected = f"Ran {ranks} ranks" if ranks > 1 else "Ran 1 process"
    assert expected in " ".join(run.err.split())


KILLED = f"""
import os, signal, sys
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration, StoppingCriteriaList
model = Qwen2VLForConditionalGeneration.from_pretrained({MODEL!r})
model.generation_config.eos_token_id = None
inputs = AutoTokenizer.from_pretrained({MODEL!r})("Describe", return_tensors="pt")
def end(ids, scores):
    if ids.shape[1] > 20:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    return scores
model.generate(**inputs, max_new_tokens=64, logits_processor=[end])
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_run_that_ends_inside_a_runaway_generate_still_names_the_cause(name: str, place: Path) -> None:
    (place / "killed.py").write_text(KILLED)
    env = {**os.environ, **QUIET, "NO_COLOR": "1", "COLUMNS": "100"}
    command = [
        sys.executable,
        "-m",
        "llmdoctor",
        "gencfg",
        "trace",
        "-o",
        "killed.jsonl",
        "--overwrite",
        "--",
        sys.executable,
        "killed.py",
        name,
    ]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode in (137, 130)
    text = " ".join(done.stderr.split())
    assert "1 of 1 call cannot stop before the limit: eos_token_id was cleared by killed.py:5." in text
    assert "1 call had not ended when the run ended" in text
    assert "Cause killed.py:5 set model.generation_config.eos_token_id [336, 334] -> None" in text


def test_a_trace_that_llmdoctor_could_not_merge_is_read_before_an_older_one(place: Path) -> None:
    (place / "old.jsonl").write_text(
        (place / "killed.jsonl").read_text() if (place / "killed.jsonl").exists() else '{"kind":"vllm","t":1}\n'
    )
    os.utime(place / "old.jsonl", (1, 1))
    parts = place / "old.jsonl.abc.parts"
    parts.mkdir()
    (parts / "00000-1.jsonl").write_text('{"kind":"vllm","t":2,"source":"rollout.py:3","sampling_params":{}}\n')
    outcome = run_command("gencfg", "trace", "--summary", "old.jsonl", cwd=place)
    assert "the first at rollout.py:3" in " ".join(outcome.out.split())
    assert "cut off before its files were merged" in " ".join(outcome.out.split())


LAZY = """
import importlib
def __getattr__(name):
    return getattr(importlib.import_module("lazypkg.impl"), name)
"""
IMPL = """
from transformers import GenerationMixin
plain = GenerationMixin.generate
def generate(self, *args, **kwargs):
    return plain(self, *args, **kwargs)
def apply():
    GenerationMixin.generate = generate
class Trainer:
    pass
{now}
"""


@pytest.mark.parametrize("lazily", [True, False])
def test_a_package_that_replaces_generate_is_never_cleared(lazily: bool, place: Path) -> None:
    """By an import inside it, as lazy packages do, and by a call long after its import."""
    (place / "lazypkg").mkdir(exist_ok=True)
    (place / "lazypkg" / "__init__.py").write_text(LAZY)
    (place / "lazypkg" / "impl.py").write_text(IMPL.format(now="apply()" if lazily else ""))
    script = f"from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration as Model\nmodel = Model.from_pretrained({MODEL!r})\n"
    script += "from lazypkg import Trainer, apply\n" + ("" if lazily else "apply()\n")
    script += f"model.generate(**AutoTokenizer.from_pretrained({MODEL!r})('Describe', return_tensors='pt'), max_new_tokens=4)\n"
    (place / "lazy.py").write_text(script)
    run = traced(place, "lazy", "python", "lazy.py")
    changed = [record for record in run.of("import") if record["changed"]]
    assert [(record["package"], record["changed"][0]["what"]) for record in changed] == [("lazypkg", "GenerationMixin.generate")]
    text = " ".join(run.err.split())
    assert "Changed lazypkg (lazypkg impl.py:4) replaced GenerationMixin.generate" in text
    assert "Checked Importing lazypkg" not in text


def test_a_run_without_generate_says_so(place: Path, llmdoctor: Callable[..., Outcome]) -> None:
    run = traced(place, "none", "python", "-c", f"import transformers; transformers.AutoModelForImageTextToText.from_pretrained({MODEL!r})")
    assert "No generate() was recorded" in run.err
    assert "1 model loaded (qwen2-vl-tiny), and none of them generated." in " ".join(run.err.split())
    assert llmdoctor("gencfg", "trace", "--summary", "none.jsonl", cwd=place).code == 3

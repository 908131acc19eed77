"""`llmdoctor demo`: the question, the prediction, the real runs that prove it, the fix; on a tiny Qwen2-VL made on the spot."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmdoctor.core.document import Block, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.exitcodes import INTERRUPTED, REFUSED
from llmdoctor.core.report import Report, Verdict
from llmdoctor.report import render
from llmdoctor.report.terminal import Color, complain, terminal_style

if TYPE_CHECKING:
    from llmdoctor.gencfg.live import LiveResult

MODEL, CALL, BATCH = "qwen2-vl-tiny", "call.json", "batch.json"
# The call of the case, with a limit that a CPU reaches in a second.
USER_CONFIG = {
    "max_new_tokens": 64,
    "temperature": 1.0,
    "top_k": 0.0,
    "top_p": 1.0,
    "do_sample": True,
    "return_dict_in_generate": True,
    "output_scores": True,
}
PRESET, UNEXPECTED = "trl-ppo", 1
SCRIPT = "ppo.py"
# A user's script: the model in the real PPOTrainer, then the call of the case. Nothing in it knows llmdoctor.
PPO = """import copy, json, torch
from datasets import Dataset
from transformers import AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForSequenceClassification, Qwen2VLForConditionalGeneration
from trl.experimental.ppo import PPOConfig, PPOTrainer

torch.manual_seed(0)
model = Qwen2VLForConditionalGeneration.from_pretrained("{model}")
tokenizer = AutoTokenizer.from_pretrained("{model}")
prompt = tokenizer.apply_chat_template([{{"role": "user", "content": "Describe this image."}}], tokenize=False, add_generation_prompt=True)
inputs = tokenizer(prompt, return_tensors="pt")
sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
reward = Qwen2ForSequenceClassification(Qwen2Config(vocab_size=len(tokenizer), num_labels=1, **sizes))
trainer = PPOTrainer(
    PPOConfig(output_dir="ppo", report_to=[], use_cpu=True, bf16=False, per_device_train_batch_size=2, num_mini_batches=1, total_episodes=2),
    tokenizer, model, copy.deepcopy(model), reward, Dataset.from_list([{{"input_ids": inputs["input_ids"][0].tolist()}}] * 2), reward,
)
trainer.policy_model.generate(**inputs, generation_config=GenerationConfig(**json.load(open("{call}"))))
"""

# The sampler that the case began with: a fresh random number for each key, the last that passes wins.
SAMPLER = """import random

def sample(probs):
    chosen = None
    for token in probs:
        if random.random() <= probs[token]:
            chosen = token
    if not chosen:
        chosen = token
    return chosen
"""


def run(keep: str | None) -> int:
    """Run the demo in the folder `keep`, or in a temporary one. Return 0 if every prediction came true, 1 if one did not, 2 if it cannot run."""
    folder = Path(keep) if keep else Path(tempfile.mkdtemp(prefix="llmdoctor-demo-"))
    before = Path.cwd()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        return _demo()
    except QuestionError as error:
        complain(str(error))
        return REFUSED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except OSError as error:
        complain(f"{folder}: {error.strerror or error}")
        return REFUSED
    finally:
        os.chdir(before)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _demo() -> int:
    from llmdoctor.demo.live.tiny_qwen2_vl import build

    _quiet_libraries()
    _say("A script's call stops, the same call in a PPO trainer runs to max_new_tokens. Why?\n")
    build(Path(MODEL))
    Path(CALL).write_text(json.dumps(USER_CONFIG, indent=2) + "\n")
    _static()
    return max(_live(), _masks(), _memory(), _sampled(), _trained())


def _static() -> None:
    """Run the commands that a user would type, and print what they print."""
    from llmdoctor.gencfg.check import check_report
    from llmdoctor.gencfg.diff import diff_report
    from llmdoctor.gencfg.options import DiffOptions, GencfgCheckOptions, GencfgOptions

    plain = GencfgOptions(model=MODEL, config=CALL)
    trained = GencfgOptions(model=MODEL, config=CALL, presets=(PRESET,))
    checked = GencfgCheckOptions(paths=(MODEL,))
    _step("1  Is the model itself all right?", f"llmdoctor gencfg check {MODEL}", lambda: check_report(checked))
    _step(
        "2  The script's call, and the same call after what TRL's PPO does to the model",
        f"llmdoctor gencfg diff {MODEL} --config {CALL} --right-preset {PRESET}",
        lambda: diff_report(DiffOptions(left=plain, right=trained)),
    )


def _live() -> int:
    """Make both calls and the repaired one with a real image, the real qwen_vl_utils, processor and generate(). Return the exit code."""
    from llmdoctor.gencfg.calls import resolve_files
    from llmdoctor.gencfg.live import load, run_call
    from llmdoctor.gencfg.options import GencfgOptions

    _say(_heading("3  Both calls for real: a real image through qwen_vl_utils and the processor, then generate()"))
    loaded = load(MODEL)
    script = run_call(loaded, user_config=USER_CONFIG)
    done = {name: setting.value for name, setting in resolve_files(GencfgOptions(model=MODEL, presets=(PRESET,))).call.mutations}
    trainer = run_call(loaded, user_config=USER_CONFIG, mutations=done)
    fixed = run_call(loaded, user_config={**USER_CONFIG, "eos_token_id": list(script.eos_token_id)}, mutations=done)
    rows = (("script", script, True), ("trainer", trainer, False), ("trainer, fixed", fixed, True))
    true = all(_stopped(result) is wanted for _, result, wanted in rows)
    table = Table(("call", "predicted", "seen", "answer"), tuple(_row(name, result, wanted) for name, result, wanted in rows))
    verdict = _came_true(true, "Every prediction came true: two calls stop and one does not.")
    fix = Note("Fix", f"GenerationConfig(..., eos_token_id={list(script.eos_token_id)}), as in the third row")
    _print(verdict, table, fix)
    caught = _traced()
    _say("Next     llmdoctor gencfg trace -o run.jsonl -- YOUR COMMAND\n")
    return 0 if true and caught else UNEXPECTED


def _traced() -> bool:
    """The same without a preset: the real trainer under `gencfg trace`; whether that names a cause. True if TRL's PPO is not installed."""
    from llmdoctor.gencfg.trace.options import TraceOptions
    from llmdoctor.gencfg.trace.run import run_traced
    from llmdoctor.gencfg.trace.trace import trace_report

    title = "\n4  Nobody has to know a preset: a script with the real PPOTrainer, started as ever"
    if find_spec("trl") is None or find_spec("trl.experimental.ppo") is None:
        _say(f"{title}\nleft out: it wants trl 1.0.0 beside transformers, as `make install` has it\n")
        return True
    Path(SCRIPT).write_text(PPO.format(model=MODEL, call=CALL))
    _say(_heading(title) + f"$ llmdoctor gencfg trace -o run.jsonl -- python {SCRIPT}")
    code, problem = run_traced([sys.executable, SCRIPT], "run.jsonl", overwrite=True)
    report = trace_report(TraceOptions(path="run.jsonl"))
    sys.stdout.write(render(report, "text", terminal_style(Color.AUTO)) + "\n")
    return code == 0 and problem is None and bool(report.result and report.result["cause"])


def _sampled() -> int:
    """Test the draws of a wrong sampling loop against its distribution. Return the exit code."""
    from llmdoctor.sample.draw import draw_report
    from llmdoctor.sample.options import DrawOptions

    title = "8  A sampler that looks right: does it draw .5 .4 .1?"
    if find_spec("scipy") is None:
        _say(f"\n{title}\nleft out: the test needs scipy, the 'stats' extra\n")
        return 0
    Path("sampler.py").write_text(SAMPLER)
    command = "llmdoctor sample draw --probs 0,.5,.4,.1 --sampler sampler:sample -n 110 --alpha 1e-6"
    report = draw_report(DrawOptions(probs="0,.5,.4,.1", sampler="sampler:sample", count=110, alpha=1e-6))
    _say("")
    _step(title, command, lambda: report)
    return 0 if report.result and report.result["law"] else UNEXPECTED


def _masks() -> int:
    """Find and measure the masks of a trainer that rebuilds them from ids whose pad is the eos, with queries padded on the right."""
    from llmdoctor.mask.options import MaskTestOptions
    from llmdoctor.mask.test import test_report

    Path(BATCH).write_text(json.dumps(rebuilt_masks()) + "\n")
    report = test_report(MaskTestOptions(model=MODEL, input_ids=BATCH, phase="decode", backend=("sdpa",)))
    _say("")
    command = f"llmdoctor mask test {MODEL} --input-ids {BATCH} --phase decode --backend sdpa"
    _step("5  And the trainer's masks: input_ids != pad, with pad the eos, then masked_fill with 0", command, lambda: report)
    found = {finding.code for finding in report.findings if "measured" in finding.evidence}
    true = {"MSK001", "MSK002"} <= found
    _print(_came_true(true, "Both mistakes were found and measured."))
    return 0 if true else UNEXPECTED


def rebuilt_masks() -> dict[str, list[list[int]]]:
    """A batch as a PPO trainer makes it: two chats of two turns, padded on the right with the eos that also ends their turns."""
    eos = 90
    ids = [[20, 21, eos, 22, 23, 24, eos, eos], [30, 31, 32, eos, 33, 34, 35, 36]]
    mask = [[int(token != eos) for token in row] for row in ids]
    return {
        "input_ids": [[token if seen else 0 for token, seen in zip(*rows, strict=True)] for rows in zip(ids, mask, strict=True)],
        "attention_mask": mask,
    }


def _memory() -> int:
    """Predict the memory of a training step of a 2B model, and measure that of the tiny one. Return the exit code."""
    from llmdoctor.demo import memory as demo_memory

    _say("\nThe same optimizer, yet DeepSpeed's seems to take more memory than the Trainer's. Why?\n")
    _step("6  Two ways of training a 2B model, from its config alone", demo_memory.COMPARE, demo_memory.compare)
    measured: list[bool] = []

    def real() -> Report:
        report, true = demo_memory.measure(MODEL)
        measured.append(true)
        return report

    _step(
        "7  Real steps of the tiny model beside the prediction",
        f"llmdoctor mem measure {MODEL} --strategy {demo_memory.REAL} --seq-len 16",
        real,
    )
    return 0 if all(measured) else UNEXPECTED


def _trained() -> int:
    """A model trained for a moment on answers whose end is not a target never stops; with another pad token it does."""
    from llmdoctor.demo import labels
    from llmdoctor.demo.live.training import train_and_ask

    talks = labels.prepare(MODEL)
    _say("\nAnd a model that never stops whatever the call: was it ever taught to?\n")
    pads: list[str] = []

    def audited() -> Report:
        report = labels.audit()
        pads.extend(pad for pad in (labels.END, labels.pad_of(report)) if pad is not None)
        return report

    _step("9  What the training data teach, with a pad token that is also the end token", labels.COMMAND, audited)
    _say(_heading("10  Trained for a moment by the real Trainer, with that pad token and with the one that the fix names"))
    results = [train_and_ask(Path(MODEL), talks, pad, labels.PROMPT, Path("trained")) for pad in pads]
    rows = tuple(
        (
            f"pad_token {pad}",
            "stops" if wanted else "runs on",
            f"{'stopped after' if one.stopped else 'ran to'} {one.new_tokens} tokens",
            one.text,
        )
        for pad, wanted, one in zip(pads, (False, True), results, strict=False)
    )
    true = [one.stopped for one in results] == [False, True]
    verdict = _came_true(true, "Both predictions came true: the first training does not teach the end of an answer, the second does.")
    _print(verdict, Table(("training", "predicted", "seen", "answer"), rows))
    return 0 if true else UNEXPECTED


def _stopped(result: LiveResult) -> bool:
    return all(sequence.stop_reason == "eos" for sequence in result.sequences)


def _row(name: str, result: LiveResult, wanted: bool) -> tuple[str, ...]:
    sequence = result.sequences[0]
    if sequence.stop_reason == "eos":
        seen = f"stopped after {sequence.new_tokens} tokens"
    else:
        passed = sequence.passed_terminator_at
        seen = f"ran to {sequence.new_tokens} tokens" + ("" if passed is None else f", past <|im_end|> at {passed + 1}")
    text = sequence.text if len(sequence.text) <= 64 else sequence.text[:61] + "..."
    return (name, "stops" if wanted else "runs on", seen, text.replace("\n", " "))


def _step(title: str, command: str, build: Callable[[], Report]) -> None:
    _say(_heading(title) + f"$ {command}")
    sys.stdout.write(render(build(), "text", terminal_style(Color.AUTO)) + "\n")
    sys.stdout.flush()


def _heading(title: str) -> str:
    return f"{title}\n"


def _came_true(true: bool, sentence: str) -> Verdict:
    """Return `sentence` if every prediction of a step came true."""
    return Verdict(sentence) if true else Verdict("A prediction did not come true.", "problem")


def _print(verdict: Verdict, *blocks: Block) -> None:
    sys.stdout.write(render(Report("demo", {}, {}, document=blocks, verdict=verdict), "text", terminal_style(Color.AUTO)))
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _quiet_libraries() -> None:
    """Silence the messages of the libraries; a variable that the user has set stays."""
    quiet: dict[str, Any] = {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)

"""What a person reads of a trace, by what must stand on the screen, and what becomes of traces that are cut, mixed or mutated.

data/infer.jsonl and data/train.jsonl are traces of ../runs/infer.py and ../runs/train.py, with the folders' names replaced.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdoctor.cli.main import main
from llmdoctor.core.report import Report
from llmdoctor.gencfg.diff import diff_report
from llmdoctor.gencfg.options import DiffOptions, GencfgOptions
from llmdoctor.gencfg.trace.options import TraceOptions
from llmdoctor.gencfg.trace.trace import trace_report
from llmdoctor.report import Style, render
from tests.reading import read_in_order

DATA = Path(__file__).parent / "data"
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for trace in DATA.glob("*.jsonl"):
        shutil.copy(trace, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def records(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def write(name: str, entries: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return name


def vllm() -> str:
    params = {"n": 1, "temperature": 0.7, "top_p": 0.9, "max_tokens": 512, "ignore_eos": True}
    made = {
        "kind": "vllm",
        "t": 2.0,
        "rank": 0,
        "pid": 5,
        "what": "vllm.SamplingParams",
        "sampling_params": params,
        "source": "rollout.py:12",
    }
    return write("vllm.jsonl", [records("infer.jsonl")[0], made])


def diff_of(left: str, right: str) -> DiffOptions:
    return DiffOptions(left=GencfgOptions(model=left), right=GencfgOptions(model=right))


CLEARED = "cannot stop before the limit: eos_token_id was cleared by trl 1.0.0 ppo_trainer.py:410."
TRAINED = (
    f"2 of 2 calls {CLEARED}",
    "Ran 1 process, 2 generate() calls, overhead of the recorder 0.9%, exit code 0",
    "trl 1.0.0 ppo_trainer.py:110 0 of 2 sequences stopped from train.py:83 2 produced <|im_end|> and ran past it",
    "train.py:102 0 of 1 sequence stopped 1 produced <|im_end|> and ran past it median position 11 of 64: 83% of the tokens were waste",
    "error GEN001 trl 1.0.0 ppo_trainer.py:110: runs to 32 new tokens",
    "Cause trl 1.0.0 ppo_trainer.py:410 set model.generation_config.eos_token_id [336, 334] -> None",
    "error GEN001 train.py:102: runs to 64 new tokens",
    "GenerationConfig(..., eos_token_id=[336, 334])",
    "Checked Importing qwen_vl_utils, trl changed no generation default (226 checked).",
    "Warning a checkpoint saved from this policy loses its eos too",
    "Next llmdoctor gencfg diff train.jsonl",
)
SCREENS: dict[str, tuple[Callable[[], Report], tuple[str, ...]]] = {
    "infer": (
        lambda: trace_report(TraceOptions(path="infer.jsonl")),
        ("Every sequence stopped: 1 of 1.", "infer.py:40 1 of 1 sequence stopped at eos", "Next llmdoctor gencfg diff infer.jsonl"),
    ),
    "vllm": (
        lambda: trace_report(TraceOptions(path=vllm())),
        (
            "Undecided: No generate() was recorded; the rollouts went through vLLM.",
            "1 set of vLLM SamplingParams, the first at rollout.py:12: n 1, temperature 0.7, top_p 0.9, max_tokens 512, ignore_eos True",
            "Warning ignore_eos is on: every one of these sequences runs to max_tokens.",
        ),
    ),
    "nothing": (
        lambda: trace_report(TraceOptions(path=write("none.jsonl", records("infer.jsonl")[:1]))),
        ("Undecided: No generate() was recorded in this run.", "There was no Python process with transformers in it."),
    ),
    "cut-off": (
        lambda: trace_report(TraceOptions(path=cut_in_half())),
        (f"1 of 1 call {CLEARED} 1 line of the trace could not be read.", "Skipped half.jsonl:9: 1 line cut off, or not a record"),
    ),
    "diff": (
        lambda: diff_report(diff_of("infer.jsonl", "train.jsonl#2")),
        (
            "The right call never stops: eos_token_id was cleared by trl 1.0.0 ppo_trainer.py:410",
            "left: infer.jsonl right: train.jsonl#2 eos_token_id [336, 334] None set by generation_config.json:5",
            "effect the right runs to 64 tokens",
            "Rules transformers 5.23.0, as the run recorded it",
        ),
    ),
    "diff-against-plain": (
        lambda: diff_report(diff_of("train.jsonl", "train.jsonl")),
        (
            "The right call never stops: eos_token_id was cleared by trl 1.0.0 ppo_trainer.py:410",
            "left: qwen2-vl-tiny right: train.jsonl eos_token_id [336, 334] None",
            "max_new_tokens None 32",
            "the left ends after 20 tokens at the latest, the right after 32 tokens",
            "temperature 0.01 0.7",
            "error GEN001",
            "Note /home/user/qwen2-vl-tiny is not here: the left side is the config as the run loaded it",
            "Note train.jsonl: call 1 of 2; train.jsonl#N names another",
        ),
    ),
}


def cut_in_half() -> str:
    data = (DATA / "train.jsonl").read_bytes()
    Path("half.jsonl").write_bytes(data[: len(data) - 3000])
    return "half.jsonl"


@pytest.mark.parametrize("name", SCREENS)
def test_screens(name: str) -> None:
    make, parts = SCREENS[name]
    read_in_order(show(make()), *parts)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_width_changes_the_lines_and_no_word(width: int) -> None:
    read_in_order(show(trace_report(TraceOptions(path="train.jsonl")), width), TRAINED[0], TRAINED[1], *TRAINED[4:])


def test_the_screen_of_a_run_that_never_stops() -> None:
    read_in_order(show(trace_report(TraceOptions(path="train.jsonl"))), *TRAINED)


def show(report: Report, width: int = 80) -> str:
    text = render(report, "text", Style(width, False))
    wrapped = re.sub(r"^(?:  )?Fix .*?\n(?=\S|\n)", "", text, flags=re.MULTILINE | re.DOTALL)  # what is to be pasted is never wrapped
    assert max(len(line) for line in wrapped.splitlines() if not line.startswith("  At ")) <= width  # nor is a place
    return text


def test_the_summary_counts_what_the_records_say() -> None:
    result = trace_report(TraceOptions(path="train.jsonl")).result
    assert result is not None
    ends = [sequence for record in records("train.jsonl") if record["kind"] == "generate" for sequence in record["sequences"]]
    wasted = sum(end["new_tokens"] - end["passed_terminator_at"] - 1 for end in ends)
    assert result["sequences"] == len(ends) == 3
    assert result["ended_by"] == {"length": 3}
    assert sum(site["wasted_tokens"] for site in result["sites"]) == wasted
    assert [site["passed_terminators"]["median_position"] for site in result["sites"]] == [11, 11]


def test_a_call_is_chosen_by_its_number() -> None:
    first, second = (diff_report(diff_of("infer.jsonl", f"train.jsonl#{number}")) for number in (1, 2))
    assert first.result is not None
    assert second.result is not None
    assert "max_new_tokens" in [change["field"] for change in first.result["changed"]]
    assert [change["field"] for change in second.result["changed"]] == ["eos_token_id"]


@pytest.mark.parametrize("length", [0, 1, 100, 700, 3000, 9000])
def test_a_trace_that_is_cut_off_is_read_as_far_as_it_goes(length: int, capsys: Any) -> None:
    Path("cut.jsonl").write_bytes((DATA / "train.jsonl").read_bytes()[:length])
    code, text = run(["gencfg", "trace", "--summary", "cut.jsonl"], capsys)
    assert code in (0, 1, 2, 3)
    assert "Traceback" not in text
    assert "Skipped" in text or code == 2 or length == 0


def test_traces_of_two_versions_of_the_library_are_compared() -> None:
    older = [{**record, "transformers": "4.49.0"} if record["kind"] == "generate" else record for record in records("infer.jsonl")]
    text = show(diff_report(diff_of(write("older.jsonl", older), "train.jsonl#2")))
    assert "left: transformers 4.49.0, as the run recorded it right: transformers 5.23.0, as the run recorded it" in " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["infer.jsonl#9", "train.jsonl"], "no call 9, the trace has 1 call"),
        (["infer.jsonl#x", "train.jsonl"], "'x' is no call, expected a number from 1"),
        (["infer.jsonl#", "train.jsonl"], "is no call"),
        (["infer.jsonl#0", "train.jsonl"], "is no call"),
        (["infer.jsonl", "train.jsonl", "--right-set", "eos_token_id=3"], "a trace is what happened"),
        (["none.jsonl", "train.jsonl"], "no generate() happened in it"),
        (["gone.jsonl"], "gone.jsonl: No such file"),
        (["later.jsonl"], "llmdoctor.trace/9"),
    ],
)
def test_what_cannot_be_compared(arguments: list[str], words: str, capsys: Any) -> None:
    write("none.jsonl", records("infer.jsonl")[:1])
    write("later.jsonl", [{**records("infer.jsonl")[0], "schema": "llmdoctor.trace/9"}])
    code, text = run(["gencfg", "diff", *arguments], capsys)
    assert code == 2
    assert words in text
    assert len(text.splitlines()) == 1


def run(arguments: list[str], capsys: Any) -> tuple[int, str]:
    with mock.patch.object(sys, "argv", ["llmdoctor", *arguments]), pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out + captured.err


scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(max_size=12)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6
)
RECORDS = records("train.jsonl")
FIELDS = sorted({name for record in RECORDS for name in record})


@SETTINGS
@given(
    changes=st.dictionaries(st.tuples(st.integers(0, len(RECORDS) - 1), st.sampled_from(FIELDS)), values, min_size=1, max_size=4),
    command=st.sampled_from([["trace", "--summary"], ["diff"]]),
)
def test_mutated_records(changes: dict[tuple[int, str], Any], command: list[str], capsys: Any) -> None:
    entries = [dict(record) for record in RECORDS]
    for (index, name), value in changes.items():
        entries[index][name] = value
    code, text = run(["gencfg", *command, write("mutated.jsonl", entries)], capsys)
    assert code in (0, 1, 2, 3), text
    assert "Traceback" not in text
    assert "\x1b" not in text


@SETTINGS
@given(cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=6)), min_size=1, max_size=4))
def test_mutated_bytes(cuts: list[tuple[float, int, bytes]], capsys: Any) -> None:
    data = (DATA / "train.jsonl").read_bytes()
    for place, length, insert in cuts:
        at = int(place * len(data))
        data = data[:at] + insert + data[at + length :]
    Path("mutated.jsonl").write_bytes(data)
    for command in (["trace", "--summary"], ["diff"]):
        code, text = run(["gencfg", *command, "mutated.jsonl"], capsys)
        assert code in (0, 1, 2, 3), text
        assert "Traceback" not in text

"""What a person reads of a trace, by snapshot, and what becomes of traces that are cut, mixed or mutated.

data/infer.jsonl and data/train.jsonl are traces of ../runs/infer.py and ../runs/train.py, with the folders' names replaced.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
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


SCREENS = {
    "infer": lambda: trace_report(TraceOptions(path="infer.jsonl")),
    "train": lambda: trace_report(TraceOptions(path="train.jsonl")),
    "vllm": lambda: trace_report(TraceOptions(path=vllm())),
    "nothing": lambda: trace_report(TraceOptions(path=write("none.jsonl", records("infer.jsonl")[:1]))),
    "cut-off": lambda: trace_report(TraceOptions(path=cut_in_half())),
    "diff": lambda: diff_report(diff_of("infer.jsonl", "train.jsonl#2")),
    "diff-against-plain": lambda: diff_report(diff_of("train.jsonl", "train.jsonl")),
}


def cut_in_half() -> str:
    data = (DATA / "train.jsonl").read_bytes()
    Path("half.jsonl").write_bytes(data[: len(data) - 3000])
    return "half.jsonl"


@pytest.mark.parametrize("name", SCREENS)
def test_screens(name: str, snapshot: Any) -> None:
    assert show(SCREENS[name]()) == snapshot


@pytest.mark.parametrize("width", [60, 140])
def test_other_widths(width: int, snapshot: Any) -> None:
    assert show(trace_report(TraceOptions(path="train.jsonl")), width) == snapshot


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

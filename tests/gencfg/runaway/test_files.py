"""Files of every kind, whole and broken: what is in them is read, what is not is one sentence and the contract's exit code."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.progress import Progress
from llmdoctor.gencfg.runaway.options import RunawayOptions
from llmdoctor.gencfg.runaway.runaway import runaway_report
from llmdoctor.requests import output_files
from llmdoctor.requests.output_files import read_outputs
from llmdoctor.requests.record_log import RecordLog
from llmdoctor.requests.sequences import Columns, OutputSequence, pack
from tests.cli.test_contract import valid
from tests.conftest import Outcome, run_command

RECORDS: list[dict[str, Any]] = [
    {"token_ids": [5, 6, 11], "finish_reason": "stop", "max_tokens": 8},
    {"token_ids": [5, 11, 7, 8], "finish_reason": "length", "max_tokens": 4},
    {"token_ids": [9] * 40, "finish_reason": "length", "max_tokens": 40},
]


def read(path: Path, columns: Columns | None = None) -> tuple[list[OutputSequence], RecordLog]:
    log = RecordLog(path.name, columns or Columns())
    return [row._replace(raw=None) for row in read_outputs(str(path), log)], log


def expected() -> list[OutputSequence]:
    ended = {"stop": "stop", "length": "length"}
    return [
        OutputSequence(
            line=number,
            ids=pack(record["token_ids"]),
            text=None,
            tokens=len(record["token_ids"]),
            reported=ended[record["finish_reason"]],
            limit=record["max_tokens"],
        )  # type: ignore[arg-type]
        for number, record in enumerate(RECORDS, 1)
    ]


def lines(records: list[Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def parquet(records: list[dict[str, Any]]) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    out = io.BytesIO()
    files.write_table(pyarrow.Table.from_pylist(records), out)
    return out.getvalue()


def survives(path: Path, *terminators: str) -> None:
    """An answer whose counts add up, or one sentence."""
    try:
        report = runaway_report(RunawayOptions(path=str(path), terminators=tuple(terminators)))
    except QuestionError as refused:
        said = str(refused)
    else:
        assert report.result is not None
        assert sum(report.result["ended_by"].values()) == report.result["sequences"]
        return
    assert said
    assert "\n" not in said


WHOLE: dict[str, Callable[[], bytes]] = {
    "lines": lambda: lines(RECORDS),
    "lines without a last break": lambda: lines(RECORDS)[:-1],
    "lines of Windows with a mark": lambda: b"\xef\xbb\xbf" + lines(RECORDS).replace(b"\n", b"\r\n"),
    "an array on one line": lambda: json.dumps(RECORDS).encode(),
    "an array over many lines": lambda: json.dumps(RECORDS, indent=2).encode(),
    "objects over many lines": lambda: b"\n".join(json.dumps(record, indent=1).encode() for record in RECORDS),
    "lines, compressed": lambda: gzip.compress(lines(RECORDS)),
    "an array, compressed": lambda: gzip.compress(json.dumps(RECORDS).encode()),
    "parquet": lambda: parquet(RECORDS),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_the_same_sequences_from_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "outputs"
    path.write_bytes(WHOLE[kind]())
    rows, log = read(path)
    assert [row._replace(line=0) for row in rows] == [row._replace(line=0) for row in expected()]
    assert log.skipped == 0
    if "many" not in kind:
        assert [row.line for row in rows] == [1, 2, 3]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "outputs"
    path.write_bytes(b"\n" + lines(RECORDS[:1]) + b"\n\n" + lines(RECORDS[1:2]))
    assert [row.line for row in read(path)[0]] == [2, 5]
    path.write_text(json.dumps(RECORDS, indent=2))
    first = path.read_text().split("\n")
    assert [first[row.line - 1] for row in read(path)[0]] == ["  {", "  {", "  {"]


def test_broken_lines_are_skipped_by_number(tmp_path: Path) -> None:
    path = tmp_path / "outputs"
    bad = [b"{cut off", b"\xff\xfe\n", b"null", b"[" * 5000, b'{"token_ids": [1e400]}', b'{"other": 1}', b"\x00\x01"]
    path.write_bytes(lines(RECORDS) + b"\n".join(bad) + b"\n" + lines(RECORDS))
    rows, log = read(path)
    assert len(rows) == 6
    assert log.skipped == len(bad)
    assert [line for line, _ in log.first_skipped] == [4, 5, 7, 8, 9]
    report = runaway_report(RunawayOptions(path=str(path)))
    assert len(report.skipped) == 6
    assert "more record" in report.skipped[-1].reason


def test_what_only_python_takes_for_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "outputs"
    path.write_text('{"token_ids": [5, 6], "reward": NaN}\n{"reward": -Infinity, "token_ids": [7, 8]}\n{"token_ids": [9], "reward": NaN}\n')
    assert [row.ids for row in read(path)[0]] == [pack([5, 6]), pack([7, 8]), pack([9])]


def test_lines_of_another_shape_than_the_first(tmp_path: Path) -> None:
    path = tmp_path / "outputs"
    others = [{"text": "a"}, {"choices": [{"text": "b", "finish_reason": "length"}]}, {"token_ids": None, "text": "c"}, [5, 6]]
    path.write_bytes(lines([RECORDS[0], *others, RECORDS[1]]))
    rows, log = read(path)
    assert [(row.text, row.reported) for row in rows] == [
        (None, "stop"),
        ("a", None),
        ("b", "length"),
        ("c", None),
        (None, None),
        (None, "length"),
    ]
    assert log.skipped == 0


@given(
    ids=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5),
    rest=st.dictionaries(
        st.sampled_from(["finish_reason", "stop_reason", "max_tokens", "text", "kind", "x", "metadata"]),
        st.none()
        | st.integers(-5, 2**40)
        | st.sampled_from(["stop", "length", "", "END"])
        | st.booleans()
        | st.lists(st.integers(), max_size=2),
        max_size=5,
    ),
)
@settings(max_examples=300, deadline=None)
def test_the_quick_way_and_the_slow_way_read_the_same(ids: list[int], rest: dict[str, Any]) -> None:
    first = {"token_ids": [1], "finish_reason": "stop", "max_tokens": 5, "stop_reason": None}
    fast = output_files._fast(first, Columns())
    assert fast is not None
    record = {"token_ids": ids, **rest}
    found = fast(json.dumps(record).encode(), 1)
    if found is not None:
        slow = list(output_files._value(record, 1, RecordLog("f")))
        assert [found._replace(raw=None, text=None)] == [row._replace(text=None) for row in slow]


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_files, "RECORD_LIMIT", 2000)
    path = tmp_path / "outputs"
    path.write_bytes(lines([RECORDS[0], {"token_ids": [5] * 100_000}, RECORDS[1]]))
    rows, log = read(path)
    assert [row.line for row in rows] == [1, 3]
    assert log.first_skipped == [(2, "a line of more than 2000 bytes")]
    path.write_bytes(lines([{"token_ids": [5] * 100_000}]) * 3)
    assert read(path)[0] == []


def test_an_array_larger_than_a_record_on_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_files, "RECORD_LIMIT", 2000)
    path = tmp_path / "outputs"
    path.write_bytes(json.dumps(RECORDS * 100).encode())
    assert len(read(path)[0]) == 300


def test_a_file_that_is_cut_off_gives_what_stands_before_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "outputs"
    path.write_bytes(lines(RECORDS)[:-20])
    rows, log = read(path)
    assert (len(rows), log.skipped) == (2, 1)
    path.write_bytes(json.dumps(RECORDS, indent=1).encode()[:-20])
    rows, log = read(path)
    assert (len(rows), log.skipped) == (2, 1)
    assert log.first_skipped[0][1].endswith("nothing after it was read")


def test_trl_writes_its_completions_so(tmp_path: Path) -> None:
    """The table of trl 1.0.0 (trainer/grpo_trainer.py, log()), by pandas as there."""
    pandas = pytest.importorskip("pandas")
    logs: dict[str, Any] = {
        "prompt": ["q"] * 8,
        "completion": [f"an answer {number}" for number in range(4)] + [" and again and again"[:10] * 40] * 4,
        "rewards": {"accuracy_reward": [float("nan")] * 4 + [1.0] * 4},
        "extra": {},
        "advantages": [0.5] * 8,
    }
    table = {
        "step": [10] * len(logs["prompt"]),
        "prompt": logs["prompt"],
        "completion": logs["completion"],
        **logs["rewards"],
        **logs["extra"],
        "advantage": logs["advantages"],
    }
    path = tmp_path / "completions_00010.parquet"
    pandas.DataFrame(table).to_parquet(path)
    result = runaway_report(RunawayOptions(path=str(path))).result
    assert result is not None
    assert (result["sequences"], result["ended_by"]["unknown"], result["format"]) == (8, 8, "parquet")
    assert [(loop["period"], loop["sequences"], loop["examples"][0]["line"]) for loop in result["loops"]] == [(10, 4, 5)]
    conversations = [[{"role": "assistant", "content": text}] for text in logs["completion"]]
    pandas.DataFrame({**table, "completion": conversations}).to_parquet(path)
    again = runaway_report(RunawayOptions(path=str(path))).result
    assert again is not None
    assert again["loops"] == result["loops"]


@pytest.mark.parametrize("depth", [3, 50, 400, 900, 990, 5000, 100_000])
def test_depth_is_no_fault(depth: int, tmp_path: Path) -> None:
    path = tmp_path / "outputs"
    for opening, closing in (("[", "]"), ('{"response":', "}"), ('{"content":[', "]}"), ("[\n", "]\n"), ('{\n"content":[', "]\n}")):
        path.write_text(opening * depth + closing * depth + "\n" + json.dumps(RECORDS[0]) + "\n")
        survives(path)


BAD: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "nothing": (lambda: b"", 3, "Nothing to check: no sequence in outputs"),
    "blank lines": (lambda: b"\n \n", 3, "Nothing to check"),
    "an empty array": (lambda: b"[]", 3, "Nothing to check"),
    "other columns": (
        lambda: lines([{"id": 1, "score": 2}]),
        2,
        "outputs:1: no column with outputs is known, found id, score: name it with",
    ),
    "other columns in parquet": (lambda: parquet([{"id": 1, "score": 2}]), 2, "outputs: no column with outputs is known, found id, score"),
    "text": (lambda: b"Dear reader,\nhello\n", 2, "outputs:1: no outputs in it: expected one JSON object per line, found Dear reader,"),
    "a number": (lambda: b"5\n", 2, "outputs:1: no outputs in it: expected an object with an output, found a number"),
    "cut off at once": (lambda: b'{"token_ids": [5,', 2, "outputs:1: no outputs in it"),
    "binary": (lambda: bytes(range(256)) * 10, 2, "outputs: binary data, expected JSON lines, JSON or parquet"),
    "UTF-16": (lambda: '{"text": "a"}'.encode("utf-16"), 2, "UTF-16 text, expected UTF-8: convert it with iconv"),
    "a zip archive": (lambda: b"PK\x03\x04" + bytes(40), 2, "a zip archive"),
    "a pickle": (lambda: b"\x80\x04\x95" + bytes(40), 2, "a Python pickle"),
    "zstd": (lambda: b"(\xb5/\xfd" + bytes(40), 2, "zstd-compressed"),
    "gzip, cut off": (
        lambda: gzip.compress(random.Random(0).randbytes(9000).hex().encode())[:2000],
        2,
        "the gzip file is cut off or damaged",
    ),
    "gzip, damaged": (lambda: b"\x1f\x8b\x08\x00" + bytes(6) + b"\xff" * 40, 2, "the gzip file is cut off or damaged"),
    "parquet, cut off": (lambda: parquet(RECORDS)[:-20], 2, "cannot be read as parquet"),
    "parquet in name only": (lambda: b"PAR1", 2, "cannot be read as parquet"),
    "a trace": (
        lambda: lines([{"kind": "load", "t": 1.0, "rank": 0, "pid": 7, "model": "m"}]),
        2,
        "outputs: a trace, not outputs: use `llmdoctor gencfg trace --summary outputs`",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_used_is_one_sentence(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, code, said = BAD[kind]
    monkeypatch.chdir(tmp_path)
    Path("outputs").write_bytes(make())
    if code == 3:
        report = runaway_report(RunawayOptions(path="outputs"))
        assert report.nothing
        assert report.result is not None
        assert report.result["sequences"] == 0
        assert said in str(report.verdict.text)  # type: ignore[union-attr]
        return
    with pytest.raises(QuestionError) as refused:
        runaway_report(RunawayOptions(path="outputs"))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


REFUSED = (
    (["nowhere"], "nowhere: no such file"),
    (["."], "is a directory, not a file"),
    (["pipe"], "is a FIFO, not a file; a pipe can be given as -"),
    (["outputs", "--ids", "answer"], "--ids answer: no such column with outputs, found finish_reason, max_tokens, token_ids"),
    (["outputs", "--terminator", " "], "--terminator: expected a token id or a token's text, found nothing"),
    (["outputs", "--terminator", "99999999999"], "a token id is a number from 0 to 2147483647"),
    (["outputs", "--max-new-tokens", "0"], "--max-new-tokens"),
    (["outputs", "--model", "nowhere"], "nowhere"),
    (["outputs", "--model", "empty"], "empty"),
)


@pytest.mark.parametrize(("arguments", "said"), REFUSED, ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_the_command_refuses_with_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "outputs").write_bytes(lines([dict(sorted(RECORDS[0].items()))]))
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    outcome = run_command("gencfg", "runaway", *arguments, cwd=tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in " ".join(outcome.err.replace("\u2502", " ").split())
    assert "Traceback" not in outcome.err


def test_exit_codes_and_formats(tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    path = tmp_path / "outputs.jsonl"
    path.write_bytes(lines(RECORDS))
    found = llmdoctor("gencfg", "runaway", "outputs.jsonl", "--terminator", "11", "-f", "json", cwd=tmp_path)
    assert found.code == 1
    assert {finding["code"] for finding in valid(found)["findings"]} == {"GEN014", "GEN015", "GEN016"}
    assert llmdoctor("gencfg", "runaway", str(path), "--terminator", "11", "--fail-on", "never").code == 0
    path.write_bytes(lines(RECORDS[:1]))
    assert llmdoctor("gencfg", "runaway", str(path)).code == 0
    path.write_bytes(b"")
    nothing = llmdoctor("gencfg", "runaway", "outputs.jsonl", cwd=tmp_path)
    assert (nothing.code, nothing.out) == (3, "Undecided: Nothing to check: no sequence in outputs.jsonl\n")


@pytest.mark.parametrize("unread", [b"{cut\n", b'{"words": ["a"]}\n', b'{"choices": [{"index": 0, "words": ["a"]}]}\n'])
def test_what_was_not_read_limits_the_verdict(unread: bytes, tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    path = tmp_path / "outputs.jsonl"
    path.write_bytes(lines([{"token_ids": [5, 6, 11], "finish_reason": "stop"}] * 9) + unread)
    found = llmdoctor("gencfg", "runaway", str(path), "--terminator", "11", "-f", "json")
    verdict = valid(found)["verdict"]
    assert (found.code, verdict["status"]) == (2, "undecided")
    assert "1 of 10 records could not be read" in verdict["text"]
    assert valid(found)["result"]["sequences"] == 9


def test_a_failed_request_does_not_limit_it(tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    path = tmp_path / "outputs.jsonl"
    path.write_bytes(lines([{"token_ids": [5, 6, 11], "finish_reason": "stop"}, {"response": None, "error": {"code": "x"}}]))
    found = llmdoctor("gencfg", "runaway", str(path), "--terminator", "11", "-f", "json")
    assert (found.code, valid(found)["verdict"]["status"], valid(found)["result"]["failed"]) == (0, "ok", 1)


def test_a_repeated_terminator_is_padding_or_a_runaway_and_both_are_named(tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    path = tmp_path / "outputs.jsonl"
    path.write_bytes(lines([{"token_ids": [*range(50, 50 + size), *[11] * (90 - size)]} for size in range(20, 30)]))
    found = valid(llmdoctor("gencfg", "runaway", str(path), "--terminator", "11", "--max-new-tokens", "90", "-f", "json"))
    assert (found["verdict"]["status"], found["result"]["padding_assumed"]) == ("undecided", 10)
    assert "10 sequences repeat a terminator to the end" in found["verdict"]["text"]


def test_ctrl_c_is_130_and_says_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llmdoctor", "gencfg", "runaway", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write("{}\n")
        process.stdin.flush()
        time.sleep(2.0)  # it waits for the end of its input
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (130, "")
    assert err == "llmdoctor: interrupted\n"


def test_standard_input(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llmdoctor", "gencfg", "runaway", "-", "-f", "json"]
    for data in (lines(RECORDS), gzip.compress(lines(RECORDS)), parquet(RECORDS)):
        done = subprocess.run(command, input=data, capture_output=True, check=False, cwd=tmp_path)
        assert json.loads(done.stdout)["result"]["sequences"] == 3


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(times: int) -> int:
        path = tmp_path / "outputs"
        path.write_bytes(lines([{"token_ids": list(range(500)), "finish_reason": "stop"}]) * times)
        tracemalloc.start()
        try:
            runaway_report(RunawayOptions(path=str(path)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    small, large = peak(1500), peak(6000)
    assert large < 1.2 * small


def test_progress_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress("replay", stream)
    progress.tick(256, 8000)
    assert stream.getvalue() == ""
    now[0] += 2
    progress.tick(4000, 8000)
    progress.tick(4256, 8000)
    progress.close()
    assert stream.getvalue() == "llmdoctor: replay: 4,000 of 8,000 steps, 2 s left\n"
    stream.isatty = lambda: True  # type: ignore[method-assign]
    now[0] += 20
    progress.say("5,000 sequences")
    assert stream.getvalue().count("\r") == 1
    progress.close()
    assert stream.getvalue().endswith("\r")


SEEDS = [WHOLE[kind]() for kind in ("lines", "an array over many lines", "lines, compressed", "parquet")]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.sampled_from(SEEDS),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), st.binary(max_size=9)), min_size=1, max_size=4),
)
def test_mutated_files(seed: bytes, cuts: list[tuple[float, int, bytes]], tmp_path: Path) -> None:
    data = seed
    for place, length, insert in cuts:
        at = int(place * len(data))
        data = data[:at] + insert + data[at + length :]
    path = tmp_path / "outputs"
    path.write_bytes(data)
    survives(path, "11")


scalars = (
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | st.sampled_from(["stop", "length", "a", "<|im_end|> b"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "token_ids text choices outputs output response body usage meta_info finish_reason stop_reason max_tokens logprobs content "
                "message delta tokens status details kind t pid error completion_tokens".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(records=st.lists(values, min_size=1, max_size=4))
def test_records_of_any_shape(records: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "outputs"
    path.write_bytes(lines(records))
    survives(path)

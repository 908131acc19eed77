"""Records are whole lines of strict JSON, whatever they are made of and however a process ends."""

from __future__ import annotations

import enum
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdoctor.attach.records import PartFile, encode, merge, rank

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(object),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.sets(st.integers()),
)


@given(st.dictionaries(st.text(), ANYTHING))
def test_a_record_is_one_line_of_strict_json(record: dict[str, Any]) -> None:
    line = encode(record)
    assert b"\n" not in line

    def refuse(word: str) -> None:
        raise AssertionError(word)

    assert isinstance(json.loads(line, parse_constant=refuse), dict)


class Level(enum.IntEnum):
    LOW = 1


def test_what_json_does_not_know_becomes_what_a_reader_expects() -> None:
    record = {"enum": Level.LOW, "tuple": (1, 2.5), "nan": float("nan"), "deep": [[[[[[[[[[1]]]]]]]]]]}
    decoded = json.loads(encode(record))
    assert decoded["enum"] == 1
    assert decoded["tuple"] == [1, 2.5]
    assert decoded["nan"] == "nan"
    assert "..." in str(decoded["deep"])


def test_a_forked_child_writes_a_file_of_its_own(tmp_path: Path) -> None:
    sink = PartFile(str(tmp_path))
    sink.write({"who": "parent", "t": 1})
    child = os.fork()
    if child == 0:
        sink.write({"who": "child", "t": 2})
        os._exit(0)
    os.waitpid(child, 0)
    sink.write({"who": "parent", "t": 3})
    files = sorted(tmp_path.glob("*.jsonl"))
    assert len(files) == 2
    assert [json.loads(line)["who"] for line in merge(files)] == ["parent", "child", "parent"]


def test_a_folder_that_is_gone_ends_the_recording_and_not_the_run(tmp_path: Path) -> None:
    sink = PartFile(str(tmp_path / "nowhere"))
    sink.write({"t": 1})
    sink.write({"t": 2})


def test_merging_leaves_out_what_was_cut_off(tmp_path: Path) -> None:
    (tmp_path / "00000-1.jsonl").write_bytes(b'{"t":1,"who":0}\n{"t":3,"who":0}\n{"t":5,"wh')
    (tmp_path / "00001-2.jsonl").write_bytes(b'{"t":2,"who":1}\nnot json\n[1]\n{"t":"later"}\n{"t":4,"who":1}\n')
    assert [json.loads(line)["t"] for line in merge(tmp_path.glob("*.jsonl"))] == [1, 2, 3, 4]


@pytest.mark.parametrize(("variables", "expected"), [({}, 0), ({"RANK": "3", "LOCAL_RANK": "1"}, 3), ({"RANK": "x", "LOCAL_RANK": "1"}, 1)])
def test_the_rank_is_the_launchers(variables: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert rank() == expected


CLOSES = """
import os, sys
from llmdoctor.attach.records import PartFile
sink = PartFile(sys.argv[1])
sink.write({"t": 1})
os.closerange(3, 64)  # as a daemon does
with open(sys.argv[1] + "/own.txt", "w") as file:
    file.write("mine\\n")
    file.flush()
    sink.write({"t": 2})
    sink.write({"t": 3})
"""


def test_a_program_that_closes_the_recorders_descriptor_keeps_its_own_files(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CLOSES, str(tmp_path)], check=True, timeout=60)
    assert (tmp_path / "own.txt").read_text() == "mine\n"
    assert [json.loads(line)["t"] for line in merge(tmp_path.glob("*.jsonl"))] == [1, 2, 3]

"""Memory snapshots: read without any global, explained; damaged and hostile files are sentences."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.measured import read_measured
from llmdoctor.mem.snapshot import held_before, held_of, peak_of, read_snapshot
from llmdoctor.mem.snapshot_report import snapshot_report

MODEL = {"filename": "/x/transformers/models/qwen2/modeling_qwen2.py", "line": 47, "name": "forward"}
ADAM = {"filename": "/x/torch/optim/adam.py", "line": 791, "name": "_multi_tensor_adam"}
FUNCTIONAL = {"filename": "/x/torch/nn/functional.py", "line": 1, "name": "linear"}


def alloc(address: int, size: int, *frames: dict[str, Any]) -> dict[str, Any]:
    return {"action": "alloc", "addr": address, "size": size, "stream": 0, "frames": list(frames)}


def free(address: int, size: int) -> list[dict[str, Any]]:
    return [{"action": action, "addr": address, "size": size, "stream": 0, "frames": []} for action in ("free_requested", "free_completed")]


SNAPSHOT: dict[str, Any] = {
    "segments": [
        {
            "device": 0, "address": 0, "total_size": 4096, "segment_type": "large",
            "blocks": [
                {"size": 1024, "state": "active_allocated", "frames": [FUNCTIONAL, MODEL]},
                {"size": 512, "state": "active_allocated", "history": [{"frames": [ADAM]}]},
                {"size": 2560, "state": "inactive"},
            ],
        }
    ],
    "device_traces": [[alloc(1, 1000, FUNCTIONAL, MODEL), alloc(2, 500), *free(1, 1000), alloc(3, 400, ADAM), *free(9, 300), *free(2, 500)]],
}  # fmt: skip


def test_what_is_held_and_what_the_peak_consists_of() -> None:
    (held,) = held_of(SNAPSHOT)
    assert (held.allocated, held.reserved) == (1536, 4096)
    assert held.by_site == [("qwen2/modeling_qwen2.py:47 forward", 1024, 1), ("optim/adam.py:791 _multi_tensor_adam", 512, 1)]
    peak = peak_of(SNAPSHOT, before=300)
    assert peak.bytes == 1800
    assert peak.by_component == {"held before": 300, "activations": 1000, "temporaries": 500}


def test_report(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.pickle"
    path.write_bytes(pickle.dumps(SNAPSHOT))
    report = snapshot_report(str(path))
    assert report.result is not None
    assert report.result["snapshot"][0]["components"] == {"activations": 1024, "optimizer_state": 512}


class Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/llmdoctor-was-run",)


@pytest.mark.parametrize(
    "value", [Hostile(), {"segments": [Hostile()]}, {"segments": {1, 2}, "x": Path("a")}, [1], {"segments": 3}, "text"]
)
def test_code_and_other_things_are_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "snapshot.pickle"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(QuestionError, match="not a memory snapshot"):
        read_snapshot(str(path))
    assert not Path("/tmp/llmdoctor-was-run").exists()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_sentences(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps(SNAPSHOT))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "s.pickle"
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    try:
        snapshot_report(str(path))
    except QuestionError as error:
        assert "\n" not in str(error)  # noqa: PT017 an answer is as good


def test_what_was_held_before_the_history_began_is_counted() -> None:
    (held,) = held_of(SNAPSHOT)
    before = held_before(SNAPSHOT, held)  # 1536 at the end; the history allocated 400 of them and freed 300 that it had not allocated
    assert before == 1536 - 400 + 300
    assert peak_of(SNAPSHOT, before=before).bytes == before + 1500


def test_a_long_history_is_read_in_linear_time() -> None:
    grown = [alloc(number, 512) for number in range(60_000)]
    assert peak_of({"segments": [], "device_traces": [grown]}).bytes == 60_000 * 512


def test_measured_takes_a_snapshot_and_a_log_of_deepspeed(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.pickle"
    path.write_bytes(pickle.dumps(SNAPSHOT))
    (record,) = read_measured(str(path))
    assert (record["phase"], record["peak_bytes"], record["device"]) == ("peak", 1436 + 1500, "cuda:0")
    path.write_bytes(pickle.dumps({**SNAPSHOT, "device_traces": []}))
    with pytest.raises(QuestionError, match="no recorded history"):
        read_measured(str(path))
    path.write_bytes(pickle.dumps({**SNAPSHOT, "device_traces": [[*SNAPSHOT["device_traces"][0], {"action": "oom", "size": 5}]]}))
    with pytest.raises(QuestionError, match="ended out of memory"):
        read_measured(str(path))
    log = tmp_path / "train.log"
    log.write_text("step 1\nMA 1.0 GB  Max_MA 2.5 GB  CA 3.0 GB  Max_CA 3 GB\n")
    assert read_measured(str(log))[0]["peak_bytes"] == int(2.5 * 2**30)
    log.write_text("nothing")
    with pytest.raises(QuestionError, match="expected a record"):
        read_measured(str(log))

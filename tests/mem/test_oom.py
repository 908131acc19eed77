"""Out-of-memory messages of every form since torch 1.13, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.oom import oom_report
from llmdoctor.mem.oom_message import messages_of, usages_of
from llmdoctor.mem.options import OomOptions

GIB = 2**30
TRACEBACK = """Traceback (most recent call last):
  File "train.py", line 88, in <module>
    trainer.train()
  File "/x/transformers/loss/loss_utils.py", line 57, in ForCausalLMLoss
    logits = logits.float()
"""
NEW = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 18.55 GiB. GPU 0 has a total capacity of 79.25 GiB of which 7.12 GiB is free. "
    "Including non-PyTorch memory, this process has 72.12 GiB memory in use. Of the allocated memory 60.80 GiB is allocated by PyTorch, and 9.41 GiB "
    "is reserved by PyTorch but unallocated."
)
OLD = (
    "RuntimeError: CUDA out of memory. Tried to allocate 2.32 GiB (GPU 0; 23.64 GiB total capacity; 20.11 GiB already allocated; 1.72 GiB free; "
    "20.90 GiB reserved in total by PyTorch) If reserved memory is >> allocated memory try setting max_split_size_mb"
)
MISSPELT = NEW.replace("capacity", "capacty")
PIECES = NEW.replace("18.55", "2.00").replace("7.12", "1.10").replace("9.41", "25.90").replace("60.80", "51.20")


@pytest.mark.parametrize(
    ("text", "tried", "capacity", "free", "allocated", "reserved", "fragmented"),
    [
        (NEW, 18.55, 79.25, 7.12, 60.80, 70.21, False),
        (MISSPELT, 18.55, 79.25, 7.12, 60.80, 70.21, False),
        (OLD, 2.32, 23.64, 1.72, 20.11, 20.90, True),
        (PIECES, 2.0, 79.25, 1.10, 51.20, 77.10, True),
        (NEW.split(" Including", maxsplit=1)[0], 18.55, 79.25, 7.12, None, None, None),
        (NEW.replace("CUDA", "HIP"), 18.55, 79.25, 7.12, 60.80, 70.21, False),
        ("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 1 has a total capacity of 1024.00 MiB of which 512 bytes is free.",
         20 / 1024, 1.0, 512 / GIB, None, None, None),
    ],
)  # fmt: skip
def test_every_form(
    text: str, tried: float, capacity: float, free: float, allocated: float | None, reserved: float | None, fragmented: bool | None
) -> None:
    (message,) = messages_of(TRACEBACK + text)
    for mine, theirs in ((message.tried, tried), (message.capacity, capacity), (message.free, free), (message.allocated, allocated),
                         (message.reserved, reserved)):  # fmt: skip
        assert (mine is None) == (theirs is None)
        assert mine is None or theirs is None or abs(mine / GIB - theirs) < 0.001
    assert message.fragmented is fragmented
    assert message.site == "/x/transformers/loss/loss_utils.py:57 ForCausalLMLoss"
    assert message.line == 6


def test_deepspeeds_lines() -> None:
    (usage,) = usages_of("[INFO] MA 12.1 GB         Max_MA 14.25 GB         CA 15.0 GB         Max_CA 15 GB")
    assert (usage.allocated, usage.max_allocated, usage.max_reserved) == (int(12.1 * GIB), int(14.25 * GIB), 15 * GIB)


def test_without_a_model_the_size_is_factored(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text(TRACEBACK + NEW)
    report = oom_report(OomOptions(log=str(log)))
    assert report.verdict is not None
    assert "18.55 GiB" in report.verdict.text
    assert "Fragmentation is not the cause" in report.verdict.text
    assert report.result is not None
    shapes = [tuple(one["shape"]) for one in report.result["candidates"]]
    assert (32768, 151936) in shapes
    log.write_text("nothing")
    with pytest.raises(QuestionError, match="no out-of-memory message"):
        oom_report(OomOptions(log=str(log)))


@pytest.mark.live
def test_with_a_model_the_tensor_is_named(models: dict[str, Path], tmp_path: Path) -> None:
    size = 64 * 100 * 1003 * 4  # batch x tokens x vocabulary in float32
    log = tmp_path / "train.log"
    log.write_text(
        f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB. GPU 0 has a total capacity of 0.10 GiB of which 1.00 MiB is free."
    )
    options = OomOptions(log=str(log), model=str(models["qwen2"]), strategy=("trainer:adamw_torch,bf16",), batch=64, seq_len=100)
    report = oom_report(options)
    assert report.result is not None
    first = report.result["candidates"][0]
    assert (first["tensor"], first["shape"], first["dtype"]) == ("logits", [64, 100, 1003], "float32")
    assert first["phase"] in ("forward", "backward")

"""What attention allocates, call by call, beside what an H200 allocated (docs/mem-sdpa.txt, written by conformance/gpu_sdpa.py)."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.live
ROW = re.compile(r"(.{24}) (\w+) +([\d,]+) +([\d,]+) +([\d,]+) +(-?[\d,]+)$")
MEASURED = {
    match[1].strip(): (match[2], [int(match[column].replace(",", "")) for column in (3, 4, 5, 6)])
    for line in (ROOT / "docs" / "mem-sdpa.txt").read_text().splitlines()
    if (match := ROW.match(line))
}


def script() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_sdpa", ROOT / "conformance" / "gpu_sdpa.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def predicted(call: Any, tensors: Any) -> tuple[str, list[int]]:
    """The kernel; bytes held after the forward, its largest moment, that of the backward, and what is held after it."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from llmdoctor.mem.ledger import Ledger
    from llmdoctor.mem.live.attention import chosen_kernel
    from llmdoctor.mem.live.cuda import scaled_dot_product_attention
    from llmdoctor.mem.live.recorder import StorageRecorder, recording

    fake, recorder = FakeTensorMode(allow_non_fake_inputs=True), StorageRecorder()
    with fake:
        query, key, value, mask = tensors(call, "cpu")
    for tensor in (query, key, value, mask):
        if tensor is not None:
            recorder.static.add(tensor.untyped_storage()._cdata)
    options = call[-1]
    with recording(recorder, fake):
        out = scaled_dot_product_attention(query, key, value, mask, **options)
        recorder.mark("mark", "forward")
        gradient = torch.ones_like(out)
        recorder.mark("mark", "gradient")
        torch.autograd.Variable._execution_engine.run_backward(
            (out,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True
        )
        recorder.mark("mark", "end")
    (segment,) = recorder.finish()
    ledger, marks = Ledger(), {}
    for event in segment.events:
        if event[0] == "+":
            ledger.add(event[1], event[2], "x")
        elif event[0] == "-":
            ledger.drop(event[1])
        else:
            marks[event[1]] = (ledger.allocator.allocated, max((moment.total for moment in ledger.peaks.values()), default=0))
            ledger.reset()
    start = marks["gradient"][0]
    numbers = [marks["forward"][0], marks["forward"][1], marks["end"][1] - start, marks["end"][0] - start]
    return chosen_kernel(query, key, value, mask, bool(options.get("enable_gqa"))), numbers


@pytest.mark.parametrize("name", MEASURED)
def test_attention_allocates_what_the_gpu_allocates(name: str) -> None:
    module = script()
    kernel, numbers = predicted(module.CALLS[name], module.tensors)
    wanted, measured = MEASURED[name]
    assert kernel == wanted
    size = module.CALLS[name]
    slack = 0.03 * max(measured) + 4096
    assert all(abs(mine - theirs) <= slack for mine, theirs in zip(numbers, measured, strict=True)), (numbers, measured, size)

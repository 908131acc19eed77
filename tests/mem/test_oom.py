"""Out-of-memory messages of every form since torch 1.13, and what is made of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdoctor.core.document import Note
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
        (OLD, 2.32, 23.64, 1.72, 20.11, 20.90, None),
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


def answer(tmp_path: Path, text: str) -> tuple[str, dict[str, object]]:
    log = tmp_path / "train.log"
    log.write_text(text)
    report = oom_report(OomOptions(log=str(log)))
    assert report.verdict is not None
    assert report.result is not None
    return report.verdict.text, dict(report.result)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (NEW.replace("18.55 GiB", "1e26 GiB"), "damaged.*cannot be read"),
        (NEW.replace("18.55", "9" * 400), "damaged.*cannot be read"),
        (NEW.replace("18.55", "9" * 29), "damaged.*no request has this size"),
        (NEW.replace("7.12", "97.12"), "damaged.*more is free than the device has"),
        (NEW.replace("79.25", "0.00"), "damaged.*no device has this size"),
        (OLD.replace("20.90", "2.90"), "damaged.*more is allocated than reserved"),
        (NEW[:58], "damaged.*cannot be read"),
        ("if you run into CUDA out of memory, lower the batch size", "no out-of-memory message"),
    ],
)
def test_a_message_that_cannot_be_true_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(QuestionError, match=sentence):
        answer(tmp_path, TRACEBACK + text)


def test_what_launchers_and_terminals_add_is_read_over(tmp_path: Path) -> None:
    ranks = [[f"[rank{rank}]: {line}" for line in (TRACEBACK + NEW.replace("GPU 0", f"GPU {rank}")).splitlines()] for rank in range(2)]
    mixed = "\n".join(line for pair in zip(*ranks, strict=True) for line in pair)
    text, result = answer(tmp_path, mixed)
    assert text.startswith("Out of memory on devices 0, 1 (the last of 2 messages): 18.55 GiB")
    assert result["site"] == "/x/transformers/loss/loss_utils.py:57 ForCausalLMLoss"
    wrapped = NEW.replace("has a total", "has a\ntotal").replace("is free.", "is\nfree.")
    assert answer(tmp_path, f"\x1b[31m{TRACEBACK}\x1b[1m{wrapped}\x1b[0m")[1]["capacity_bytes"] == int(79.25 * GIB)
    assert answer(tmp_path, f"{TRACEBACK}{NEW}\n{NEW}\n")[1]["messages"] == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"7.12": "30.00", "18.55": "2.00", "60.80": "40.00"}, "not decided: the free memory was enough"),
        ({"79.25": "8.00", "18.55": "2.00", "7.12 GiB is free": "0 bytes is free"}, "not decided: more is allocated than the device has"),
        ({"and 9.41": "with 3.10 GiB allocated in private pools (e.g., CUDA Graphs), and 9.41"}, "private pools"),
        ({"18.55": "16.00"}, r"just have been enough \(0.53 GiB to spare\)"),
        ({"18.55 GiB": "20.00 MiB", "7.12 GiB": "3.12 MiB", "60.80": "77.80", "9.41": "0.50"}, "request is small"),
        ({"18.55": "512.00"}, "6.5 times the device"),
        ({"Including": "Process 7 has 31.00 GiB memory in use. Including", "60.80": "30.80"}, "Other processes hold 31.00 GiB.*would have been enough"),
    ],
)  # fmt: skip
def test_fragmentation_is_named_only_if_the_numbers_prove_it(tmp_path: Path, change: dict[str, str], sentence: str) -> None:
    text = NEW
    for old, new in change.items():
        text = text.replace(old, new)
    verdict, result = answer(tmp_path, text)
    assert re.search(sentence, verdict), verdict
    assert result["fragmented"] is not True


@pytest.mark.parametrize(
    ("text", "kind", "sentence"),
    [
        ("Out of memory: Killed process 31 (python3) total-vm:1kB, anon-rss:2097152kB, file-rss:0kB", "host killed", "python3, which held 2.00 GiB"),
        ("failed (exitcode: -9) local_rank: 3", "process killed", "does not name the reason"),
        ("ValueError: No available memory for the cache blocks. Try increasing", "vLLM cache", "key-value cache"),
        ("NCCL WARN Cuda failure 2 'out of memory'", "NCCL", "NCCL could not"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "cuBLAS or cuDNN", "handle or workspace"),
        ("RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be", "driver", "names no size"),
        ("CUDA out of memory occurred when warming up sampler with 1024 dummy requests.", "vLLM start", "1024 requests at once"),
        ("RuntimeError: No executable batch size found, reached zero.", "accelerate", "a single sequence"),
        ("OutOfResources: out of resource: shared memory, Required: 180224, Hardware limit: 101376.", "Triton", "on-chip memory"),
        ("Error: out of memory at line 380 in file /src/csrc/pythonInterface.cpp", "bitsandbytes", "managed memory"),
        ("ggml: allocating 8192.00 MiB on device 0: cudaMalloc failed: out of memory", "llama.cpp", "llama.cpp"),
    ],
)  # fmt: skip
def test_other_failures_name_no_tensor(tmp_path: Path, text: str, kind: str, sentence: str) -> None:
    verdict, result = answer(tmp_path, f"step 1\n{text}\n")
    assert sentence in verdict
    assert (result["kind"], result["tried_bytes"], result["candidates"], result["line"]) == (kind, None, [], 2)


LISTED = (
    "CUDA out of memory. Tried to allocate 1002.00 MiB. GPU 0 has a total capacity of {} GiB of which 322.81 MiB is free. {}Of the allocated "
    "memory 31.00 GiB is allocated by PyTorch, and 436.23 MiB is reserved by PyTorch but unallocated."
)


@pytest.mark.parametrize(
    ("device", "listed", "others"),
    [
        # In a container torch lists its own process as any other.
        (32.25, "Process 8472 has 31.90 GiB memory in use. ", 0),
        (79.25, "Process 8472 has 31.90 GiB memory in use. Process 9 has 47.00 GiB memory in use. ", 47 * GIB),
        (
            79.25,
            "Process 9 has 47.00 GiB memory in use. Including non-PyTorch memory, this process has 31.90 GiB memory in use. ",
            47 * GIB,
        ),
        (79.25, "Process 9 has 47.00 GiB memory in use. ", None),  # one of them is unknown: nothing is claimed
    ],
)
def test_torch_s_own_process_is_none_of_the_others(tmp_path: Path, device: float, listed: str, others: int | None) -> None:
    verdict, result = answer(tmp_path, LISTED.format(device, listed))
    assert (result["other_processes_bytes"] or 0) // GIB == (others or 0) // GIB
    assert ("Other processes hold" in verdict) is bool(others)


def test_a_limit_of_the_whole_device_is_none(tmp_path: Path) -> None:
    assert "is limited to" not in answer(tmp_path, LISTED.format(79.25, "79.25 GiB allowed; "))[0]
    assert "is limited to 39.60 GiB" in answer(tmp_path, LISTED.format(79.25, "39.60 GiB allowed; "))[0]


def test_cuda_malloc_async_has_a_message_of_its_own(tmp_path: Path) -> None:
    verdict, result = answer(
        tmp_path,
        "Allocation on device 1 would exceed allowed memory. (out of memory)\nCurrently allocated     : 10.61 GiB\nRequested               : 1.27 GiB\n"
        "Device limit            : 12.00 GiB\nFree (according to CUDA): 0 bytes\nPyTorch limit (set by user-supplied memory fraction)\n"
        "                        : 17179869184.00 GiB\n",
    )
    assert "1.27 GiB was requested on a device of 12.00 GiB with 0.0 MiB free, 10.61 GiB allocated" in verdict
    assert "is limited" not in verdict
    assert result["device"] == "CUDA"


def test_an_engine_that_serves_is_named_and_no_logits_are_guessed_for_its_weights(tmp_path: Path) -> None:
    prefix = "(EngineCore_DP0 pid=1234) ERROR 09-01 10:00:00 [core.py:700] "
    lines = [
        "Traceback (most recent call last):",
        '  File "/x/site-packages/vllm/model_executor/layers/linear.py", line 100, in create_weights',
        "    weight = Parameter(torch.empty(",
        NEW,
    ]
    log = tmp_path / "serve.log"
    log.write_text("".join(f"{prefix}{line}\n" for line in lines))
    report = oom_report(OomOptions(log=str(log)))
    assert report.result is not None
    assert (report.result["phase"], report.result["candidates"]) == ("start", [])
    notes = " ".join(block.text for block in report.document if isinstance(block, Note))
    assert "mem kvcache" in notes
    assert "mem fit" not in notes


def test_devices_that_are_no_nvidia_gpu(tmp_path: Path) -> None:
    mps = "MPS backend out of memory (MPS allocated: 17.44 GB, other allocations: 384.00 KB, max allowed: 18.13 GB). Tried to allocate 1.00 GB"
    assert answer(tmp_path, mps)[1]["capacity_bytes"] == int(18.13 * GIB)
    xpu = "XPU out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.91 GiB. Of the allocated memory 14.02 GiB is allocated"
    assert answer(tmp_path, f"{xpu} by PyTorch, and 1.23 GiB is reserved by PyTorch but unallocated.")[1]["reserved_bytes"] == int(
        14.02 * GIB
    ) + int(1.23 * GIB)
    cpu = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)"
    assert "no GPU is involved" in answer(tmp_path, cpu)[0]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_logs_are_answers_or_sentences(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = bytearray((TRACEBACK + data.draw(st.sampled_from([NEW, OLD, PIECES]))).encode())
    for _ in range(data.draw(st.integers(0, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "train.log"
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    try:
        oom_report(OomOptions(log=str(path)))
    except QuestionError as error:
        assert "\n" not in str(error)  # noqa: PT017 an answer is as good


@given(st.integers(1, 2**37))
def test_the_tensor_lies_between_the_bounds_of_the_segment(size: int) -> None:
    segment = 2**21 if size <= 2**20 else 20 * 2**20 if size < 10 * 2**20 else -(-size // 2**21) * 2**21  # get_allocation_size
    shown = f"{segment / 2**20:.2f} MiB" if segment < GIB else f"{segment / GIB:.2f} GiB"
    (message,) = messages_of(f"CUDA out of memory. Tried to allocate {shown}.")
    assert message.smallest <= size <= message.largest

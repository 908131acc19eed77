"""Failures for want of memory that are not a refused request of torch's allocator: of the host, of CUDA's libraries, of serving engines.

Their messages name no tensor. What they mean is known, and is often mistaken: a process that the kernel kills ran out of host memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmdoctor.mem.oom_text import lines_of


@dataclass(frozen=True, slots=True)
class MemoryFailure:
    """A kind of failure: its name, the phrase by which it is known, what it means in one sentence, what helps.

    `means` may name groups of the pattern: {size} is then a size in bytes or with its unit, as the message has it.
    """

    name: str
    pattern: re.Pattern[str]
    means: str
    fix: str


def _failure(name: str, pattern: str, means: str, fix: str) -> MemoryFailure:
    return MemoryFailure(name, re.compile(pattern), means, fix)


_HOST = "Fewer or smaller worker processes, an offload of less, weights that are loaded once per host, or more host memory."
FAILURES = (
    _failure(
        "host killed", r"(?:Out of memory|oom-kill|memory cgroup).{0,300}?[Kk]illed process \d+ "
        r"\((?P<process>[^)\n]{1,60})\)(?:.{0,300}?anon-rss:(?P<kib>\d{1,15})kB)?",
        "The kernel killed {process}{size}: the memory of the host, or of its container, ran out, not that of a GPU.", _HOST,
    ),
    _failure(
        "host killed", r"\boom_kill event|OOMKilled|OOM Killed|node running low on memory",
        "The scheduler killed a process: the memory of the host, or of its container, ran out, not that of a GPU.", _HOST,
    ),
    _failure(
        "process killed",
        r"exitcode\s{0,8}: -9\b|Signal 9 \(SIGKILL\)|died with <Signals\.SIGKILL: 9>|exit(?:ed)? (?:with )?code 137|is killed by signal: Killed",
        "A process was ended by signal 9, which is most often the kernel's answer to a host without memory; the log does not name the reason.",
        "dmesg -T | grep -i 'killed process'    shows whether it was the memory of the host",
    ),
    _failure(
        "shared memory", r"out of shared memory|unable to (?:allocate|mmap|open) shared memory|Unexpected bus error encountered in worker",
        "Shared memory (/dev/shm) is full, which the workers of a data loader use; no GPU is involved.",
        "docker run --ipc=host ..., or --shm-size 16g, or num_workers 0",
    ),
    _failure(
        "host array", r"Unable to allocate (?P<size>\d{1,15}(?:\.\d{1,6})? [KMGTPE]?i?B) for an array with shape",
        "numpy could not allocate {size} of host memory; no GPU is involved.", _HOST,
    ),
    _failure("host allocation", r"std::bad_alloc|\bCannot allocate memory\b", "The host refused memory; no GPU is involved.", _HOST),
    _failure(
        "vLLM cache", r"No available memory for the cache blocks",
        "vLLM has no memory left for its key-value cache: weights and activations take all that gpu_memory_utilization allows.",
        "A higher gpu_memory_utilization, a smaller max_model_len or max_num_batched_tokens, or more devices (tensor_parallel_size).",
    ),
    _failure(
        "vLLM cache", r"larger than the (?:available KV cache memory|maximum number of tokens that can be stored in KV cache)",
        "vLLM's key-value cache cannot hold one sequence of max_model_len tokens.",
        "A smaller max_model_len (the message names one that fits), or a higher gpu_memory_utilization.",
    ),
    _failure(
        "vLLM start", r"Free memory on device.{0,120}is less than desired GPU memory utilization",
        "Another process holds memory of the device, so vLLM cannot take the share that gpu_memory_utilization asks for.",
        "nvidia-smi    shows which process it is; or a lower gpu_memory_utilization",
    ),
    _failure(
        "vLLM start", r"CUDA out of memory occurred when warming up sampler with (?P<count>\d{1,9}) dummy requests",
        "vLLM ran out of device memory when it sampled for {count} requests at once, after weights and cache were placed.",
        "A smaller max_num_seqs, or a lower gpu_memory_utilization, which leaves more beside the cache.",
    ),
    _failure(
        "accelerate", r"No executable batch size found, reached zero",
        "accelerate halved the batch size after each out-of-memory error until none was left (find_executable_batch_size): a single sequence does "
        "not fit either.",
        "llmdoctor mem fit MODEL --strategy FILE --gpu-memory SIZE    shows which other settings make it fit",
    ),
    _failure(
        "Triton", r"out of resource: shared memory, Required: (?P<count>\d{1,12}), Hardware limit: \d{1,12}",
        "A Triton kernel needs {count} bytes of the on-chip memory of one multiprocessor, more than this GPU has; the device's memory is not involved.",
        "Smaller blocks or fewer stages of the kernel, or a version of its library with settings for this GPU.",
    ),
    _failure(
        "bitsandbytes", r"out of memory at line \d{1,6} in file \S{0,200}(?:pythonInterface|ops)\.",
        "bitsandbytes could not allocate managed memory for paged states: the memory of the host, or the device and the host together, ran out.",
        _HOST,
    ),
    _failure(
        "SGLang cache", r"Not enough memory\. Please try to increase --mem-fraction-static",
        "SGLang has no memory left for its key-value cache.", "A higher --mem-fraction-static, or more devices (--tp).",
    ),
    _failure(
        "NCCL", r"Failed to CUDA (?:calloc|malloc)|NCCL.{0,300}?out of memory|ncclUnhandledCudaError.{0,300}?out of memory",
        "NCCL could not allocate its buffers: the allocator of torch, or another process, has left it nothing.",
        "A smaller step that leaves about 2 GiB of the device, or torch.cuda.empty_cache() before the first collective.",
    ),
    _failure(
        "cuBLAS or cuDNN", r"CU(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_ALLOC_FAILED",
        "A library of CUDA could not allocate its handle or workspace: torch's allocator, or another process, has left it nothing.",
        "A smaller step that leaves about 1 GiB of the device; the library does not draw on what torch has reserved.",
    ),
    _failure(
        "llama.cpp", r"cudaMalloc failed: out of memory|(?:failed|unable) to allocate (?:CUDA|Vulkan|Metal|ROCm)\d* buffer",
        "llama.cpp could not allocate a buffer on the device.",
        "Fewer layers on the device (-ngl), a shorter context (-c), or a quantized cache (-ctk q8_0).",
    ),
    _failure(
        "JAX", r"RESOURCE_EXHAUSTED: Out of memory",
        "XLA, not torch, ran out of device memory: llmdoctor does not read its reports.",
        "XLA_PYTHON_CLIENT_PREALLOCATE=false if torch shares the device.",
    ),
    _failure(
        "driver", r"CUDA (?:driver )?[Ee]rror: out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation",
        "The CUDA driver refused memory outside torch's allocator (a context, a library, pinned host memory); the message names no size.",
        "nvidia-smi    shows what other processes hold; pinned memory is host memory (dataloader_pin_memory, offload)",
    ),
    _failure(
        "paging file", r"The paging file is too small",
        "Windows refused memory of the host; no GPU is involved.", "A larger paging file, or a checkpoint that is loaded in smaller pieces.",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FailureInLog:
    """A failure in a log: its kind, its line from 1, and what it means."""

    kind: MemoryFailure
    line: int
    means: str


def failures_of(text: str) -> tuple[FailureInLog, ...]:
    """Return the first occurrence of each kind of failure in a log, in its order."""
    plain = "\n".join(line.text for line in lines_of(text))
    out: dict[str, FailureInLog] = {}
    for kind in FAILURES:
        match = kind.pattern.search(plain) if kind.name not in out else None
        if match is not None:
            out[kind.name] = FailureInLog(kind, plain.count("\n", 0, match.start()) + 1, _meaning(kind, match))
    return tuple(sorted(out.values(), key=lambda one: one.line))


def _meaning(kind: MemoryFailure, match: re.Match[str]) -> str:
    groups = match.groupdict()
    size = groups.get("size") or ""
    if groups.get("kib"):
        size = f", which held {int(groups['kib']) / 2**20:.2f} GiB"
    return kind.means.format(process=groups.get("process") or "", size=size, count=groups.get("count") or "")

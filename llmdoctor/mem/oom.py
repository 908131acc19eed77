"""`mem oom LOG`: explains an out-of-memory message: the sizes, the tensor, what helps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmdoctor.core.document import Block, Code, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report, Verdict
from llmdoctor.mem.advice import changes_of
from llmdoctor.mem.candidates import Candidate, candidates_of, guessed
from llmdoctor.mem.components import Unit
from llmdoctor.mem.findings import changes_text
from llmdoctor.mem.oom_message import MemoryUsage, OomMessage, messages_of, usages_of
from llmdoctor.mem.options import OomOptions
from llmdoctor.mem.predictor import compare_strategies
from llmdoctor.mem.results import CandidateResult, OomResult
from llmdoctor.mem.types import Change, Estimate

LIMIT = 64 * 2**20
EXPANDABLE = "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"


def oom_report(options: OomOptions) -> Report:
    """Explain the last out-of-memory message of a log, with MODEL and --strategy by the tensors of that model and batch.

    Raises QuestionError if the log cannot be read or holds no such message.
    """
    text = _read(options.log)
    messages, usages = messages_of(text), usages_of(text)
    if not messages:
        raise QuestionError(f"{options.log}: no out-of-memory message of torch in it" + _usage_hint(usages))
    message = messages[-1]
    estimate, candidates, changes = _explain(options, message)
    result: OomResult = {
        "line": message.line,
        "device": message.device,
        "tried_bytes": message.tried,
        "capacity_bytes": message.capacity,
        "free_bytes": message.free,
        "allocated_bytes": message.allocated,
        "reserved_bytes": message.reserved,
        "fragmented": message.fragmented,
        "site": message.site,
        "messages": len(messages),
        "candidates": [_candidate(one) for one in candidates],
        "predicted_peak_bytes": None if estimate is None else estimate.prediction.peak.total,
    }
    return Report(
        "mem oom",
        {"path": options.log, "model": options.model},
        {**result},
        document=tuple(_document(options, message, estimate, candidates, changes)),
        verdict=Verdict(sentence(message, candidates if estimate is not None else ()), "problem"),
    )


def _read(path: str) -> str:
    from llmdoctor.files.opening import Refusal, read_bytes

    data = read_bytes(path, LIMIT)
    if data is None or isinstance(data, Refusal):
        raise QuestionError(f"{path}: no such file" if data is None else f"{path} {data.reason}")
    return data.decode("utf-8", "replace")


def _usage_hint(usages: Sequence[MemoryUsage]) -> str:
    if not usages:
        return ""
    most = max(usages, key=lambda usage: usage.max_reserved)
    allocated, reserved = f"{most.max_allocated / 2**30:.2f} GiB allocated", f"{most.max_reserved / 2**30:.2f} GiB reserved"
    return f"; DeepSpeed reported at most {allocated}, {reserved} (line {most.line})"


def _explain(options: OomOptions, message: OomMessage) -> tuple[Estimate | None, tuple[Candidate, ...], tuple[Change, ...]]:
    if not options.model:
        return None, guessed(message.tried, message.tolerance), ()
    comparison, predictor = compare_strategies(options)
    estimate = comparison.estimates[0]
    candidates = candidates_of(estimate, predictor.config, message.tried, message.tolerance)
    return estimate, candidates, changes_of(estimate, predictor, message.capacity)


def sentence(message: OomMessage, candidates: Sequence[Candidate] = ()) -> str:
    """Return the content of a message in a few sentences, with the most likely tensor if there are `candidates`."""
    where = f" at {_short(message.site)}" if message.site else ""
    text = f"Out of memory: {_gib(message.tried)} was requested{where}"
    if message.capacity is not None:
        text += f" on a device of {_gib(message.capacity)}"
    parts = [f"{_gib(size)} {name}" for name, size in (("free", message.free), ("allocated", message.allocated)) if size is not None]
    if message.unallocated is not None:
        parts.append(f"{_gib(message.unallocated)} reserved but unallocated")
    text += f" with {', '.join(parts)}. " if parts else ". "
    if message.fragmented:
        return f"{text}The cause is fragmentation: free and unallocated memory together are enough, but not in one piece."
    if message.fragmented is False:
        missing = message.tried - (message.free or 0) - (message.unallocated or 0)
        text += f"Fragmentation is not the cause: even in one piece {_gib(missing)} is missing. "
    if candidates:
        text += f"The tensor is most likely {candidates[0].tensor} {list(candidates[0].shape)} in {candidates[0].dtype}."
    return text.strip()


def _short(site: str | None) -> str:
    return "/".join((site or "").split("/")[-2:])


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"


def _document(
    options: OomOptions, message: OomMessage, estimate: Estimate | None, candidates: Sequence[Candidate], changes: Sequence[Change]
) -> Iterator[Block]:
    yield Note("Evidence", f"{options.log}:{message.line}" + (f", {message.site}" if message.site else ""), "dim")
    if candidates:
        rows = tuple((one.tensor, str(list(one.shape)), one.dtype, _gib(one.bytes), one.setting, one.phase or "") for one in candidates)
        yield Table(("Candidates", "shape", "dtype", "size", "decided by", "phase"), rows)
        if estimate is None:
            yield Note("Limits", "Without a model these are guesses from usual vocabularies.", "dim")
    if estimate is not None:
        peak = estimate.prediction.peak
        unit = Unit(max(peak.total, message.capacity or 0))
        device = f", of {unit(message.capacity)} {unit.name} of the device" if message.capacity else ""
        yield Note("Predicted", f"{estimate.strategy.name} peaks at {unit(peak.total)} {unit.name} in the {peak.phase}{device}")
    if message.fragmented:
        yield Code("Fix", f"export {EXPANDABLE}")
    elif changes and message.capacity is not None:
        yield Code("Fix", changes_text(changes, message.capacity))
    if estimate is None:
        size = f" --gpu-memory {message.capacity / 2**30:.2f}GiB" if message.capacity else ""
        yield Note("Next", f"llmdoctor mem oom {options.log} MODEL --strategy FILE\nllmdoctor mem fit MODEL --strategy FILE{size}")


def _candidate(one: Candidate) -> CandidateResult:
    return {
        "tensor": one.tensor,
        "shape": list(one.shape),
        "dtype": one.dtype,
        "bytes": one.bytes,
        "setting": one.setting,
        "phase": one.phase,
    }

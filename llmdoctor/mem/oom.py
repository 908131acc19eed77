"""`mem oom LOG`: explains an out-of-memory message: the sizes, the tensor, what helps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmdoctor.core.document import Block, Code, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report, Verdict
from llmdoctor.mem.advice import changes_of
from llmdoctor.mem.candidates import Candidate, candidates_of, guessed
from llmdoctor.mem.capacity import fits
from llmdoctor.mem.components import Unit
from llmdoctor.mem.findings import changes_text
from llmdoctor.mem.oom_failures import FailureInLog, failures_of
from llmdoctor.mem.oom_message import found_in, usages_of
from llmdoctor.mem.oom_types import CONTEXTS, MIDDLE, MemoryUsage, OomMessage, UnreadableMessage
from llmdoctor.mem.options import OomOptions
from llmdoctor.mem.predictor import compare_strategies
from llmdoctor.mem.results import CandidateResult, OomResult
from llmdoctor.mem.types import Change, Comparison, Estimate
from llmdoctor.mem.verdict import at_of

LIMIT = 64 * 2**20
EXPANDABLE = "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
# The setting as a script or an environment makes it; torch's message proposes it too, after "try setting".
_EXPANDABLE_ON = re.compile(
    r"(?<!try setting )PYTORCH_(?:CUDA_|HIP_)?ALLOC_CONF['\"]?\]?\s{0,8}[=:]\s{0,8}['\"]?[^\s'\"]{0,200}expandable_segments:True"
)
_SHARES = {"vLLM": "gpu_memory_utilization, max_model_len, max_num_seqs", "SGLang": "--mem-fraction-static, --chunked-prefill-size"}
OTHERS, USUAL = 2**30, CONTEXTS  # a driver and its contexts take less: no sentence is worth it
MOST = 6


def oom_report(options: OomOptions) -> Report:
    """Explain the last out-of-memory message of a log, with MODEL and --strategy by the tensors of that model and batch.

    A log in which something else ran out of memory (the host, a library of CUDA, a serving engine) is explained by its own message. Raises
    QuestionError if the log cannot be read, holds no such message, or only messages that are cut short or cannot be true.
    """
    text = _read(options.log)
    (messages, damaged), failures = found_in(text), failures_of(text)
    explained = {failure.line for failure in failures}
    unreadable = tuple(one for one in damaged if one.line not in explained)
    if messages:
        return _of_message(options, text, messages, failures, unreadable)
    if unreadable:
        last = unreadable[-1]
        raise QuestionError(f"{options.log}:{last.line}: the message is damaged, so nothing is concluded from it: {last.reason}")
    if failures:
        return _of_failure(options, failures)
    raise QuestionError(f"{options.log}: no out-of-memory message in it" + _usage_hint(usages_of(text)))


def _of_message(
    options: OomOptions,
    text: str,
    messages: Sequence[OomMessage],
    failures: Sequence[FailureInLog],
    unreadable: Sequence[UnreadableMessage],
) -> Report:
    message = messages[-1]
    explained = _explain(options, message)
    result: OomResult = {
        **_EMPTY,
        "line": message.line,
        "device": message.device,
        "kind": "allocator",
        "tried_bytes": message.tried,
        "capacity_bytes": message.capacity,
        "free_bytes": message.free,
        "allocated_bytes": message.allocated,
        "reserved_bytes": message.reserved,
        "other_processes_bytes": message.others,
        "fragmented": message.fragmented,
        "site": message.site,
        "phase": message.phase,
        "messages": len(distinct(messages)),
        "candidates": [_candidate(one) for one in explained.candidates],
        "predicted_peak_bytes": None if explained.estimate is None else explained.estimate.prediction.peak.total,
    }
    return Report(
        "mem oom",
        {"path": options.log, "model": options.model},
        {**result},
        document=(
            *_document(options, message, explained, expandable=bool(_EXPANDABLE_ON.search(text))),
            *_also(options, messages, failures, unreadable),
        ),
        verdict=Verdict(f"{sentence(message, _first_lines(messages))} {explained.sentence(message)}".strip(), "problem"),
    )


_EMPTY: OomResult = {
    "line": 0, "device": "", "kind": "", "tried_bytes": None, "capacity_bytes": None, "free_bytes": None, "allocated_bytes": None,
    "reserved_bytes": None, "other_processes_bytes": None, "fragmented": None, "site": None, "phase": None, "messages": 0, "candidates": [],
    "predicted_peak_bytes": None,
}  # fmt: skip


def _of_failure(options: OomOptions, failures: Sequence[FailureInLog]) -> Report:
    first = failures[0]
    result: OomResult = {**_EMPTY, "line": first.line, "kind": first.kind.name, "messages": len(failures)}
    others = tuple(Note("Also", f"{options.log}:{other.line}: {other.means}") for other in failures[1:])
    return Report(
        "mem oom",
        {"path": options.log, "model": options.model},
        {**result},
        document=(Note("Evidence", f"{options.log}:{first.line}", "dim"), *others, Note("Fix", first.kind.fix)),
        verdict=Verdict(f"{first.means} This is no message of torch's allocator, so no tensor is named.", "problem"),
    )


def distinct(messages: Sequence[OomMessage]) -> tuple[OomMessage, ...]:
    """Return the messages without those that repeat the numbers of another: a launcher prints the message of a process again."""
    return tuple({(one.index, one.tried, one.free, one.allocated, one.reserved): one for one in messages}.values())


def _first_lines(messages: Sequence[OomMessage]) -> str:
    """Return which message of several is explained, and on which devices there was one; empty for a single message."""
    several = distinct(messages)
    if len(several) == 1:
        return ""
    devices = sorted({one.index for one in several if one.index is not None})
    on = f" on devices {', '.join(map(str, devices[:8]))}{', ...' if len(devices) > 8 else ''}" if len(devices) > 1 else ""
    return f"{on} (the last of {len(several)} messages)"


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


@dataclass(frozen=True, slots=True)
class ExplainedMessage:
    """What a model and a strategy add to a message; empty without a model, but for guessed `candidates`."""

    comparison: Comparison | None = None
    candidates: tuple[Candidate, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def estimate(self) -> Estimate | None:
        """Return the estimate of the strategy."""
        return None if self.comparison is None else self.comparison.estimates[0]

    def sentence(self, message: OomMessage) -> str:
        """Return the most likely tensor, or that the strategy that was given cannot be the one that ran."""
        if self.comparison is None or self.estimate is None:
            return ""
        step = at_of(self.comparison)
        if message.capacity is not None and fits(self.estimate, message.capacity) is True:
            return f"The strategy that was given would fit{step}: the run was another one, or something else used the device."
        if self.candidates:
            one = self.candidates[0]
            return f"The tensor is most likely {one.tensor} {list(one.shape)} in {one.dtype}{step}."
        return "" if is_small(message) else f"No tensor of this model has that size{step}."


def _explain(options: OomOptions, message: OomMessage) -> ExplainedMessage:
    small = is_small(message)
    if not options.model:
        larger = message.capacity is not None and message.tried > message.capacity
        without = message.phase in ("start", "step")  # no logits exist while weights are loaded, or in the step of an optimizer
        none = small or larger or without or message.device == "CPU"
        return ExplainedMessage(candidates=() if none else guessed(message.smallest, message.largest))
    comparison, predictor = compare_strategies(options)
    estimate = comparison.estimates[0]
    candidates = () if small else candidates_of(estimate, predictor.config, message.smallest, message.largest, message.phase)
    return ExplainedMessage(comparison, candidates, changes_of(estimate, predictor, message.capacity))


def is_small(message: OomMessage) -> bool:
    """Return whether the allocator asked for its smallest segments: the size says nothing about the tensor then."""
    return message.tried <= MIDDLE and message.device not in ("CPU", "MPS")


def sentence(message: OomMessage, which: str = "") -> str:
    """Return the content of a message in a few sentences; `which` says which of several messages it is."""
    where = f" at {_short(message.site)}" if message.site else ""
    text = f"Out of memory{which}: {_gib(message.tried)} was requested{where}"
    if message.device == "CPU":
        return f"{text}, of the host's memory; no GPU is involved."
    if message.capacity is not None:
        text += f" on a device of {_gib(message.capacity)}"
    sizes = (("free", message.free), ("allocated", message.allocated), ("reserved but unallocated", message.unallocated))
    parts = [f"{_gib(size)} {name}" for name, size in sizes if size is not None]
    text += f" with {', '.join(parts)}. " if parts else ". "
    return " ".join(filter(None, (text.strip(), *_reasons(message))))


def _reasons(message: OomMessage) -> Iterator[str]:
    if message.capacity is not None and message.tried > message.capacity:
        yield f"The request alone is {message.tried / message.capacity:.1f} times the device: a shape or a length is larger than intended."
        return
    yield from _elsewhere(message)
    spare = message.spare
    if message.fragmented:
        yield "The cause is fragmentation: free and unallocated memory together are enough, but not in one piece."
    elif spare is not None and spare < 0:
        yield f"Fragmentation is not the cause: even in one piece {_gib(-spare)} is missing."
    elif spare is not None:
        yield f"In one piece the memory would just have been enough ({_gib(spare)} to spare): the device is nearly full."
    elif message.private:
        yield f"Whether fragmentation is the cause is not decided: {_gib(message.private)} belongs to private pools (CUDA graphs)."
    elif message.doubt:
        yield f"Whether fragmentation is the cause is not decided: {message.doubt}."
    elif message.device != "MPS":
        yield "Whether fragmentation is the cause is not decided: the message does not name what is reserved."
    if is_small(message) and not message.fragmented:
        yield "The request is small, so this tensor is not the reason."


def _elsewhere(message: OomMessage) -> Iterator[str]:
    """Yield what holds the device besides torch's allocator, if it is much."""
    others, own = message.others, message.own
    if message.allowed is not None:
        yield f"The process is limited to {_gib(message.allowed)} (set_per_process_memory_fraction)."
    elif others is not None and others > OTHERS:
        enough = "; without them it would have been enough" if message.tried <= message.left + others else ""
        yield f"Other processes hold {_gib(others)} of the device{enough}."
    elif message.in_use is None and outside_of(message):
        yield f"{_gib(outside_of(message) or 0)} of the device is held by other processes or outside torch's allocator."
    if own is not None and own > USUAL:
        yield f"This process holds {_gib(own)} outside torch's allocator (NCCL, other libraries)."


def outside_of(message: OomMessage) -> int | None:
    """Return the bytes of the device outside the reserve of torch's allocator; None if unknown, or no more than contexts usually take."""
    if message.capacity is None or message.free is None or message.reserved is None or message.doubt is not None:
        return None
    outside = message.capacity - message.free - message.reserved
    return outside if outside > USUAL else None


def _fix(message: OomMessage) -> str | None:
    """Return the setting against fragmentation in the words of the message: expandable segments came with torch 2.1."""
    if message.advice == "max_split_size_mb":
        return "export PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:256   # torch 2.1 and later: expandable_segments:True"
    return f"export {message.advice or EXPANDABLE}" if message.advice or message.device == "CUDA" else None


def _short(site: str | None) -> str:
    return "/".join((site or "").replace("\\", "/").split("/")[-2:])


def _installed_name(site: str) -> str:
    """Return a place in an installed package from the package on, so that it fits on a line; any other place as it is."""
    return site.replace("\\", "/").rpartition("site-packages/")[2]


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"


def _document(options: OomOptions, message: OomMessage, explained: ExplainedMessage, *, expandable: bool) -> Iterator[Block]:
    yield Note("Evidence", f"{options.log}:{message.line}" + (f", {_installed_name(message.site)}" if message.site else ""), "dim")
    estimate, candidates = explained.estimate, explained.candidates
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
    setting = None if expandable or not message.fragmented else _fix(message)
    if setting is not None:
        yield Code("Fix", setting)
    elif explained.changes and message.capacity is not None and (estimate is None or fits(estimate, message.capacity) is not True):
        yield Code("Fix", changes_text(explained.changes, message.capacity))
    if message.engine is not None:
        yield Note(
            "Next",
            f"{message.engine} serves here and trains nothing: the share of the device that it takes is its own setting "
            f"({_SHARES[message.engine]})\nllmdoctor mem kvcache MODEL --batch SEQUENCES --length TOKENS",
        )
    elif estimate is None and message.device not in ("CPU", "MPS"):
        size = f" --gpu-memory {message.capacity / 2**30:.2f}GiB" if message.capacity else ""
        yield Note("Next", f"llmdoctor mem oom {options.log} MODEL --strategy FILE\nllmdoctor mem fit MODEL --strategy FILE{size}")


def _also(
    options: OomOptions, messages: Sequence[OomMessage], failures: Sequence[FailureInLog], unreadable: Sequence[UnreadableMessage]
) -> Iterator[Block]:
    """Yield what else the log holds: other messages, other failures, damaged messages."""
    others = [one for one in distinct(messages)[:-1] if one.line != messages[-1].line]
    if others:
        lines = ", ".join(str(one.line) for one in others[:MOST]) + (", ..." if len(others) > MOST else "")
        yield Note("Also", f"other messages of this kind in line {lines}")
    for failure in [one for one in failures if one.line not in {message.line for message in messages}][:MOST]:
        yield Note("Also", f"{options.log}:{failure.line}: {failure.means}")
    for one in unreadable[:MOST]:
        yield Note("Also", f"{options.log}:{one.line}: a damaged message, which was not used: {one.reason}", "dim")


def _candidate(one: Candidate) -> CandidateResult:
    return {
        "tensor": one.tensor,
        "shape": list(one.shape),
        "dtype": one.dtype,
        "bytes": one.bytes,
        "setting": one.setting,
        "phase": one.phase,
    }

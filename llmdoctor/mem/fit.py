"""`mem fit`: combinations of settings under which a training step fits into a device, cheapest first, with the configuration to paste."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace

from llmdoctor.core.document import Block, Code, Note, Table
from llmdoctor.core.errors import MissingExtra, QuestionError
from llmdoctor.core.progress import Progress
from llmdoctor.core.report import Report, ReportError, Verdict, refusal
from llmdoctor.mem.capacity import fits, need_of, read_size
from llmdoctor.mem.components import Unit, host_parts
from llmdoctor.mem.keys import UnmodelledSetting
from llmdoctor.mem.options import FitOptions
from llmdoctor.mem.predictor import Predictor, compare_strategies
from llmdoctor.mem.results import CombinationResult, FitResult
from llmdoctor.mem.search import MOST_TRIED, Combination, search
from llmdoctor.mem.types import Comparison, Estimate
from llmdoctor.mem.verdict import at_of, label_of, limits_of


def fit_report(options: FitOptions) -> Report:
    """Search for the changes that make the one strategy of `options` fit into `gpu_memory`.

    Raises QuestionError if an option, the strategy or the model cannot be understood, MissingExtra without torch and transformers.
    """
    if not options.gpu_memory:
        raise QuestionError("no --gpu-memory: expected the memory of a device, such as --gpu-memory 24GiB")
    if len(options.strategy) != 1:
        raise QuestionError(f"{len(options.strategy)} strategies: expected one --strategy to start from")
    memory = read_size(options.gpu_memory)
    try:
        comparison, predictor = compare_strategies(options)
    except UnmodelledSetting as error:
        result = {"inputs": error.inputs.result()}
        return refusal("mem fit", ReportError(error.kind, str(error)), {"path": options.model}, result)
    if not predictor.live:
        raise MissingExtra("mem fit", "torch with transformers", "live")
    return _report(options, comparison, predictor, memory)


def _report(options: FitOptions, comparison: Comparison, predictor: Predictor, memory: int) -> Report:
    estimate = comparison.estimates[0]
    answer = fits(estimate, memory)
    found: tuple[Combination, ...] = ()
    tried = 0
    if answer is not True:
        progress = Progress("mem fit")
        try:
            found, tried = search(estimate, predictor, memory, lambda done, of: progress.tick(done, of, "combinations"))
        finally:
            progress.close()
    result: FitResult = {
        "inputs": comparison.inputs.result(),
        "memory_bytes": memory,
        "needs_bytes": need_of(estimate).safe,
        "fits": answer,
        "combinations": [_result(one) for one in found],
        "tried": tried,
    }
    return Report(
        "mem fit",
        subject={"path": options.model, "strategy": estimate.strategy.name, "memory": options.gpu_memory},
        result={**result},
        document=tuple(_document(options, estimate, found, memory)),
        verdict=_verdict(options, comparison, found, tried, memory),
        skipped=comparison.skipped,
    )


def _verdict(options: FitOptions, comparison: Comparison, found: Sequence[Combination], tried: int, memory: int) -> Verdict:
    estimate = comparison.estimates[0]
    unit = Unit(max(memory, need_of(estimate).safe))
    needs = f"{label_of(estimate)} needs {unit(need_of(estimate).safe)} {unit.name} of {options.gpu_memory} ({unit(memory)} {unit.name})"
    where = f"{at_of(comparison)}{limits_of(comparison)}"
    if fits(estimate, memory) is True:
        return Verdict(f"It fits already: {needs}{where}.")
    if found:
        first = " and ".join(move.text for move in found[0].moves)
        size = unit(need_of(found[0].estimate).safe)
        return Verdict(f"It does not fit: {needs}{where}. The cheapest change that fits: {first} ({size} {unit.name}).", "problem")
    return Verdict(f"It does not fit: {needs}{where}, and none of {tried} combinations of at most 4 changes fits.", "problem")


def _document(options: FitOptions, estimate: Estimate, found: Sequence[Combination], memory: int) -> Iterator[Block]:
    if not found:
        if fits(estimate, memory) is not True:
            yield Note("Next", "more devices (--world-size), shorter sequences (--seq-len), or a smaller model")
        return
    unit = Unit(memory)
    rows = tuple(
        (
            ", ".join(move.text for move in one.moves),
            unit(need_of(one.estimate).safe),
            unit(one.estimate.prediction.peak.total),
            unit(sum(host_parts(one.estimate.prediction.host).values())),
            "; ".join(dict.fromkeys(move.cost for move in one.moves if move.cost != "nothing")) or "nothing",
        )
        for one in found
    )
    yield Table(("Changes", f"needs, {unit.name}", "peak", "host", "cost"), rows)
    yield Note("Limits", f"At most 4 changes at once, {MOST_TRIED} combinations; the first lines are the cheapest.", "dim")
    yield from _fix(options, found[0])


def _fix(options: FitOptions, one: Combination) -> Iterator[Block]:
    """Yield the configuration of a combination, and the command that predicts it again."""
    made = one.configuration
    if made is None:
        yield Note("Fix", "The format of this strategy has no keys for these changes here: make them in the script.")
        return
    if made.text:
        yield Code("Fix", made.text)
    if made.script:
        yield Note("Script", "\n".join(made.script))
    where = "Write this to strategy.json, then" if made.whole else f"Set these keys in {options.strategy[0]}, then"
    strategy = "strategy.json" if made.whole else options.strategy[0]
    words = question_words(replace(options, batch=one.estimate.workload.batch if options.batch is not None else None), whole=made.whole)
    yield Note("Next", f"{where}: llmdoctor mem compare {options.model} --strategy {strategy}{words} --gpu-memory {options.gpu_memory}")


def question_words(options: FitOptions, *, whole: bool) -> str:
    """Return the options that the next command needs to answer for the same run; a file that is `whole` new has no keys to leave out."""
    words: list[object] = []
    for name in ("batch", "seq_len", "image", "lengths", "packed", "attn", "world_size", "rank", "stage", "lora", "deepspeed"):
        value = getattr(options, name)
        if value:
            words += [f"--{name.replace('_', '-')}", value]
    for option, values in (("--trainable", options.trainable), ("--without", () if whole else options.without)):
        for value in values:
            words += [option, value]
    words += ["--gradient-checkpointing"] if options.gradient_checkpointing else []
    return "".join(f" {shlex.quote(str(word))}" for word in words)


def _result(one: Combination) -> CombinationResult:
    return {
        "changes": [move.text for move in one.moves],
        "needs_bytes": need_of(one.estimate).safe,
        "peak_bytes": one.estimate.prediction.peak.total,
        "host_bytes": sum(host_parts(one.estimate.prediction.host).values()),
        "costs": [move.cost for move in one.moves],
        "configuration": {} if one.configuration is None else one.configuration.keys,
        "script": [] if one.configuration is None else list(one.configuration.script),
    }

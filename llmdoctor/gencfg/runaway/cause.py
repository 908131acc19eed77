"""Why recorded sequences ran on, as far as the records and the model's files (if they are given) show it."""

from __future__ import annotations

from dataclasses import dataclass

from llmdoctor.core.finding import Location
from llmdoctor.core.text import listed
from llmdoctor.gencfg.causes import cause_of
from llmdoctor.gencfg.engines.table import engine_named
from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.runaway.counts import PassedMark
from llmdoctor.gencfg.runaway.end_marks import EndMark
from llmdoctor.gencfg.runaway.evidence import Evidence

FEW = 0.1  # up to this share of sequences that ended at their limit is ordinary
TRACE = "llmdoctor gencfg trace -o run.jsonl -- COMMAND"
_LONG = 0.5  # of the limit: if the median answer that stopped is longer, the limit is short for them


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LikelyCause:
    """The likely cause in a sentence or two, what to paste against it, its place, and the next command."""

    text: str
    fix: str | None = None
    next: str | None = None
    location: Location | None = None


def likely_cause(evidence: Evidence) -> LikelyCause | None:
    """Return the likely cause of what ran on; None if no more ran on than is ordinary."""
    counts = evidence.counts
    if counts.passing:
        top = counts.by_passed()[0]
        if top.stopped == top.count:
            return _turns(top, evidence.log.unit)
        return _passed_without_model(evidence, top.mark) if evidence.examined is None else _passed(evidence, evidence.examined, top.mark)
    running = [loop for loop in counts.by_loop() if loop.stopped < loop.count]
    ran = counts.ended["length"]
    if running and 2 * sum(loop.count - loop.stopped for loop in running) >= ran:
        return _looping(evidence)
    if ran > FEW * counts.sequences:
        return _ran_out(evidence)
    return _looping(evidence) if running else None


def _turns(top: PassedMark, unit: str) -> LikelyCause:
    line, position = top.examples[0]
    return LikelyCause(
        f"Every sequence that passed {top.mark.name} stopped in the end, so the engine can stop. Records of several turns (tools, agents) look "
        f"like this, and so does a min_new_tokens that forbids an early end. See {unit} {line}, after {top.unit} {position}.",
    )


def _passed_without_model(evidence: Evidence, mark: EndMark) -> LikelyCause:
    return LikelyCause(
        f"The model produced {mark.name} and the call did not stop at it: either the model's files do not name it as eos, or something at run time "
        "removed it (a trainer that clears eos_token_id, ignore_eos).",
        next=evidence.again,
    )


def _passed(evidence: Evidence, examined: Examined, mark: EndMark) -> LikelyCause:
    name = examined.directory.shown_name
    if mark.id is None:
        return LikelyCause(
            f"{mark.name} is not a token of {name}: the model writes it as plain text, as after a prompt in another "
            "model's chat format, and no engine compares text with it by itself.",
            f"stop={[mark.text]!r}   in the request, or prompts from this model's own chat template",
            f"llmdoctor gencfg check {name}",
        )
    effective = examined.answer.effective
    if effective.error is not None:
        return LikelyCause(
            f"The files do not tell: transformers raises {effective.error.type} on them.", next=f"llmdoctor gencfg show {name}"
        )
    if mark.id in effective.stop.eos_token_id and not effective.stop.never_stops:
        return _taken_away(evidence, examined, mark.id)
    return _files_wrong(examined, mark, mark.id)


def _taken_away(evidence: Evidence, examined: Examined, token: int) -> LikelyCause:
    """Return the cause if the files name the id, and yet it was passed: in the words of the engine whose records these are."""
    if evidence.engine is not None:
        engine, _ = engine_named(evidence.engine)
        return LikelyCause(
            f"The files are right: {_eos_source(examined)} names {token}. The request to {engine.title} did not stop there: "
            "ignore_eos or min_tokens is set, the server has not read these files, or it was sent token ids without a tokenizer.",
            engine.stop_fix((token,)),
        )
    others = f", as {listed(titles)} would" if (titles := [engine.title for engine in examined.stopping_at(token)]) else ""
    return LikelyCause(
        f"The files are right: {_eos_source(examined)} names {token}, so a plain generate() stops there{others}. Something at run time removed it: a "
        "trainer that sets model.generation_config.eos_token_id to None (trl's PPO does), a GenerationConfig passed with another eos_token_id, or "
        "ignore_eos or min_tokens in a request to vLLM.",
        f"generate(..., generation_config=GenerationConfig(..., eos_token_id={list(examined.eos)}))",
        TRACE,
    )


def _files_wrong(examined: Examined, mark: EndMark, token: int) -> LikelyCause:
    stop, name = examined.answer.effective.stop, examined.directory.shown_name
    found = cause_of(examined.answer)
    if found is not None and token in stop.eos_token_id:
        return LikelyCause(f"The files: {found.text}", found.fix, f"llmdoctor gencfg check {name}", found.location)
    has = f"{_eos_source(examined)} has eos_token_id {list(stop.eos_token_id)}"
    if not stop.eos_token_id:
        has = found.text if found else "no file has an eos_token_id"
    titles = [engine.title for engine in examined.stopping_at(token)]
    others = f" {listed(titles)} would stop there." if titles else ""
    return LikelyCause(
        f"The files: the model ends with {mark.name}, but {has}.{others}",
        f'"eos_token_id": {[*stop.eos_token_id, token]}   in generation_config.json',
        f"llmdoctor gencfg check {name}",
        _eos_place(examined),
    )


def _looping(evidence: Evidence) -> LikelyCause:
    counts = evidence.counts
    before = ", and none of them had produced a terminator before" if counts.with_ids == counts.sequences and evidence.marks.by_id else ""
    return LikelyCause(
        f"The model repeats itself to the end{before}: greedy or nearly greedy decoding, a prompt without the chat template, or "
        "training data whose eos was masked.",
        "do_sample=True, temperature=0.7   or repetition_penalty=1.05\napply_chat_template(messages, add_generation_prompt=True)   for the prompts",
        f"llmdoctor gencfg check {evidence.examined.directory.shown_name}" if evidence.examined else evidence.again,
    )


def _ran_out(evidence: Evidence) -> LikelyCause:
    counts = evidence.counts
    limit, median = counts.limit or counts.longest, counts.stops.median()
    if counts.with_ids and not evidence.marks.by_id:
        return LikelyCause(
            "Unknown: no id of a terminator is known, so it is unknown whether one was produced and passed.", next=evidence.again
        )
    if counts.with_ids < counts.sequences and not counts.marked:
        return LikelyCause(
            "Unknown from these texts: they were decoded without special tokens, so a terminator that was produced and passed is not visible in them.",
            "tokenizer.decode(ids, skip_special_tokens=False)   or record the token ids",
            TRACE,
        )
    if median and limit and median >= _LONG * limit:
        return LikelyCause(
            f"The limit is short for these answers: those that stopped have a median of {median} tokens, with a limit of {limit}, and no sequence "
            "produced a terminator and went on.",
            f"max_new_tokens={4 * limit}",
        )
    model = evidence.examined
    never = " Its files would not have stopped it either." if model is not None and model.answer.effective.stop.never_stops else ""
    few = "" if not median else f", while those that stopped had a median of only {median} tokens"
    return LikelyCause(
        f"No sequence produced a terminator and went on{few}: either the limit is shorter than an answer, or the model never learned to end one, as "
        f"with training data whose eos is masked (pad_token = eos_token with a collator that masks padding).{never}",
        f"max_new_tokens={4 * limit}   for a few prompts; if they do not end, look at the labels" if limit else None,
        _labels_or_files(evidence),
    )


def _labels_or_files(evidence: Evidence) -> str:
    """Return the next command: the files if they are unknown or cannot stop a call, or else what the training data teaches."""
    model = evidence.examined
    if model is None:
        return evidence.again
    name = model.directory.shown_name
    if model.answer.effective.stop.never_stops:
        return f"llmdoctor gencfg check {name}"
    return f"llmdoctor labels audit {name} DATA --trainer TRAINER"


def _eos_source(examined: Examined) -> str:
    field = examined.answer.effective.fields.get("eos_token_id")
    return "the model" if field is None else field.origin.source


def _eos_place(examined: Examined) -> Location | None:
    """Return the line that gives eos_token_id, else the file that should."""
    field, file = examined.answer.effective.fields.get("eos_token_id"), examined.directory.generation_config
    if field is not None and field.origin.file is not None:
        return Location(field.origin.file, field.origin.pointer, field.origin.line)
    return None if file is None else Location(file.shown_name)

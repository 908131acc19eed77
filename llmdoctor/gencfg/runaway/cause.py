"""Why recorded sequences ran on, as far as the records, and the model's files where they are given, can tell."""

from __future__ import annotations

from dataclasses import dataclass

from llmdoctor.core.finding import Location
from llmdoctor.gencfg.causes import cause_of
from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.runaway.evidence import Evidence
from llmdoctor.gencfg.runaway.marks import Mark
from llmdoctor.gencfg.runaway.tally import Passed

FEW = 0.1  # up to this share of sequences that ran to their limit is ordinary
TRACE = "llmdoctor gencfg trace -o run.jsonl -- COMMAND"
_LONG = 0.5  # of the limit: where answers that stopped are at the median longer, the limit is short for them


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Why:
    """The likely cause in a sentence or two, what to paste against it, where it stands, and the next command."""

    text: str
    fix: str | None = None
    next: str | None = None
    location: Location | None = None


def likely_cause(evidence: Evidence) -> Why | None:
    """The likely cause of what ran on; None where nothing worth a word did."""
    tally = evidence.tally
    if tally.passing:
        top = tally.by_passed()[0]
        if top.stopped == top.count:
            return _turns(top, evidence.reading.word)
        return _passed_without_model(evidence, top.mark) if evidence.examined is None else _passed(evidence.examined, top.mark)
    running = [loop for loop in tally.by_loop() if loop.stopped < loop.count]
    ran = tally.ended["length"]
    if running and 2 * sum(loop.count - loop.stopped for loop in running) >= ran:
        return _looping(evidence)
    if ran > FEW * tally.sequences:
        return _ran_out(evidence)
    return _looping(evidence) if running else None


def _turns(top: Passed, word: str) -> Why:
    line, position = top.examples[0]
    return Why(
        f"every sequence that passed {top.mark.name} stopped in the end, so the engine can stop: records that hold several turns (tools, agents) look "
        f"like this, and so does a min_new_tokens that forbids an early end. See {word} {line}, behind {top.unit} {position}",
    )


def _passed_without_model(evidence: Evidence, mark: Mark) -> Why:
    return Why(
        f"the model produced {mark.name} and the call did not stop at it: either the model's files do not name it as eos, or something at run time "
        "took it away (a trainer that clears eos_token_id, ignore_eos)",
        next=evidence.again,
    )


def _passed(examined: Examined, mark: Mark) -> Why:
    if mark.id is None:
        return Why(
            f"{mark.name} is no token that {examined.directory.shown_name} names: the model spells it out as plain text, as after a prompt in another "
            "model's chat format, and nothing compares text with it",
            f"stop={[mark.text]!r}   in the request, or prompts from this model's own chat template",
            f"llmdoctor gencfg check {examined.directory.shown_name}",
        )
    effective = examined.answer.effective
    if effective.error is not None:
        name = examined.directory.shown_name
        return Why(f"the files cannot tell: transformers raises {effective.error.type} on them", next=f"llmdoctor gencfg show {name}")
    if mark.id in effective.stop.eos_token_id and not effective.stop.never_stops:
        return _taken_away(examined, mark)
    return _files_wrong(examined, mark)


def _taken_away(examined: Examined, mark: Mark) -> Why:
    """The files name the id, and yet it was passed."""
    vllm = ", and vLLM too" if mark.id in examined.vllm.stop.eos_token_id else ""
    return Why(
        f"not the files: {_eos_source(examined)} names {mark.id}, so a plain generate() stops there{vllm}. Something at run time took it away: a "
        "trainer that sets model.generation_config.eos_token_id to None (trl's PPO does), a GenerationConfig passed with another eos_token_id, or "
        "ignore_eos or min_tokens in a request to vLLM",
        f"generate(..., generation_config=GenerationConfig(..., eos_token_id={list(examined.eos)}))",
        TRACE,
    )


def _files_wrong(examined: Examined, mark: Mark) -> Why:
    stop = examined.answer.effective.stop
    found = cause_of(examined.answer)
    if found is not None and mark.id in stop.eos_token_id:
        return Why(f"the files: {found.text}", found.fix, f"llmdoctor gencfg check {examined.directory.shown_name}", found.location)
    ids = [*stop.eos_token_id, mark.id]
    said = (
        f"{_eos_source(examined)} has eos_token_id {list(stop.eos_token_id)}"
        if stop.eos_token_id
        else found.text
        if found
        else "no file has an eos"
    )
    vllm = f"; vLLM would stop there, by {examined.vllm.transformers}" if mark.id in examined.vllm.stop.eos_token_id else ""
    return Why(
        f"the files: the model ends with {mark.name}, and {said}{vllm}",
        f'"eos_token_id": {ids}   in generation_config.json',
        f"llmdoctor gencfg check {examined.directory.shown_name}",
        _eos_place(examined),
    )


def _looping(evidence: Evidence) -> Why:
    tally = evidence.tally
    visible = ", and none of them had produced a terminator before" if tally.with_ids == tally.sequences and evidence.marks.by_id else ""
    return Why(
        f"the model repeats itself and does not come out of it{visible}: greedy or nearly greedy decoding, a prompt without the chat template, or "
        "training data whose eos was masked",
        "do_sample=True, temperature=0.7   or repetition_penalty=1.05\napply_chat_template(messages, add_generation_prompt=True)   for the prompts",
        f"llmdoctor gencfg check {evidence.examined.directory.shown_name}" if evidence.examined else evidence.again,
    )


def _ran_out(evidence: Evidence) -> Why:
    tally = evidence.tally
    limit, median = tally.limit or tally.longest, tally.stops.median()
    if tally.with_ids and not evidence.marks.by_id:
        return Why(
            "not to be told: no id of a terminator is known, so nobody can say whether one was produced and passed", next=evidence.again
        )
    if tally.with_ids < tally.sequences and not tally.marked:
        return Why(
            "not to be told from these texts: they were decoded without special tokens, so a terminator that was produced and passed cannot "
            "be seen in them",
            "tokenizer.decode(ids, skip_special_tokens=False)   or record the token ids",
            TRACE,
        )
    if median and limit and median >= _LONG * limit:
        return Why(
            f"the limit is short for these answers: those that stopped have a median of {median} tokens, with a limit of {limit}, and no sequence "
            "produced a terminator and went on",
            f"max_new_tokens={4 * limit}",
        )
    model = evidence.examined
    never = " (its files would not have stopped it either)" if model is not None and model.answer.effective.stop.never_stops else ""
    few = "" if not median else f", while those that stopped had a median of only {median} tokens"
    return Why(
        f"no sequence produced a terminator and went on{few}: either the limit is shorter than an answer, or the model never learned to end one, as "
        f"with training data whose eos is masked (pad_token = eos_token with a collator that masks padding){never}",
        f"max_new_tokens={4 * limit}   for a few prompts; if they do not end, look at the labels" if limit else None,
        f"llmdoctor gencfg check {model.directory.shown_name}" if model is not None else evidence.again,
    )


def _eos_source(examined: Examined) -> str:
    field = examined.answer.effective.fields.get("eos_token_id")
    return "the model" if field is None else field.origin.source


def _eos_place(examined: Examined) -> Location | None:
    """The line that gives eos_token_id, else the file that should."""
    field, file = examined.answer.effective.fields.get("eos_token_id"), examined.directory.generation_config
    if field is not None and field.origin.file is not None:
        return Location(field.origin.file, field.origin.pointer, field.origin.line)
    return None if file is None else Location(file.shown_name)

"""`labels audit`: what a whole dataset trains, counted."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

from llmdoctor.core.document import Block, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.progress import Progress
from llmdoctor.core.report import Report, Verdict
from llmdoctor.labels.built import Setup, set_up, the_end_ids
from llmdoctor.labels.counts import Counts, count, count_thoughts, tokens_of
from llmdoctor.labels.findings import findings_of, raised
from llmdoctor.labels.inspect import error_result, subject_of, vocabulary_of
from llmdoctor.labels.options import LabelsOptions
from llmdoctor.labels.packing import BATCH
from llmdoctor.labels.results import AuditResult
from llmdoctor.labels.rows import read_rows
from llmdoctor.labels.screen import input_notes
from llmdoctor.labels.talks import count_talks, holds_talk, remarkable
from llmdoctor.labels.types import Row, TrainerError
from llmdoctor.labels.verdict import verdict_of
from llmdoctor.modeldir.template import Rendering, TemplateWorker


def audit_report(options: LabelsOptions) -> Report:
    """Return the counts over all rows, in memory that does not grow with their number.

    The trainer's function runs over batches of 1,000 rows, as `datasets.map` hands them over. Raises QuestionError if the tokenizer, the rows
    or the settings cannot be read, or a setting is not known.
    """
    progress = Progress("labels audit")
    gc.set_threshold(100_000, 50, 100)  # many small lists and no cycles: collecting them takes a tenth of the time
    with TemplateWorker() as worker, TemplateWorker() as ahead, ThreadPoolExecutor(1) as thread:
        worker.start()
        ahead.start()
        setup = set_up(options, worker)
        counts = Counts()
        try:
            for batch, rendered in _rendered_ahead(setup, thread, ahead):
                setup.chat.prepare(rendered, bool(setup.config.get("assistant_only_loss")))
                _count(setup, counts, batch)
                setup.chat.detail = (
                    False  # whose message a token belongs to is looked up in the first batch only: it takes as long as tokenizing
                )
                if progress.due():
                    progress.say(f"{counts.rows:,} rows, {counts.of('end_ignored'):,} sequences without a trained end")
        except TrainerError as error:
            return _refused(setup, counts, error)
        finally:
            progress.close()
    if not counts.rows:
        raise QuestionError(f"{options.data}: the file holds no row")
    findings = findings_of(setup, counts)
    document = (_table(counts), *findings, *input_notes(setup.inputs, []))
    result = dict(_result(setup, counts))
    return Report("labels audit", subject_of(setup), result, findings, document=document, verdict=verdict_of(setup, counts))


def _rendered_ahead(
    setup: Setup, thread: ThreadPoolExecutor, worker: TemplateWorker
) -> Iterator[tuple[list[Row], list[tuple[Any, Rendering]]]]:
    """Return each batch with its rendered conversations; the next batch is rendered while the caller works on this one.

    The first batch comes without: while it is built, the trainer sets the special tokens that the template may write.
    """
    mask = bool(setup.config.get("assistant_only_loss"))
    coming: tuple[list[Row], Future[list[tuple[Any, Rendering]]]] | None = None
    batches = _batches(islice(read_rows(setup.options.data), setup.options.rows))
    for batch in islice(batches, 1):
        yield batch, []
    for batch in batches:
        following = (batch, thread.submit(setup.chat.rendered, [row.columns for row in batch], worker, mask))
        if coming is not None:
            yield coming[0], coming[1].result()
        coming = following
    if coming is not None:
        yield coming[0], coming[1].result()


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(islice(rows, BATCH)):
        yield batch


def _count(setup: Setup, counts: Counts, batch: list[Row]) -> None:
    counts.rows += len(batch)
    talks = holds_talk(batch[0])
    tokens = tokens_of(setup.chat, the_end_ids(setup), vocabulary_of(setup.directory), talks=talks, scored=setup.trainer.scores_last)
    sequences = setup.build(batch)
    counts.kept += len({row for sequence in sequences for row in sequence.rows})
    for sequence in sequences:
        count(counts, sequence, tokens)
    counts.talks = counts.talks or talks
    marked = batch if setup.chat.detail else remarkable(batch)
    count_thoughts(counts, marked, sequences, setup.chat)
    count_talks(counts, marked, sequences, setup.chat, renders_roles=setup.trainer.renders_roles)


def _refused(setup: Setup, counts: Counts, error: TrainerError) -> Report:
    finding = raised(setup, error)
    result: AuditResult = {**_result(setup, counts), "error": error_result(error)}
    verdict = Verdict(f"{setup.who} raises {error.kind}: {error.message}", "problem")
    return Report("labels audit", subject_of(setup), dict(result), (finding,), document=(finding,), verdict=verdict)


def _result(setup: Setup, counts: Counts) -> AuditResult:
    return {
        "trainer": setup.trainer.name,
        "version": setup.version_text,
        "rows": counts.rows,
        "sequences": counts.sequences,
        "tokens": counts.tokens,
        "trained_tokens": counts.trained,
        "dropped_rows": counts.dropped,
        "no_target_rows": counts.of("no_target"),
        "truncated_rows": counts.of("truncated"),
        "end_untrained_rows": counts.of("end_ignored"),
        "end_cut_rows": counts.of("end_cut"),
        "end_missing_rows": counts.of("end_missing"),
        "prompt_trained_rows": counts.of("prompt_trained"),
        "double_bos_rows": counts.of("double_bos"),
        "double_eos_rows": counts.of("double_eos"),
        "beyond_vocabulary_rows": counts.of("beyond_vocabulary"),
        "padding_trained_rows": counts.of("padding_trained"),
        "shifted_rows": counts.of("shifted"),
        "thoughts_removed_rows": counts.of("thoughts_removed"),
        "crossing_rows": counts.of("crosses"),
        "odd_role_rows": counts.of("odd_role"),
        "dropped_message_rows": counts.of("dropped_message"),
        "no_answer_rows": counts.of("no_answer"),
        "end_token": setup.chat.end_text if setup.chat.template is not None else setup.chat.encoder.names["eos_token"],
        "error": None,
        "inputs": setup.inputs.result(),
        "limits": setup.limits,
    }


_NAMES = {
    "no_target": "without any target",
    "truncated": "truncated",
    "end_ignored": "end of an answer not trained",
    "end_cut": "end of an answer cut off",
    "end_missing": "answer without an end token",
    "prompt_trained": "user, system or tool tokens trained",
    "double_bos": "two bos tokens at the start",
    "double_eos": "two eos tokens at the end",
    "beyond_vocabulary": "id beyond the embedding",
    "padding_trained": "padding trained",
    "shifted": "labels shifted by one place",
    "thoughts_removed": "thinking part removed by the template",
    "crosses": "first token of a packed document trained on the one before",
    "odd_role": "roles that the template was not made for",
    "dropped_message": "a message is not in the text (first 1,000 rows)",
    "no_answer": "no answer in the row",
}


def _table(counts: Counts) -> Block:
    share = 100 * counts.trained / counts.tokens if counts.tokens else 0.0
    rows: list[tuple[Any, ...]] = [
        ("rows read", f"{counts.rows:,}", ""),
        ("sequences", f"{counts.sequences:,}", ""),
        ("tokens", f"{counts.tokens:,}", ""),
        ("targets", f"{counts.trained:,}", f"{share:.1f}% of the tokens"),
    ]
    if counts.dropped:
        rows.insert(1, ("rows left out by the trainer", f"{counts.dropped:,}", ""))
    for name, words in _NAMES.items():
        if counts.of(name):
            examples = ", ".join(map(str, counts.examples.get(name, ())))
            rows.append((words, f"{counts.of(name):,}", f"rows {examples}" if examples else ""))
    return Table(("", "count", ""), tuple(rows))

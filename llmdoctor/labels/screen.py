"""What a person reads of labels: the verdict, the conversation with its targets marked, what was used."""

from __future__ import annotations

from itertools import groupby

from llmdoctor.core.document import Block, Cell, Fold, MarkedToken, Note, Table, TokenStrip
from llmdoctor.core.inputs import Inputs
from llmdoctor.core.text import plural
from llmdoctor.labels.built import Setup
from llmdoctor.labels.types import IGNORED, Sequence

SHOWN = 3  # sequences that a screen shows
PAGED = 25  # sequences of a page
MOST_TOKENS = 4000  # of one sequence on a page
_CUT = 400  # characters of one part


def sequence_blocks(setup: Setup, sequences: list[Sequence]) -> list[Block]:
    """Return the first sequences: a table each, and for a page the tokens, behind a fold for each sequence."""
    blocks: list[Block] = []
    for number, one in enumerate(sequences[:PAGED]):
        table = sequence_table(setup, number, one)
        label = f"{table.columns[0]}: {plural(one.trained, 'target')} of {plural(len(one.ids), 'token')}"
        blocks.append(Fold(label, (_strip(setup, one), table), (table,) if number < SHOWN else (), open=number == 0))
    if len(sequences) > SHOWN:
        blocks.append(Note("More", f"{len(sequences) - SHOWN:,} sequences are not shown: --row N shows one, --format json has all", "dim"))
    return blocks


def _strip(setup: Setup, sequence: Sequence) -> TokenStrip:
    encoder, roles = setup.chat.encoder, sequence.roles or [""] * len(sequence.ids)
    parts = zip(sequence.ids[:MOST_TOKENS], sequence.labels, sequence.sources, roles, strict=False)
    tokens = tuple(
        MarkedToken(
            encoder.text_of(token),
            f"id {token}, label {label}"
            + (f", {role or 'template'}" if sequence.roles else "")
            + (f", {source}" if label == IGNORED else ""),
            label != IGNORED,
        )
        for token, label, source, role in parts
    )
    return TokenStrip(tokens, "a target", "ignored")


def sequence_table(setup: Setup, number: int, sequence: Sequence) -> Table:
    """Return one sequence as its parts: whose message, the text, target or ignored, and the setting that decided it."""
    rows: list[tuple[str | Cell, ...]] = []
    roles = sequence.roles or [""] * len(sequence.ids)
    places = range(len(sequence.ids))
    for (role, trained, source), group in groupby(places, key=lambda at: (roles[at], sequence.labels[at] != IGNORED, sequence.sources[at])):
        taken = list(group)
        text = setup.chat.encoder.decode([sequence.ids[at] for at in taken]).replace("\n", "\\n")
        said = f"trained, {plural(len(taken), 'token')}" if trained else f"ignored, {plural(len(taken), 'token')}"
        shown = text if len(text) <= _CUT else text[: _CUT - 4] + " ..."
        rows.append(
            (
                role or "template",
                Cell(shown, "good" if trained else "dim"),
                Cell(said, "good" if trained else "dim"),
                "" if trained else source,
            )
        )
    named = ", ".join(map(str, sequence.rows[:5]))
    return Table((f"sequence {number} (row {named})", "text", "label", "decided by"), tuple(rows))


def input_notes(inputs: Inputs, limits: list[str]) -> list[Block]:
    """Return the notes about settings and limits."""
    notes: list[Block] = []
    if inputs.used:
        notes.append(Note("Used", ", ".join(inputs.used), "dim"))
    if inputs.ignored:
        notes.append(Note("Ignored", f"{', '.join(inputs.ignored)} (no influence on labels)", "dim"))
    if limits:
        notes.append(Note("Limits", "; ".join(limits), "warn"))
    return notes

"""transformers' collators for language models, without padding: what they do to labels."""

from __future__ import annotations

from llmdoctor.labels.types import Sequence, TrainerError, joined

PAD_IS_IGNORED = "DataCollatorForLanguageModeling: every pad_token_id is ignored"


def language_modeling(sequences: list[Sequence], pad: int | None) -> list[Sequence]:
    """Labels are the ids, and each id that equals the pad id is -100, real end tokens too (transformers 5.23.0 data_collator.py:890).

    Raises TrainerError if there is no pad token and several sequences have to be padded together.
    """
    if pad is None:
        raise TrainerError(
            "ValueError", "the tokenizer does not have a pad token, and sequences have to be padded", "transformers data_collator.py"
        )
    for one in sequences:
        if one.labels != one.ids:
            one.labels, one.sources = list(one.ids), ["target"] * len(one.ids)
        if pad not in one.ids:
            continue
        for place, token in enumerate(one.ids):
            if token == pad:
                one.mask(place, place + 1, PAD_IS_IGNORED)
    return sequences


def flattened(sequences: list[Sequence]) -> list[Sequence]:
    """One sequence for the whole batch; the first token of each document is ignored (5.23.0 data_collator.py DataCollatorWithFlattening)."""
    if not sequences:
        return []
    whole = joined(sequences)
    for start in whole.starts:
        whole.mask(start, start + 1, "DataCollatorWithFlattening: the first token of a document is ignored")
    return [whole]

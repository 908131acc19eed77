"""What differs between the releases of TRL's SFTTrainer, as data (read in and compared with the releases that `VERSIONS` lists)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

VERSIONS = tuple(
    "0.12.2 0.13.0 0.14.0 0.15.2 0.16.1 0.17.0 0.18.2 0.19.1 0.20.0 0.21.0 0.22.2 0.23.1 0.24.0 0.25.1 0.26.2 0.27.2 0.28.0 0.29.1 "
    "1.0.0 1.2.0 1.4.0 1.5.1 1.7.1 1.9.2 1.11.0 1.12.0 1.13.0 1.14.2 1.15.0 1.16.0".split()
)
# Fields of SFTConfig that change labels: the first release that has each, and the first that has it no longer.
_SINCE = {
    "max_length": (0, 16),
    "pad_token": (0, 16),
    "padding_free": (0, 16),
    "completion_only_loss": (0, 17),
    "eos_token": (0, 17),
    "pad_to_multiple_of": (0, 18),
    "assistant_only_loss": (0, 19),
    "packing_strategy": (0, 19),
    "truncation_mode": (1, 0),
}
_UNTIL = {"max_seq_length": (0, 20)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRules:
    """The rules of the releases from `since` on; the defaults are those of 0.17."""

    since: tuple[int, ...]
    strategies: tuple[str, ...] = ("wrapped",)  # the first is the default
    splitting: tuple[str, ...] = ("bfd_split",)  # the strategies that go on with the rest of a long row in another place
    old_strategies: Mapping[str, str] = field(default_factory=dict)  # names that are still accepted, with what they mean
    needs_content: bool = True  # is_conversational asks for `content` beside `role`
    generation_prompt: bool = True  # a conversational prompt is rendered with one before its tokens are counted
    as_text: bool = True  # a conversational pair becomes two texts, and the prompt's must be the beginning of the whole
    passes_tools: bool = False  # and chat_template_kwargs
    decodes_tools: bool = False  # tools as JSON text are decoded; before, a text raises ValueError
    drops_nulls: bool = False  # null values inside messages and tools are removed (remove_none_values)
    pairs_masked: bool = False  # assistant_only_loss masks rows with prompt and completion
    pairs_checked: bool = False  # and refuses those without assistant tokens
    packs_masks: bool = False  # packing keeps completion_mask and assistant_masks
    packs_labels: bool = False  # packing keeps the dataset's own labels
    reads_labels: bool = False  # the collator uses the dataset's own labels
    needs_completion: bool = False  # completion_only_loss is on by default only if the first row also has a completion
    first_ignored: bool = True  # the padding-free collator ignores the first token of each document
    eos_column: str | None = "text"  # the one column that gets an eos; None: dataset_text_field
    by_prefix: bool = False  # the completion begins where the tokenizations part
    strict_vocabulary: bool = False  # a token outside the vocabulary is refused even if there is an unk_token
    training_templates: bool = False  # assistant_only_loss swaps a known template without {% generation %}, and refuses another one
    drops_masked: bool = False  # rows that truncation leaves without a target are dropped
    padding_free_needs_no_length: bool = False
    drops_empty: bool = False  # packing drops rows without tokens


_17 = ReleaseRules(since=(0, 17), drops_empty=True)
_19 = replace(
    _17,
    since=(0, 19),
    strategies=("ffd", "wrapped"),
    generation_prompt=False,
    as_text=False,
    passes_tools=True,
    drops_nulls=True,
    reads_labels=True,
    first_ignored=False,
    drops_empty=False,
)
_20 = replace(_19, since=(0, 20), pairs_masked=True, strategies=("bfd", "wrapped"), packs_masks=True)
_22 = replace(_20, since=(0, 22), needs_completion=True)
_23 = replace(_22, since=(0, 23), first_ignored=True)
_24 = replace(_23, since=(0, 24), generation_prompt=True, pairs_checked=True)
_27 = replace(_24, since=(0, 27), splitting=("bfd",), drops_empty=True)
_28 = replace(_27, since=(0, 28), needs_content=False)
_29 = replace(_28, since=(0, 29), decodes_tools=True, strategies=("bfd", "bfd-requeue", "wrapped"), splitting=("bfd-requeue",))
_1_0 = replace(
    _29,
    since=(1, 0),
    drops_nulls=False,
    strategies=("bfd", "bfd_split", "wrapped"),
    splitting=("bfd_split",),
    old_strategies={"bfd-requeue": "bfd_split"},
    padding_free_needs_no_length=True,
    drops_empty=True,
)
_1_1 = replace(_1_0, since=(1, 1), strict_vocabulary=True, training_templates=True)
_1_7 = replace(_1_1, since=(1, 7), packs_labels=True)
_1_9 = replace(_1_7, since=(1, 9), drops_masked=True)
_1_14 = replace(_1_9, since=(1, 14), by_prefix=True)
_1_15 = replace(_1_14, since=(1, 15), eos_column=None)
_RULES = (_17, _19, _20, _22, _23, _24, _27, _28, _29, _1_0, _1_1, _1_7, _1_9, _1_14, _1_15)


def rules_for(version: tuple[int, ...]) -> ReleaseRules:
    """Return the newest rules that are not newer than `version`."""
    return next(rules for rules in reversed(_RULES) if rules.since <= version)


def unknown_field(version: tuple[int, ...], names: set[str]) -> str | None:
    """Return a field of `names` that SFTConfig of `version` does not have; None if it has all."""
    late = (name for name, since in _SINCE.items() if version < since)
    gone = (name for name, until in _UNTIL.items() if version >= until)
    return next((name for name in (*late, *gone) if name in names), None)

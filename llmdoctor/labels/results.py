"""The `result` of each command of the labels job, as types: what a program reads in the JSON report."""

from __future__ import annotations

from typing import Any, TypedDict

from typing_extensions import NotRequired

from llmdoctor.core.inputs import InputsResult

# The functional syntax is needed for a field that is a keyword.
TokenResult = TypedDict(
    "TokenResult",
    {
        "id": int,
        "text": str,
        "label": int,  # the token's id if it is a target, -100 if it is not (not shifted)
        "role": str,  # whose message it belongs to; "" for the template's own tokens
        "from": str,  # the setting that decided the label
    },
)


class RowResult(TypedDict):
    """One sequence that the model receives for training."""

    row: int  # the first dataset row in it, from 0
    tokens: list[TokenResult]
    trained: int  # tokens that are targets
    masked: int  # tokens that are not
    truncated: bool  # tokens were removed to respect a maximum length
    end_trained: bool | None  # whether each answer's end token is a target; None: the sequence holds no answer with an end
    end_token: str | None


class TrainerErrorResult(TypedDict):
    """The exception that the trainer raises instead."""

    type: str
    message: str
    place: str


class LabelsInspectResult(TypedDict):
    """`labels inspect`: the targets of each sequence."""

    trainer: str
    version: str | None  # the release whose rules were applied
    rows: list[RowResult]
    error: TrainerErrorResult | None
    inputs: InputsResult
    limits: list[str]
    dropped: NotRequired[Any]


class AuditResult(TypedDict):
    """`labels audit`: the same counted over a whole dataset."""

    trainer: str
    version: str | None
    rows: int  # dataset rows read
    sequences: int  # sequences that the trainer makes of them
    tokens: int
    trained_tokens: int
    dropped_rows: int
    no_target_rows: int  # sequences without any target
    truncated_rows: int
    end_untrained_rows: int  # sequences with an answer whose end token is not a target
    end_cut_rows: int  # sequences that lost the end of an answer to truncation
    end_missing_rows: int  # sequences whose last answer has no end token at all
    prompt_trained_rows: int  # sequences in which tokens of a user, system or tool message are targets
    double_bos_rows: int
    double_eos_rows: int
    beyond_vocabulary_rows: int  # sequences with an id that the embedding does not have
    padding_trained_rows: int
    shifted_rows: int  # sequences whose labels are shifted by one place
    thoughts_removed_rows: int  # sequences without a thinking part that the row holds
    crossing_rows: int  # sequences in which the first token of a packed document is a target
    odd_role_rows: int  # sequences with roles such as human and gpt, which the template writes as they are
    dropped_message_rows: int  # sequences without a message of their row, among the first 1,000 rows
    no_answer_rows: int  # sequences of rows without a message of the assistant
    end_token: str | None
    error: TrainerErrorResult | None
    inputs: InputsResult
    limits: list[str]


class PromptResult(TypedDict):
    """The prompt that one side builds."""

    name: str
    ids: list[int]
    text: str


class DifferenceResult(TypedDict):
    """The first place at which two prompts part."""

    index: int  # the position in ids
    left: str  # what follows there
    right: str
    before: str  # the text that both sides share in front of it


class PromptCauseResult(TypedDict):
    """A reason why two prompts differ."""

    name: str
    evidence: str
    fix: str | None


class PromptDiffResult(TypedDict):
    """`prompt diff`: the ids that two sides build from the same messages."""

    same: bool
    left: PromptResult | None
    right: PromptResult | None
    first_difference: DifferenceResult | None
    causes: list[PromptCauseResult]
    inputs: InputsResult  # what the file of --messages holds beside the messages

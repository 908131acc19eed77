"""What a user can ask of the labels job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsOptions:
    """The options of `labels inspect` and `labels audit`.

    `data` is a file of rows, `trainer` NAME or NAME@VERSION, `config` the trainer's own settings as JSON or YAML, `row` the one dataset row
    to show (from 0), `rows` the most rows that an audit reads, `without` keys of the configuration to answer without, `transformers` the
    release whose tokenizers are meant ("4.57.6", "5").
    """

    model: str
    data: str
    trainer: str = "trl-sft"
    config: str | None = None
    row: int | None = None
    text_column: str | None = None
    max_length: int | None = None
    rows: int | None = None
    without: tuple[str, ...] = ()
    transformers: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SideOptions:
    """How one side of `prompt diff` builds its prompt.

    `name` is a builder ("trl-sft", "vllm", "template:FILE", "ids:FILE", "model:DIR" ...), `kwargs` are the chat template's own variables as JSON
    text ('{"enable_thinking": false}').
    """

    name: str
    kwargs: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOptions:
    """The options of `prompt diff`. Without `messages`, two tokenizer directories are compared."""

    model: str
    messages: str | None = None
    left: SideOptions = SideOptions(name="trl-sft")
    right: SideOptions = SideOptions(name="vllm")
    transformers: str | None = None

"""The arguments of alignment-handbook's scripts beside TRL's own. Read in its src/alignment/configs.py, commit 125b292."""

from __future__ import annotations

from functools import cache

from llmdoctor.configs.schema import Meanings, meaning_of
from llmdoctor.configs.types import Key

HANDBOOK = Meanings(
    ignored={
        "it names the data or decides how examples become tokens": (
            "dataset_mixer dataset_splits dataset_configs dataset_mixture chat_template text_column preprocessing_num_workers truncation_side "
            "auto_insert_empty_system_msg system_prompt"
        ),
        "it names the model or its code": "base_model_revision model_code_revision tokenizer_name_or_path",
        "saving and publishing do not belong to a training step": "hub_model_revision",
    },
    uses={"use_flash_attention_2": "attention_flash"},
    labels={"chat_template": "chat_template", "text_column": "text_column", "system_prompt": "system_prompt"},
)
MARKS = frozenset({"dataset_mixer", "dataset_mixture", "chat_template"})


@cache
def keys() -> dict[str, Key]:
    """Return the keys that a recipe has besides those of a class of TRL."""
    names = {*HANDBOOK.uses, *" ".join(HANDBOOK.ignored.values()).split()}
    return {name: Key(name=name, meanings=meaning_of(name, (HANDBOOK,))) for name in names}

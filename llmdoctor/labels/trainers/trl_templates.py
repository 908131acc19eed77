"""The chat templates that TRL replaces by training templates of its own under assistant_only_loss (trl 1.1 on, chat_template_utils.py).

A template without {% generation %} is looked up by its text: the known ones are replaced, any other raises ValueError. The training templates are
read from the installed package; their digests here only tell which templates are known.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.opening import read_bytes
from llmdoctor.labels.chat import NO_TEMPLATE, Chat
from llmdoctor.labels.trainers.base import Task
from llmdoctor.labels.types import TrainerError
from llmdoctor.modeldir.template import TEMPLATE_LIMIT

_TABLE = Path(__file__).parents[1] / "trl_templates.json"  # written by conformance/make_trl_templates.py
_TRIMMED = (1, 6)  # before, the marker is looked for as "{% generation %}" alone (trl 1.5.1 sft_trainer.py)


def trained_with(task: Task) -> Chat:
    """Return the tokenizer with the template that assistant_only_loss trains with.

    Raises TrainerError if TRL does not know the template, QuestionError if its replacement is in no installed package.
    """
    chat = task.chat
    if chat.template is None:
        raise TrainerError("TypeError", NO_TEMPLATE, "trl sft_trainer.py: the marker is looked for in None")
    if "{% generation %}" in chat.template.source or (task.version >= _TRIMMED and chat.has_generation_markers):
        return chat
    name = known_template(chat.template.source, task.version)
    if name is None:
        message = "assistant_only_loss=True needs a chat template with {% generation %}, and trl has no training template for this one"
        raise TrainerError("ValueError", message, "trl chat_template_utils.py get_training_chat_template")
    return replace(chat, template=replace(chat.template, source=_installed(name, task.version)), _prepared={})


def known_template(source: str, version: tuple[int, ...]) -> str | None:
    """Return trl's name of a template that it replaces; None if it has no replacement."""
    table: dict[str, dict[str, str]] = json.loads(_TABLE.read_bytes())["templates"]
    entry = table.get(hashlib.sha256(source.encode()).hexdigest())
    if entry is None or tuple(map(int, entry["since"].split("."))) > version:
        return None
    return entry["name"]


def _installed(name: str, version: tuple[int, ...]) -> str:
    """Return the text of a training template of the installed trl."""
    for entry in sys.path:
        data = read_bytes(os.path.join(entry or ".", "trl", "chat_templates", f"{name}_training.jinja"), TEMPLATE_LIMIT)
        if isinstance(data, bytes):
            return data.decode("utf-8", "replace")
    requested = ".".join(map(str, version))
    raise QuestionError(
        f"assistant_only_loss: trl {requested} replaces this chat template ({name}) by a training template that only its package has: "
        f"pip install --no-deps trl=={requested}, or --without assistant_only_loss"
    )

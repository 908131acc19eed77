"""Two tokenizer directories compared in everything that changes ids."""

from __future__ import annotations

from typing import Any

from llmdoctor.files.jsonfile import read_optional
from llmdoctor.labels.prompt_causes import PromptCause
from llmdoctor.modeldir.directory import ModelDir
from llmdoctor.modeldir.tokenizer import TOKENIZER_LIMIT

_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_FLAGS = ("add_bos_token", "add_eos_token", "padding_side", "model_max_length", "add_prefix_space", "legacy")
_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")


def tokenizer_causes(left: ModelDir, right: ModelDir) -> list[PromptCause]:
    """Return the differences that change ids, the gravest first."""
    return [*_vocabularies(left, right), *_added(left, right), *_templates(left, right), *_special(left, right), *_flags(left, right)]


def _content(directory: ModelDir) -> dict[str, Any]:
    file = read_optional(f"{directory.path}/tokenizer.json", directory.path, TOKENIZER_LIMIT)
    return file.value if file is not None and isinstance(file.value, dict) else {}


def _vocabularies(left: ModelDir, right: ModelDir) -> list[PromptCause]:
    one, two = _content(left), _content(right)
    causes = []
    models: list[Any] = [value.get("model") if isinstance(value.get("model"), dict) else {} for value in (one, two)]
    if models[0] != models[1]:
        sizes = [len(model.get("vocab") or ()) for model in models if isinstance(model, dict)]
        causes.append(
            PromptCause(
                "another vocabulary", f"{sizes[0]:,} and {sizes[1]:,} entries, or other merges: {left.shown_name}, {right.shown_name}"
            )
        )
    for part in _PARTS:
        if one.get(part) != two.get(part):
            causes.append(PromptCause(f"another {part}", f"tokenizer.json: /{part} differs"))
    return causes


def _added(left: ModelDir, right: ModelDir) -> list[PromptCause]:
    one, two = ({token: found.id for token, found in directory.tokenizer.added.items()} for directory in (left, right))
    different = sorted(token for token in one.keys() | two.keys() if one.get(token) != two.get(token))
    if not different:
        return []
    shown = ", ".join(f"{token} ({one.get(token, 'missing')}, {two.get(token, 'missing')})" for token in different[:5])
    return [PromptCause("other added tokens", f"{len(different)} differ: {shown}")]


def _templates(left: ModelDir, right: ModelDir) -> list[PromptCause]:
    one, two = left.chat_template, right.chat_template
    if (one is None) != (two is None):
        return [PromptCause("another template", f"{(left if one is None else right).shown_name} has no chat template")]
    if one is not None and two is not None and one.source != two.source:
        place = next(
            (at for at, (a, b) in enumerate(zip(one.source, two.source, strict=False)) if a != b), min(len(one.source), len(two.source))
        )
        return [
            PromptCause(
                "another template",
                f"the chat templates part at character {place}: {one.source[place : place + 40]!r}, {two.source[place : place + 40]!r}",
            )
        ]
    return []


def _special(left: ModelDir, right: ModelDir) -> list[PromptCause]:
    causes = []
    for name in _NAMED:
        one, two = (directory.tokenizer.special(name) for directory in (left, right))
        tokens = [None if found is None else found.token for found in (one, two)]
        if tokens[0] != tokens[1]:
            causes.append(PromptCause(f"another {name}", f"{tokens[0]} and {tokens[1]}"))
    return causes


def _flags(left: ModelDir, right: ModelDir) -> list[PromptCause]:
    values = []
    for directory in (left, right):
        file = directory.tokenizer_config
        values.append(file.value if file is not None and isinstance(file.value, dict) else {})
    return [
        PromptCause(f"another {name}", f"tokenizer_config.json: {values[0].get(name)} and {values[1].get(name)}")
        for name in _FLAGS
        if values[0].get(name) != values[1].get(name)
    ]

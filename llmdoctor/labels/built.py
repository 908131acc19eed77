"""From options to sequences: the model's tokenizer, the rows, the trainer's settings, and what the trainer makes of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from llmdoctor.configs.formats import FORMATS
from llmdoctor.configs.normal import shorter
from llmdoctor.configs.types import Format
from llmdoctor.configs.versions import version_of
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.inputs import Inputs
from llmdoctor.core.release import release
from llmdoctor.files.jsonfile import read_json_file
from llmdoctor.files.opening import read_bytes, shown_path
from llmdoctor.files.yamlfile import YAML_LIMIT, parse_yaml
from llmdoctor.labels.chat import REASONING, Chat, copies_reasoning
from llmdoctor.labels.options import LabelsOptions
from llmdoctor.labels.trainers import trainer_named
from llmdoctor.labels.trainers.base import Task, Trainer, as_version
from llmdoctor.labels.types import Row, Sequence
from llmdoctor.modeldir.directory import ModelDir, read_model_dir
from llmdoctor.modeldir.template import TemplateWorker

if TYPE_CHECKING:
    from llmdoctor.labels.live.encoder import FastEncoder


@dataclass(slots=True, kw_only=True)
class Setup:
    """Everything but the rows: what `build` needs for each batch of them."""

    options: LabelsOptions
    directory: ModelDir
    chat: Chat
    trainer: Trainer
    version: tuple[int, ...]
    stated: str | None  # the version that the user or the installed package names
    config: dict[str, Any]
    inputs: Inputs
    release: tuple[int, ...] = (5,)  # of transformers, (4,) or (5,) if only that is known
    limits: list[str] = field(default_factory=list)

    def build(self, rows: list[Row]) -> list[Sequence]:
        """Return the sequences that the trainer makes of `rows`. Raises TrainerError as the trainer does."""
        if _IMAGES not in self.limits and any(map(_has_images, rows[:20])):
            self.limits.append(_IMAGES)
        if self.release == (5,) and _REASONING not in self.limits and any(map(_has_reasoning, rows[:20])):
            self.limits.append(_REASONING)
        return self.trainer.build(Task(rows=rows, config=self.config, chat=self.chat, version=self.version))

    @property
    def who(self) -> str:
        """The trainer with the release whose rules are applied; for labels as they are, what makes the ids."""
        return f"{self.trainer.name} {self.version_text}" if self.version else "Building the sequences"

    @property
    def version_text(self) -> str | None:
        """The release whose rules are applied."""
        return ".".join(map(str, self.version)) if self.version else None


_IMAGES = "images are placeholders: the tokens that a processor makes of them are not counted"
_REASONING = "reasoning_content and thinking are taken as copied to each other, as transformers 5.21 and newer do (--transformers 5.20 for older ones)"
_MEDIA = ("image", "images", "videos", "audios")


def _has_images(row: Row) -> bool:
    """Return whether a row holds images, as a column or as parts of a message's content."""
    if any(row.columns.get(name) for name in _MEDIA):
        return True
    contents = [one.get("content") for one in _messages(row)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return any(isinstance(part, dict) and part.get("type") in ("image", "image_url", "video", "audio") for part in parts)


def _has_reasoning(row: Row) -> bool:
    return any(message.get(name) is not None for message in _messages(row) for name in REASONING)


def _messages(row: Row) -> list[dict[str, Any]]:
    talks = (row.columns.get(name) for name in ("messages", "prompt", "completion"))
    return [one for talk in talks if isinstance(talk, list) for one in talk if isinstance(one, dict)]


def set_up(options: LabelsOptions, worker: TemplateWorker, detail: bool = True) -> Setup:
    """Return everything that building sequences needs. Raises QuestionError for what cannot be read or is not known."""
    from llmdoctor.labels.live.encoder import FastEncoder

    name, _, version = options.trainer.partition("@")
    trainer = trainer_named(name)
    directory = read_model_dir(options.model)
    config, inputs = _settings(options, trainer)
    chosen, stated, limits = _version_of(trainer, version, options.config or options.data)
    release = _release(options, trainer, chosen, version)
    encoder = FastEncoder(directory, release)
    limits += release_limits(encoder)
    chat = Chat(encoder, directory.chat_template, worker, detail, copies_reasoning=copies_reasoning(release))
    if trainer.assumed is not None:
        limits += trainer.assumed(config)
    if options.without:
        limits.append(f"answered without {', '.join(options.without)}")
    return Setup(
        options=options,
        directory=directory,
        chat=chat,
        trainer=trainer,
        version=chosen,
        stated=stated,
        config=config,
        inputs=inputs,
        release=release,
        limits=limits,
    )


def _release(options: LabelsOptions, trainer: Trainer, chosen: tuple[int, ...], named: str) -> tuple[int, ...]:
    """Return whose tokenizer is meant: transformers as asked, else as pinned or installed here, or (4,) or (5,) as the named trainer was compared."""
    if options.transformers is not None:
        return as_release(options.transformers)
    if trainer.library == "transformers":
        return chosen
    if not named:  # who names a release of the trainer asks about another environment than the one here
        found = version_of("transformers", known=("4.57.6", "5.23.0"), near=options.config or options.data)
        if found.installed is not None or (found.basis == "pinned" and release(found.version)[:1] in ((4,), (5,))):
            return as_release(found.version)
    return trainer.release if chosen >= trainer.five_since else (4,)


def as_release(text: str) -> tuple[int, ...]:
    """Return a release of transformers, "5" as (5,). Raises QuestionError for one that is neither 4 nor 5."""
    numbers = re.match(r"[45](\.\d+)*(?![\d.])", text)
    if numbers is None:
        raise QuestionError(f"--transformers {text}: expected a release of transformers 4 or 5")
    return tuple(map(int, numbers[0].split(".")))


def release_limits(encoder: FastEncoder) -> list[str]:
    """Return the limit of an answer whose ids depend on the release of transformers."""
    others = [name for name in encoder.differing if not (name == "5" and encoder.release[0] == 5)]
    if not others:
        return []
    shown = ".".join(map(str, encoder.release[:2]))
    named = " and ".join("5.0 to 5.21" if name == "5.21" else name for name in others)
    return [f"the ids are those of transformers {shown}; for this tokenizer transformers {named} makes others (--transformers {others[0]})"]


def _version_of(trainer: Trainer, text: str, near: str) -> tuple[tuple[int, ...], str | None, list[str]]:
    """Return the rules to apply, the version asked about, and the limits of the answer.

    Without `text` the version is that which the repository of the file `near` pins, or the installed one. The rules are those of the compared
    release with the same first two numbers, else of the newest one that is not newer.
    """
    if not trainer.versions:
        return (), None, []
    decided = version_of(trainer.library, known=trainer.versions, named=text or None, near=near)
    stated = None if decided.basis == "newest" else decided.version
    pinned = [clause for clause in (decided.pinned, *decided.doubts) if clause is not None and "every version known" not in clause]
    known = [as_version(one) for one in trainer.versions]
    if stated is None:
        return (
            known[-1],
            None,
            [f"the rules are those of {trainer.library} {trainer.versions[-1]}; no version was named and none is installed"],
        )
    match = re.match(r"\d+(\.\d+){0,3}", stated)
    wanted = as_version(match[0] if match and not text else stated)
    alike = [one for one in known if one[:2] == wanted[:2]]
    if wanted < known[0] and not alike:
        by = f", which {decided.place} pins" if decided.place is not None else ""
        raise QuestionError(
            f"--trainer {trainer.name}@{stated}{by}: the oldest release compared is {trainer.versions[0]}, older ones are not modelled"
        )
    chosen = max(alike or [one for one in known if one <= wanted])
    exact = wanted == chosen
    return (
        chosen,
        stated,
        pinned if exact else [*pinned, f"{trainer.library} {stated} was not compared: the rules are those of {'.'.join(map(str, chosen))}"],
    )


def _settings(options: LabelsOptions, trainer: Trainer) -> tuple[dict[str, Any], Inputs]:
    """Return the trainer's settings and what was done with each. Raises QuestionError for a key that is not known."""
    values = {} if options.config is None else _read_config(options.config)
    for key in options.without:
        _drop(values, key)
    for key, value in (("text_column", options.text_column), ("max_length", options.max_length)):
        if value is not None:
            values["dataset_text_field" if key == "text_column" and "dataset_text_field" in trainer.keys else key] = value
    used = {key: value for key, value in values.items() if key in trainer.keys}
    _check_types(trainer, used, options.config)
    ignored = {key: _reason(trainer, values, key, options.config) for key in values if key not in used}
    return used, Inputs(used=used, ignored=ignored)


# What a setting may be, by the words of its annotation in the framework's source; other annotations are checked by the trainer's rules.
_TYPES: dict[str, tuple[type, ...]] = {
    **{"str": (str,), "Literal": (str,), "int": (int, float), "float": (int, float), "bool": (bool,)},
    **{"list": (list,), "dict": (dict,), "SpecialTokensConfig": (dict,)},
}


def _check_types(trainer: Trainer, used: Mapping[str, Any], path: str | None) -> None:
    """Raise QuestionError for a setting of another type than the framework's own class has."""
    known = _format_of(trainer)
    keys = known.variant(used).keys if known is not None else {}
    for key, value in used.items():
        annotation = keys[key].type if key in keys else "Any"
        outer = re.sub(r"\b(list|dict)\[[^\[\]]*\]|'[^']*'", r"\1", annotation)  # without the types of items, and without choices
        words = set(re.findall(r"\w+", outer)) - {"Optional", "None"}
        if value is None or not words or not words <= _TYPES.keys():
            continue
        allowed = tuple(kind for word in words for kind in _TYPES[word])
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise QuestionError(f"{path or 'the options'}: {key}: expected {annotation}, found {shorter(value)}")


def _format_of(trainer: Trainer) -> Format | None:
    return next((form for form in FORMATS if form.name == trainer.format), None)


def _reason(trainer: Trainer, values: dict[str, Any], key: str, path: str | None) -> str:
    """Return why a key cannot change an id or a label. Raises QuestionError if it can, or is not known."""
    known = _format_of(trainer)
    place = path or "the options"
    if known is None or key not in known.variant(values).keys:
        close = difflib.get_close_matches(key, [*trainer.keys, *(known.variant(values).keys if known is not None else ())], 1, 0.8)
        meant = f' (is "{close[0]}" meant?)' if close else ""
        raise QuestionError(
            f"{place}: {key} is not known for {trainer.name}{meant} and could change the labels; --without {key} answers without it"
        )
    harmless = trainer.harmless.get(key, ())
    if any(fnmatchcase(key, pattern) for pattern in trainer.relevant) and values[key] not in (None, False, *harmless):
        raise QuestionError(f"{place}: {key} changes what is trained and is not modelled; --without {key} answers as if it were not set")
    return "no influence on ids or labels"


def _drop(values: dict[str, Any], key: str) -> None:
    head, _, rest = key.partition(".")
    if rest and isinstance(values.get(head), dict):
        _drop(values[head], rest)
    else:
        values.pop(key, None)


def _read_config(path: str) -> dict[str, Any]:
    """Return the object in a JSON or YAML file. Raises QuestionError if there is none."""
    if path.endswith((".yaml", ".yml")):
        data = read_bytes(path, YAML_LIMIT)
        if not isinstance(data, bytes):
            raise QuestionError(f"--config {path}: no such file" if data is None else f"--config {path} {data.reason}")
        file = parse_yaml(data, path, shown_path(path))
    else:
        file = read_json_file(path)
    if not isinstance(file.value, dict):
        reason = next((problem.message for problem in file.problems), "expected an object with the trainer's settings")
        raise QuestionError(f"--config {path}: {reason}")
    return file.value


def the_end_ids(setup: Setup) -> frozenset[int]:
    """Return the ids that end an answer: the template's end of a turn and the tokenizer's eos_token."""
    found: Iterable[int | None] = (setup.chat.end_id if setup.chat.template is not None else None, setup.chat.encoder.eos_id)
    return frozenset(token for token in found if token is not None)


def the_stop_ids(setup: Setup) -> frozenset[int]:
    """Return where generate() stops after training: eos_token_id of generation_config.json, else of config.json, and the tokenizer's eos_token.

    Trainer adds the tokenizer's eos to those of the model (transformers 5.23.0 trainer_utils.py align_special_tokens).
    """
    files = (setup.directory.generation_config, setup.directory.config)
    values = [file.value.get("eos_token_id") for file in files if file is not None and isinstance(file.value, dict)]
    given = next((value for value in values if value is not None), None)
    found = given if isinstance(given, list) else [given]
    return frozenset(one for one in (*found, setup.chat.encoder.eos_id) if isinstance(one, int) and not isinstance(one, bool))

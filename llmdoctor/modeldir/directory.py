"""A model directory: its files, read once and only when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.finding import Finding, Location
from llmdoctor.files.jsonfile import JsonFile, read_optional
from llmdoctor.files.opening import Refusal, read_bytes, shown_path
from llmdoctor.files.rules import UNREADABLE
from llmdoctor.modeldir import hub
from llmdoctor.modeldir.rules import MISSING_BASE, REMOTE_CODE
from llmdoctor.modeldir.template import TEMPLATE_LIMIT, ChatTemplate, find_templates
from llmdoctor.modeldir.tokenizer import Tokenizer, read_tokenizer

T = TypeVar("T")

FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "tokenizer.trimmed.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "adapter_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter directory's base model: its name, and where it is (None: not on this machine)."""

    name: str
    base: ModelDir | None


@dataclass(frozen=True, slots=True)
class ModelDir:
    """A directory's files. `shown_name` is what the user called it; `only` names the one file it is, if a file was given."""

    path: str
    shown_name: str
    only: str | None = None
    _kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def _keep(self, name: str, make: Callable[[], T]) -> T:
        if name not in self._kept:
            self._kept[name] = make()
        value: T = self._kept[name]
        return value

    def has(self, name: str) -> bool:
        """Return whether the directory has a file `name`; false if one file was given."""
        return self.only is None and name in _names(self.path)

    def json(self, name: str) -> JsonFile | None:
        """One of the directory's own JSON files; None if there is no such file."""
        if self.only is not None and name != ("config.json" if self.only == "config.json" else "generation_config.json"):
            return None
        return self._keep(name, lambda: read_optional(f"{self.path}/{self.only or name}", self.path))

    def _or_base(self, name: str) -> JsonFile | None:
        own = self.json(name)
        base = self.adapter.base if own is None and self.adapter is not None else None
        return own if base is None else base.json(name)

    @property
    def config(self) -> JsonFile | None:
        """config.json; an adapter's is its base model's."""
        return self._or_base("config.json")

    @property
    def generation_config(self) -> JsonFile | None:
        """generation_config.json; an adapter's is its base model's, as peft loads it."""
        return self._or_base("generation_config.json")

    @property
    def tokenizer_config(self) -> JsonFile | None:
        """tokenizer_config.json."""
        return self._or_base("tokenizer_config.json")

    @property
    def special_tokens_map(self) -> JsonFile | None:
        """special_tokens_map.json."""
        return self._or_base("special_tokens_map.json")

    @property
    def adapter(self) -> Adapter | None:
        """The base model, if this is an adapter directory."""
        return self._keep("adapter", self._find_adapter)

    def _find_adapter(self) -> Adapter | None:
        file = self.json("adapter_config.json")
        name = file.value.get("base_model_name_or_path") if file is not None and isinstance(file.value, dict) else None
        if not isinstance(name, str) or not name:
            return None if file is None else Adapter("", None)
        for candidate in (name, os.path.join(self.path, name)):
            if os.path.isdir(candidate):
                return Adapter(name, _base(candidate, candidate))
        snapshot = hub.find_snapshot(name) if hub.looks_like_id(name) else None
        return Adapter(name, None if snapshot is None else _base(snapshot, name))

    @property
    def tokenizer(self) -> Tokenizer:
        """Token ids, of the adapter's base if the adapter has no tokenizer of its own."""
        own = self._own_tokenizer
        if own.named or own.added or self.adapter is None or self.adapter.base is None:
            return own
        return self.adapter.base.tokenizer

    @property
    def _own_tokenizer(self) -> Tokenizer:
        return self._keep("tokenizer", self._read_tokenizer)

    def _read_tokenizer(self) -> Tokenizer:
        if self.only is not None:
            return Tokenizer({}, {})
        names = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
        return read_tokenizer(self.path, *map(self.json, names))

    @property
    def templates(self) -> dict[str, ChatTemplate]:
        """The chat templates by name."""
        return self._keep("templates", self._find_templates)

    def _find_templates(self) -> dict[str, ChatTemplate]:
        if self.only is not None:
            return {}
        variables = {name: special.token for name, special in self.tokenizer.named.items()}
        config, processor = self.json("tokenizer_config.json"), self.json("chat_template.json")
        found = find_templates(self.path, config, processor, variables, self._text)
        return found or (self.adapter.base.templates if self.adapter is not None and self.adapter.base is not None else {})

    def _text(self, path: str) -> str | None:
        data = read_bytes(path, TEMPLATE_LIMIT, self.path)
        if data is None:
            return None
        shown = shown_path(path)
        if isinstance(data, Refusal):
            self._odd(data.finding(shown))
            return None
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            self._odd(UNREADABLE.at(Location(shown, None, line), f"{shown}: byte {error.start} is not UTF-8"))
            return None

    def _odd(self, problem: Finding) -> None:
        self._kept.setdefault("oddities", []).append(problem)

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The template apply_chat_template takes when none is named."""
        return self.templates.get("default") or next(iter(self.templates.values()), None)

    @property
    def remote_code(self) -> dict[str, Any]:
        """auto_map of config.json: classes that trust_remote_code=True would import from this directory; never done here."""
        value = self.config.value if self.config is not None else None
        found = value.get("auto_map") if isinstance(value, dict) else None
        return found if isinstance(found, dict) else {}

    def problems(self) -> Iterator[Finding]:
        """Every DIR finding of the directory's own files, and of those of an adapter's base model, which is loaded with it."""
        for name in (*FILES, "preprocessor_config.json", "processor_config.json", "chat_template.json"):
            if name.startswith(("tokenizer.", "model.safetensors")) and name != "model.safetensors.index.json":
                continue
            file = self.json(name)
            yield from () if file is None else file.problems
            if file is not None and file.value is not None and not isinstance(file.value, dict):
                kind = type(file.value).__name__
                message = f"{file.shown_name} holds a JSON {kind}, expected an object"
                yield UNREADABLE.at(Location(file.shown_name, None, 1), message)
        yield from self._own_tokenizer.problems
        _ = self.templates
        yield from self._kept.get("oddities", ())
        if self.only is None:
            yield from self._weights()
            yield from self._notes()
        if self.adapter is not None and self.adapter.base is not None:
            yield from self.adapter.base.problems()

    def _weights(self) -> Iterator[Finding]:
        shards = sorted(name for name in _names(self.path) if name.endswith(".safetensors"))
        if not shards:
            return
        from llmdoctor.files import safetensors

        headers = {name: safetensors.read_header(f"{self.path}/{name}", self.path) for name in shards}
        for _, wrongs in headers.values():
            yield from wrongs
        index = self.json("model.safetensors.index.json")
        if index is not None and isinstance(index.value, dict):
            yield from safetensors.check_index(index, self.path, headers)

    def _notes(self) -> Iterator[Finding]:
        for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
            file = self.json(name)
            named = file.value.get("auto_map") if file is not None and isinstance(file.value, dict) else None
            if file is not None and isinstance(named, dict) and named:
                classes = ", ".join(shortened(name) for name in list(named)[:4])
                where = Location(file.shown_name, "/auto_map", file.line("/auto_map"))
                yield REMOTE_CODE.at(where, f"trust_remote_code=True would import this directory's code for {classes}")
        if self.adapter is not None and self.adapter.base is None:
            said = f"the base model {shortened(self.adapter.name)} is not here" if self.adapter.name else "no base model is named"
            pointer, file = "/base_model_name_or_path", self.json("adapter_config.json")
            where = Location(self.shown_name) if file is None else Location(file.shown_name, pointer, file.line(pointer))
            yield MISSING_BASE.at(where, f"{said}, so a call on this adapter cannot be judged")


def read_model_dir(name: str) -> ModelDir:
    """The model directory, hub id in the local cache, or single generation_config.json that `name` means.

    Raises QuestionError if there is none, or nothing of a model in it.
    """
    if "\0" in name or not name:
        raise QuestionError("the model's name is empty or holds a NUL byte")
    if os.path.isfile(name) and name.endswith(".json"):
        return ModelDir(os.path.dirname(os.path.abspath(name)), name, os.path.basename(name))
    if os.path.lexists(name) and not os.path.isdir(name):
        raise QuestionError(f"{name}: expected a model directory or a generation_config.json, found another kind of file")
    if not os.path.isdir(name):
        return _plain_dir(hub.snapshot_or_refuse(name), name)
    if not os.access(name, os.R_OK | os.X_OK):
        raise QuestionError(f"{name}: the directory cannot be read: permission denied")
    if not is_model_dir(name):
        raise QuestionError(f"{name}: no model here: expected config.json, generation_config.json or tokenizer files")
    return _plain_dir(name, name)


def is_model_dir(path: str) -> bool:
    """Whether any file of a model lies in the folder `path`."""
    names = _names(path)
    return any(name in names for name in FILES)


def shortened(name: str, limit: int = 100) -> str:
    """A name out of a file, as much of it as a message has room for."""
    return name if len(name) <= limit else name[: limit - 4] + " ..."


def _base(path: str, shown: str) -> ModelDir:
    """An adapter's base model. Its own adapter_config.json counts for nothing, so that an adapter on itself has an end."""
    base = _plain_dir(path, shown)
    base._kept["adapter"] = None
    return base


def _plain_dir(path: str, shown: str) -> ModelDir:
    return ModelDir(path.rstrip("/") or "/", shown.rstrip("/") or shown)


def _names(path: str) -> set[str]:
    try:
        return set(os.listdir(path))
    except OSError:
        return set()

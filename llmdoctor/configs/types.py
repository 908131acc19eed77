"""The nouns of configurations: what a format is, what one of its keys means, and what reading a file returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from llmdoctor.configs.fields import FIELDS

if TYPE_CHECKING:
    from llmdoctor.configs.normal import Normal

Purpose = Literal["memory", "labels"]
# "older": an older release had the key, and it cannot change the memory; "renamed": it has another name now, under which it is read.
KeyEffect = Literal["raises", "ignores", "older", "renamed"]
NOTHING_SET: tuple[Any, ...] = (None, False, "", "none", "no", "None", 0, [], {})


@dataclass(frozen=True, slots=True)
class Uses:
    """The key sets `field` of the normalised settings (configs/fields.py)."""

    field: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """The key cannot change the answer, for `reason` (a clause that can follow the key)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The key can change the answer and is not modelled, for `reason`.

    With the framework's default or a value of `harmless` it changes nothing; nor does an object that sets only `harmless_parts`.
    """

    reason: str
    harmless: tuple[Any, ...] = NOTHING_SET
    harmless_parts: frozenset[str] = frozenset()


# Normalised settings whose default decides the answer, so that it is reported if a file does not set them.
DECIDING = ("batch", "sequence_length", "load_dtype", "optimizer", "lora_rank")
Meaning = Uses | Ignored | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One setting of a format: `name` is where it is, with dots ("zero_optimization.stage").

    `type` and `default` are the framework's own (an annotation as its source has it). `meanings` has one meaning per question. `removed` is the last
    release that had the key, if the release described by the schema rejects it.
    """

    name: str
    type: str = "Any"
    default: Any = None
    meanings: Mapping[Purpose, Meaning] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    removed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One reading of a format's file: which of the framework's classes reads it (SFTConfig), and the keys that it has."""

    name: str
    keys: Mapping[str, Key]
    choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # normalised settings that the class itself sets, without a key
    renamed: Mapping[str, str] = field(default_factory=dict)  # names of older releases, and what they are called now
    limits: tuple[str, ...] = ()  # clauses for the verdict about the choice of this class
    replaced: Mapping[str, str] = field(default_factory=dict)  # old sections that the library reads only if the new one is missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A configuration format.

    `recognise` reports whether a file's content is of this format; `variant` chooses the class that reads it; `settle` turns the keys that were
    read into the normalised settings that need more than one key. `unknown` reports what the framework does with a key that it does not know.
    `auto`: the word "auto" means a value that another program fills in. `trains`: a file describes a training, not a part of one. `arguments`: its keys
    are the arguments of a trainer, and not those of an engine, a launcher or an adapter. `engine`: it describes an engine below a trainer. `extended`: scripts add keys of their own, so that an unknown one alone
    is no mistake. `renames` maps arguments of transformers to their names here.
    `at` returns the format of another release of the library.
    """

    name: str
    title: str
    library: str
    version: str
    recognise: Callable[[Any], bool]
    variant: Callable[[Mapping[str, Any]], Variant]
    settle: Callable[[Normal], None]
    unknown: Callable[[str], KeyEffect] = lambda _key: "raises"
    auto: bool = False
    trains: bool = True
    arguments: bool = True
    engine: bool = False
    extended: bool = False
    renames: Mapping[str, str] = field(default_factory=dict)
    at: Callable[[str], Format] | None = None

    def of(self, releases: Mapping[str, str]) -> Format:
        """Return the format as the release in `releases` (by library) reads it; itself if that is not known."""
        return self.at(releases[self.library]) if self.at is not None and self.library in releases else self


@dataclass(frozen=True, slots=True)
class UnknownKey:
    """A key that the format does not have: `close` are names that it has, `removed` the last release that had it, `effect` what the framework does."""

    key: str
    effect: KeyEffect = "raises"
    close: tuple[str, ...] = ()
    removed: str | None = None

    def sentence(self, format_: Format, variant: str) -> str:
        """Return what is wrong with the key."""
        who = f"{format_.library} {format_.version}"
        meant = f' (is "{self.close[0]}" meant?)' if self.close else ""
        if self.removed is not None:
            return f"{self.key}: {who} has no such setting any more ({self.removed} had it){meant}"
        what = f"{who} has no such setting in {variant}" if variant else f"{who} has no such setting"
        return f"{self.key}: {what}{meant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What a file sets, read by the schema of its format.

    `values` maps each key of the file that the format has to its value; `unknown` are the others. `rejected` maps a key to the reason for which the
    framework raises on its value. `normal` are the normalised settings, with the framework's defaults filled in. `lines` maps keys to line numbers.
    """

    path: str
    format: Format
    variant: Variant
    values: Mapping[str, Any]
    normal: Normal
    unknown: tuple[UnknownKey, ...] = ()
    rejected: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    lines: Mapping[str, int] = field(default_factory=dict)

    def assumed(self) -> dict[str, Any]:
        """Return what the file leaves open and the framework's own default decides: {what: value}."""
        normal, who = self.normal, f"{self.format.library} {self.format.version}"
        out: dict[str, Any] = {"read as": f"{who}, {self.variant.name}"} if self.variant.facts else {}
        for name in DECIDING:
            value = normal.values.get(name)
            if value is not None and normal.key(name) is None:
                out[FIELDS[name].about] = f"{value} (default of {who})"
        return {**out, **normal.assumed}

    def meaning(self, key: str, purpose: Purpose) -> Meaning:
        """Return what `key` means for `question`."""
        return self.variant.keys[key].meanings[purpose]

    def of(self, purpose: Purpose, kind: type[Uses] | type[Ignored] | type[Refused]) -> dict[str, Any]:
        """Return the keys of the file whose meaning for `question` is of `kind`: the value of a used key, the reason for another."""
        out: dict[str, Any] = {}
        for key, value in self.values.items():
            meaning = self.meaning(key, purpose)
            if isinstance(meaning, Refused) and self.is_harmless(key, value, meaning):
                meaning = Ignored(f"its value {value!r} changes nothing")
            if isinstance(meaning, kind):
                out[key] = value if isinstance(meaning, Uses) else meaning.reason
        return out

    def is_harmless(self, key: str, value: Any, meaning: Refused) -> bool:
        """Return whether `value` of a key that is not modelled changes nothing: it is the framework's default, or one that switches it off."""
        if meaning.harmless_parts and isinstance(value, Mapping) and meaning.harmless_parts.issuperset(value):
            return True
        default = self.variant.keys[key].default
        same = default is not None and value == default and type(value) is type(default)
        return same or any(value is one or (type(value) is type(one) and value == one) for one in meaning.harmless)

"""What trainers do to a model's generation config, by trainer and version, with the file and line that does it.

The facts are data: presets.json, read out of the released sources by conformance/make_presets.py (every TRL release since 0.9.2, and
transformers' own Trainer). A preset answers for the trainer's *default* arguments unless `arguments` says otherwise. It
changes the model's config; the caller's own GenerationConfig and keyword arguments stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.installed import installed_version
from llmdoctor.gencfg.types import ConfigLayer, GenerateCall, Json, Origin, SourcedValue

Target = Literal["model", "call", "kwargs"]
ALIGNMENT = "transformers-trainer"
_CHANGES_TOKENIZER = ("setup_chat_format", "clone_chat_template")
_TEXT_CONFIGS = ("text_config", "llm_config", "language_config")


@dataclass(frozen=True, slots=True)
class TrainerAssignment:
    """One assignment in a trainer's source.

    `target` is "model" (model.generation_config), "call" (the GenerationConfig that the trainer itself passes to generate()) or "kwargs"
    (keyword arguments of its generate()). `value` is one of {"constant": x}, {"argument": name, "default": x[, "plus": x]}
    (a trainer argument), {"tokenizer": field}, {"union": field} (the model's ids and the tokenizer's), {"model": field}, {"align": field,
    "form": ...} (see _aligned) or {"code": text}. It happens with default arguments where `default` is True, and only where the
    arguments in `needs` are given ("*": any value) where there are such; `when` are the conditions around it, as the source has them.
    """

    target: Target
    field: str
    value: Mapping[str, Json]
    file: str
    line: int
    default: bool
    needs: Mapping[str, Json]
    when: tuple[str, ...]

    @property
    def place(self) -> str:
        """`ppo_trainer.py:410`."""
        return f"{self.file.rsplit('/', 1)[-1]}:{self.line}"


@dataclass(frozen=True, slots=True)
class Preset:
    """A trainer of one version. `version` is the one asked for, `known` the one whose source was read for it.

    `aligns` says that its train() goes through transformers' Trainer.train, which aligns special tokens from 4.56 on. `fix` is code to
    paste, `warns` what else the trainer's doing affects; both None where nothing is wrong. `notes` say what was assumed.
    """

    name: str
    library: str
    version: str
    known: str
    owner: str
    file: str
    aligns: bool
    assignments: tuple[TrainerAssignment, ...]
    fix: str | None = None
    warns: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """`trl 1.0.0`."""
        return f"{self.library} {self.version}"


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """The tokenizer's special ids; None where there is none, or none that the files tell."""

    eos_token_id: int | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None


def preset_names() -> tuple[str, ...]:
    """The names that --preset takes."""
    return tuple(sorted(name for library in _data().values() for name in library["presets"]))


def known_versions() -> dict[str, list[str]]:
    """Return the versions whose sources were read, by library, oldest first."""
    return {library: list(entry["versions"]) for library, entry in _data().items()}


def preset_span(name: str) -> tuple[str, str, str, str]:
    """Return a preset's library, the first and last known version that have it, and the class or function in the last one."""
    library = next(key for key, value in _data().items() if name in value["presets"])
    first, last = _span(library, name)
    found = _owner(library, name, last)
    return library, first, last, "" if found is None else found[0]


def load_preset(name: str, *, version: str | None = None) -> Preset:
    """The preset `name`, which may carry a version (`trl-ppo@0.13.0`); else `version`, else the installed one, else the newest with it.

    Raises QuestionError for an unknown name, a version that is none, and a version whose library has no such trainer.
    """
    name, at, asked = name.partition("@")
    library = next((key for key, value in _data().items() if name in value["presets"]), None)
    if library is None:
        raise QuestionError(f"--preset {name}: unknown preset, expected one of {', '.join(preset_names())}")
    if at and not asked:
        raise QuestionError(f"--preset {name}@: a version is missing after @, such as {name}@{_span(library, name)[1]}")
    chosen, known, notes = _version(library, name, asked or version)
    owner, file, aligns = _owner(library, name, known) or _absent(library, name, chosen)
    fix, warns = _advice(name, known)
    return Preset(name, library, chosen, known, owner, file, aligns, tuple(_assignments(library, name, known)), fix, warns, notes)


def apply_preset(
    name: str,
    call: GenerateCall,
    *,
    tokenizer_eos: int | None = None,
    tokenizer_pad: int | None = None,
    tokenizer_bos: int | None = None,
    trl_version: str | None = None,
    transformers_version: str | None = None,
    arguments: Mapping[str, Json] | None = None,
) -> GenerateCall:
    """`call` with what the trainer does to model.generation_config appended to its mutations, in the order in which it happens.

    `arguments` are trainer arguments that differ from their defaults ({"stop_token": "eos"}). An assignment whose value comes from the
    tokenizer is left out where that id is not given (preset_notes says so). Where the trainer goes through transformers' Trainer.train,
    the alignment of special tokens of `transformers_version` (default: the installed one) follows.
    """
    tokens = SpecialIds(tokenizer_eos, tokenizer_pad, tokenizer_bos)
    preset = load_preset(name, version=_version_for(name, trl_version, transformers_version))
    given = dict(arguments or {})
    for assignment in _happening(preset, given):
        call = _mutated(call, preset, assignment, tokens, given)
    if preset.aligns and preset.name != ALIGNMENT:
        aligner = _aligner(preset, transformers_version)
        for assignment in aligner.assignments if aligner else ():
            call = _mutated(call, aligner or preset, assignment, tokens, given)
    return call


def preset_notes(
    name: str,
    *,
    tokenizer_eos: int | None = None,
    tokenizer_pad: int | None = None,
    trl_version: str | None = None,
    transformers_version: str | None = None,
) -> tuple[str, ...]:
    """What apply_preset() assumed or had to leave out, one sentence each."""
    preset = load_preset(name, version=_version_for(name, trl_version, transformers_version))
    tokens = SpecialIds(tokenizer_eos, tokenizer_pad)
    missing = [
        f"{preset.source} {item.place} sets {item.field} to the tokenizer's, which is not known here: left as it was"
        for item in _happening(preset, {})
        if item.value.get("tokenizer") in ("eos_token_id", "pad_token_id") and getattr(tokens, item.value["tokenizer"]) is None
    ]
    if preset.owner in _CHANGES_TOKENIZER:
        missing.append(f"{preset.owner} changes the tokenizer first: the ids here are those of the tokenizer as the directory has it")
    untouched = () if list(_happening(preset, {})) else (f"{preset.source} {preset.owner} itself assigns nothing on the model's config",)
    return (*preset.notes, *missing, *untouched)


def preset_advice(name: str, trl_version: str | None = None) -> tuple[str | None, str | None] | None:
    """(what to paste, what else is affected) for a trainer that takes the model's eos away; None for one that does not."""
    preset = load_preset(name, version=_version_for(name, trl_version, None))
    return (preset.fix, preset.warns) if preset.fix or preset.warns else None


def preset_at(library: str, version: str, file: str, line: int) -> str | None:
    """The preset, with its version, that has an assignment at a line of a library's file ("trl/trainer/ppo_trainer.py"); None without."""
    if library not in _data() or version not in _data()[library]["versions"]:
        return None
    for name in _data()[library]["presets"]:
        if any(item.file == file and item.line == line for item in _assignments(library, name, version)):
            return f"{name}@{version}"
    return None


# --- what happens -----------------------------------------------------------------------------------------------------------------


def _happening(preset: Preset, given: Mapping[str, Json]) -> Iterator[TrainerAssignment]:
    """The assignments on the model that happen under `given` arguments; one that was asked for replaces the default one of its field."""
    model = [item for item in preset.assignments if item.target == "model" and item.field != "*"]
    asked = [item for item in model if item.needs and all(_meets(given.get(key), wanted) for key, wanted in item.needs.items())]
    fields = {item.field for item in asked}
    usual = [item for item in model if item.default and not item.needs and item.field not in fields]
    done: set[tuple[str, str]] = set()
    for item in sorted((*asked, *usual), key=model.index):
        if (key := (item.field, repr(item.value))) not in done:  # the same once more changes nothing
            done.add(key)
            yield item


def _meets(value: Json, wanted: Json) -> bool:
    return value is not None if wanted == "*" else bool(value == wanted)


def _mutated(
    call: GenerateCall, preset: Preset, assignment: TrainerAssignment, tokens: SpecialIds, given: Mapping[str, Json]
) -> GenerateCall:
    known, value = _value(assignment, call, tokens, given)
    if not known:
        return call
    setting = SourcedValue(value, _origin(preset, assignment, "mutation"))
    return replace(call, mutations=(*call.mutations, (assignment.field, setting)))


def _origin(preset: Preset, assignment: TrainerAssignment, layer: ConfigLayer) -> Origin:
    return Origin(layer, f"{preset.source} {assignment.place}", assignment.file, None, assignment.line)


def _value(assignment: TrainerAssignment, call: GenerateCall, tokens: SpecialIds, given: Mapping[str, Json]) -> tuple[bool, Json]:
    """(whether the assignment happens and its value is known, the value)."""
    kind, what = next(iter(assignment.value.items()))
    if kind == "constant":
        return True, what
    if kind == "argument":
        found = given.get(what, assignment.value["default"])
        return True, found if found is None else found + assignment.value.get("plus", 0)
    if kind == "align":
        return _aligned(what, assignment.value["form"], call, tokens)
    found = None
    if kind == "tokenizer":
        found = getattr(tokens, what)
    elif kind == "model":
        found = _of_model(call, what)
    elif kind == "union" and (own := getattr(tokens, what)) is not None:
        ids = _ids(_of_model(call, what))
        found = ids if own in ids else [own, *ids]
    return found is not None, found


def _aligned(name: str, form: str, call: GenerateCall, tokens: SpecialIds) -> tuple[bool, Json]:
    """Trainer.train's alignment with the tokenizer: whether it changes the model's field, and to what.

    transformers 4.56 to 5.17 ("replaces") act where the tokenizer's id differs from model.config's or is not among the generation
    config's, and put it in front even if it is there; from 5.18 ("adds", trainer_utils.py:_align_special_token) it stands there once.
    """
    own, now, outer = getattr(tokens, name), _of_model(call, name), _of_config(call, name)
    if own is None:
        return False, None
    ids, declared = _ids(now), _ids(outer)
    if own in ids and (own in declared if form == "adds" else own == outer):
        return False, None
    if name != "eos_token_id":
        return own != now, own
    return True, [own, *(item for item in ids if form == "replaces" or item != own)]


def _of_model(call: GenerateCall, name: str) -> Json:
    """model.generation_config.<name> as it stands after the mutations so far."""
    for changed, setting in reversed(call.mutations):
        if changed == name:
            return setting.value
    if call.generation_config is not None:
        return call.generation_config[name].value if name in call.generation_config else None
    return _of_config(call, name)


def _of_config(call: GenerateCall, name: str) -> Json:
    config = call.config or {}
    if name in config:
        return config[name].value
    nested = (config[key].value for key in _TEXT_CONFIGS if key in config and isinstance(config[key].value, Mapping))
    return next((item.get(name) for item in nested if item.get(name) is not None), None)


def _ids(value: Json) -> list[Json]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


# --- which version ----------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _data() -> Mapping[str, Any]:
    import json

    data: Mapping[str, Any] = json.loads(Path(__file__).with_name("presets.json").read_text(encoding="utf-8"))
    return data


def _version_for(name: str, trl: str | None, transformers: str | None) -> str | None:
    return transformers if name.startswith("transformers-") else trl


def _numbers(version: str) -> tuple[int, ...] | None:
    """1.0.0 -> (1, 0, 0); what follows the numbers (rc1, .dev0, +cu12) is not looked at."""
    import re

    found = re.match(r"\d+(\.\d+)*", version)
    if found is None:
        return None
    numbers = tuple(int(part[:9]) for part in found.group().split("."))
    return numbers + (0,) * (3 - len(numbers))


def _version(library: str, name: str, asked: str | None) -> tuple[str, str, tuple[str, ...]]:
    """(the version to name, the known one whose facts are used, what to say about it)."""
    versions: list[str] = _data()[library]["versions"]
    last = _span(library, name)[1]
    if asked is None:
        asked = installed_version(library)
        if asked is None or _numbers(asked) is None:
            return last, last, (f"{library} is not installed here: answered for {last}, the newest known with {name}",)
        nearest = _nearest(versions, asked)
        if nearest is None or _owner(library, name, nearest) is None:
            return last, last, (f"{library} {asked}, installed here, has no {name}: answered for {last}, the newest known that has it",)
    if _numbers(asked) is None:
        raise QuestionError(f"--preset {name}@{asked}: not a version of {library}, expected one such as {last}")
    known = _nearest(versions, asked)
    if known is None:
        raise QuestionError(f"--preset {name}: {library} {asked} is older than any version known here ({versions[0]} to {versions[-1]})")
    if known == asked or _numbers(known) == _numbers(asked):
        return asked, known, ()
    newer = (_numbers(asked) or ()) > (_numbers(versions[-1]) or ())
    what = "newer than any version known here" if newer else "not one of the versions known here"
    return asked, known, (f"{library} {asked} is {what}: {known}'s source was used, its lines may differ",)


def _nearest(versions: list[str], asked: str) -> str | None:
    """The newest known version that is not newer than `asked`."""
    wanted = _numbers(asked) or ()
    older = [version for version in versions if (_numbers(version) or ()) <= wanted]
    return older[-1] if older else None


def _span(library: str, name: str) -> tuple[str, str]:
    """The first and the last known version that have the trainer."""
    runs = [run.split("..") for owner in _data()[library]["presets"][name]["owners"] for run in owner["versions"]]
    versions: list[str] = _data()[library]["versions"]
    return min((run[0] for run in runs), key=versions.index), max((run[1] for run in runs), key=versions.index)


def _absent(library: str, name: str, asked: str) -> tuple[str, str, bool]:
    first, last = _span(library, name)
    raise QuestionError(f"--preset {name}: {library} {asked} has no such trainer; versions {first} to {last} have it, as in {name}@{last}")


def _owner(library: str, name: str, version: str) -> tuple[str, str, bool] | None:
    for owner in _data()[library]["presets"][name]["owners"]:
        if any(_within(library, run, version) for run in owner["versions"]):
            return owner["owner"], owner["file"], owner["aligns"]
    return None


def _within(library: str, run: str, version: str) -> bool:
    versions: list[str] = _data()[library]["versions"]
    first, _, last = run.partition("..")
    return versions.index(first) <= versions.index(version) <= versions.index(last)


def _assignments(library: str, name: str, version: str) -> Iterator[TrainerAssignment]:
    """A preset's assignments in one version, in the order of the source."""
    found = []
    for record in _data()[library]["presets"][name]["records"]:
        line = next((line for run, line in record["lines"].items() if _within(library, run, version)), None)
        if line is not None:
            conditions = tuple(record.get("when", ()))
            usual, needs = record.get("default", True), record.get("needs", {})
            found.append(
                TrainerAssignment(record["target"], record["field"], record["value"], record["file"], line, usual, needs, conditions)
            )
    yield from sorted(found, key=lambda item: (item.target, item.file, item.line))


def _aligner(preset: Preset, transformers_version: str | None) -> Preset | None:
    """The alignment that a trainer inherits; None under a transformers that has none yet."""
    version = preset.version if preset.library == "transformers" else transformers_version
    try:
        return load_preset(ALIGNMENT, version=version)
    except QuestionError:
        return None


# --- what to do about it ----------------------------------------------------------------------------------------------------------


_CHECKPOINT = "a checkpoint saved from this policy loses its eos too"
_CUT_LATER = (
    '# {config}(stop_token="eos") of trl {version} only cuts the text afterwards;\n'
    "# give the ids to the call, or to the model once the trainer is built:"
)


def _advice(name: str, known: str) -> tuple[str | None, str | None]:
    """(fix, warns) of a trainer that clears eos, from reading trl at each version (see presets.json)."""
    numbers = _numbers(known) or ()
    if name == "trl-ppo" and numbers >= (0, 14):
        return 'PPOConfig(stop_token="eos")  # restores one id; to keep the list:', _CHECKPOINT
    if name == "trl-ppo" or (name == "trl-rloo" and numbers < (0, 22)):
        config = "RLOOConfig" if name == "trl-rloo" else "PPOv2Config" if numbers < (0, 12) else "PPOConfig"
        return _CUT_LATER.format(config=config, version=known), _CHECKPOINT
    return None, None

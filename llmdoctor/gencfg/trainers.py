"""What trainers and evaluation harnesses set on a model and pass to generate(), by version, with the file and line that does it.

The facts are data. presets.json was read from the released sources by conformance/make_presets.py: every TRL release since 0.9.2, and
transformers' own Trainer. callers.json was read by hand, one release of each library; conformance/check_callers.py compares its lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.installed import installed_version
from llmdoctor.core.release import release
from llmdoctor.gencfg.types import Json

Target = Literal["model", "call", "kwargs"]
ALIGNMENT = "transformers-trainer"
# Trainers that hand their generation arguments to unwrap_model_for_generation(generation_kwargs=...): under transformers before 5 the
# model's own config then has the same values while it generates (read in trl 0.26.2, 0.27.0, 1.0.0, 1.16.0; 0.26.0 has no such argument).
_OVERRIDES_SINCE = {
    **dict.fromkeys(("trl-grpo", "trl-rloo", "trl-online-dpo", "trl-gkd", "trl-gold", "trl-nash-md", "trl-xpo"), "0.26.2"),
    "trl-dppo": "1.0.0",
}
# Trainers whose configuration takes generation_kwargs, which replace values of their own GenerationConfig (read in trl 0.25.1 and 1.0.0).
_GENERATION_KWARGS = {"trl-grpo": "GRPOConfig", "trl-rloo": "RLOOConfig", "trl-online-dpo": "OnlineDPOConfig"}


@dataclass(frozen=True, slots=True)
class TrainerAssignment:
    """One assignment in a trainer's source.

    `target` is "model" (model.generation_config), "call" (the GenerationConfig that the trainer itself passes to generate()) or "kwargs"
    (keyword arguments of its generate()). `value` is one of {"constant": x}, {"argument": name, "default": x[, "plus": x]} (a trainer
    argument; with "plus_prompt" the prompt is counted), {"tokenizer": field}, {"union": field} (the model's ids and the tokenizer's),
    {"model": field}, {"align": field, "form": ...} (see trained.py) or {"code": text} (not known here). It happens with default
    arguments if `default` is true, and only if the arguments in `needs` are given ("*": any value); `when` are the conditions around
    it, as the source has them.
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

    `aligns` is true if its train() goes through transformers' Trainer.train, which aligns special tokens from 4.56 on. `fix` is code to
    paste, `warns` what else the trainer's doing affects; both None where nothing is wrong. `notes` say what was assumed.
    `engine` is the engine that the trainer generates with, None for transformers' own generate().
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
    engine: str | None = None

    @property
    def overrides(self) -> bool:
        """Whether the model's config has the values of the trainer's call while it generates (transformers before 5)."""
        since = _OVERRIDES_SINCE.get(self.name)
        return since is not None and release(self.known) >= release(since)

    @property
    def source(self) -> str:
        """`trl 1.0.0`."""
        return f"{self.library} {self.version}"


def preset_names() -> tuple[str, ...]:
    """Return the names that --preset takes."""
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
    """Return the preset `name`, which may carry a version (`trl-ppo@0.13.0`); else `version`, else the installed one, else the newest with it.

    Raises QuestionError for an unknown name, an invalid version, and a version whose library has no such trainer.
    """
    name, at, requested = name.partition("@")
    library = next((key for key, value in _data().items() if name in value["presets"]), None)
    if library is None:
        raise QuestionError(f"--preset {name}: unknown preset, expected one of {', '.join(preset_names())}")
    if at and not requested:
        raise QuestionError(f"--preset {name}@: a version is missing after @, such as {name}@{_span(library, name)[1]}")
    chosen, known, notes = _version(library, name, requested or version)
    owner, file, aligns = _owner(library, name, known) or _absent(library, name, chosen)
    fix, warns = _advice(name, known)
    items, engine = tuple(_assignments(library, name, known)), _data()[library]["presets"][name].get("engine")
    return Preset(
        name=name,
        library=library,
        version=chosen,
        known=known,
        owner=owner,
        file=file,
        aligns=aligns,
        assignments=items,
        fix=fix,
        warns=warns,
        notes=notes,
        engine=engine,
    )


def preset_advice(name: str, trl_version: str | None = None) -> tuple[str | None, str | None] | None:
    """Return the text to paste and what else is affected, for a trainer that removes the model's eos ids; None for others."""
    preset = load_preset(name, version=version_for(name, trl_version, None))
    return (preset.fix, preset.warns) if preset.fix or preset.warns else None


def call_advice(name: str, ids: list[int]) -> str | None:
    """Return what to paste so that a trainer's own generate() stops at `ids`; None if its configuration has no setting for that."""
    preset = load_preset(name)
    config = _GENERATION_KWARGS.get(preset.name)
    if config is None or release(preset.known) < (0, 25, 1):
        return None
    return f'{config}(generation_kwargs={{"eos_token_id": {ids}}})'


def preset_at(library: str, version: str, file: str, line: int) -> str | None:
    """Return the preset and version with an assignment at a line of a library's file ("trl/trainer/ppo_trainer.py"); None without one."""
    if library not in _data() or version not in _data()[library]["versions"]:
        return None
    names = [
        name
        for name in _data()[library]["presets"]
        if any(item.file == file and item.line == line for item in _assignments(library, name, version))
    ]
    own = (name for name in names if (_owner(library, name, version) or ("", "", False))[1] == file)  # a subclass shares its parent's lines
    found = next(own, names[0] if names else None)
    return None if found is None else f"{found}@{version}"


# --- which version ----------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _data() -> Mapping[str, Any]:
    import json

    data: dict[str, Any] = {}
    for name in ("presets.json", "callers.json"):
        data |= json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    return data


def preset_versions(library: str) -> tuple[str, ...]:
    """Return the versions of a library whose trainers are known, oldest first."""
    return tuple(_data()[library]["versions"])


def version_for(name: str, trl: str | None, transformers: str | None) -> str | None:
    """Return the version that is asked for of the library that has the preset `name`."""
    return transformers if name.startswith("transformers-") else trl if name.startswith("trl-") else None


def _version(library: str, name: str, requested: str | None) -> tuple[str, str, tuple[str, ...]]:
    """Return the version to name, the known version whose facts are used, and the notes about it."""
    versions: list[str] = _data()[library]["versions"]
    last = _span(library, name)[1]
    if requested is None:
        requested = installed_version(library)
        if requested is None or not release(requested):
            return last, last, (f"{library} is not installed here: answered for {last}, the newest known with {name}",)
        nearest = _nearest(versions, requested)
        if nearest is None or _owner(library, name, nearest) is None:
            return last, last, (f"{library} {requested}, installed here, has no {name}: answered for {last}, the newest known that has it",)
    if not release(requested):
        raise QuestionError(f"--preset {name}@{requested}: not a version of {library}, expected one such as {last}")
    known = _nearest(versions, requested)
    if known is None:
        raise QuestionError(
            f"--preset {name}: {library} {requested} is older than any version known here ({versions[0]} to {versions[-1]})"
        )
    if known == requested or release(known) == release(requested):
        return requested, known, ()
    newer = release(requested) > release(versions[-1])
    what = "newer than any version known here" if newer else "not one of the versions known here"
    return requested, known, (f"{library} {requested} is {what}: {known}'s source was used, its lines may differ",)


def _nearest(versions: list[str], requested: str) -> str | None:
    """Return the newest known version that is not newer than `requested`."""
    wanted = release(requested)
    older = [version for version in versions if release(version) <= wanted]
    return older[-1] if older else None


def _span(library: str, name: str) -> tuple[str, str]:
    """Return the first and the last known version that have the trainer."""
    runs = [run.split("..") for owner in _data()[library]["presets"][name]["owners"] for run in owner["versions"]]
    versions: list[str] = _data()[library]["versions"]
    return min((run[0] for run in runs), key=versions.index), max((run[1] for run in runs), key=versions.index)


def _absent(library: str, name: str, requested: str) -> tuple[str, str, bool]:
    first, last = _span(library, name)
    raise QuestionError(
        f"--preset {name}: {library} {requested} has no such trainer; versions {first} to {last} have it, as in {name}@{last}"
    )


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
    """Yield a preset's assignments in one version, in the order of the source."""
    found = []
    for record in _data()[library]["presets"][name]["records"]:
        line = next((line for run, line in record["lines"].items() if _within(library, run, version)), None)
        if line is not None:
            conditions = tuple(record.get("when", ()))
            usual, needs = record.get("default", True), record.get("needs", {})
            found.append(
                TrainerAssignment(
                    target=record["target"],
                    field=record["field"],
                    value=record["value"],
                    file=record["file"],
                    line=line,
                    default=usual,
                    needs=needs,
                    when=conditions,
                )
            )
    yield from sorted(found, key=lambda item: (item.target, item.file, item.line))


# --- what to do about it ----------------------------------------------------------------------------------------------------------


_CHECKPOINT = "a checkpoint saved from this policy loses its eos too"
_CUT_LATER = (
    '# {config}(stop_token="eos") of trl {version} only cuts the text afterwards;\n'
    "# give the ids to the call, or to the model once the trainer is built:"
)


def _advice(name: str, known: str) -> tuple[str | None, str | None]:
    """Return `fix` and `warns` of a trainer that clears eos_token_id, from reading trl at each version (see presets.json)."""
    numbers = release(known)
    if name == "trl-ppo" and numbers >= (0, 14):
        return 'PPOConfig(stop_token="eos")  # restores one id; to keep the list:', _CHECKPOINT
    if name == "trl-ppo" or (name == "trl-rloo" and numbers < (0, 22)):
        config = "RLOOConfig" if name == "trl-rloo" else "PPOv2Config" if numbers < (0, 12) else "PPOConfig"
        return _CUT_LATER.format(config=config, version=known), _CHECKPOINT
    return None, None

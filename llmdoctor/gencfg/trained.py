"""A call after a trainer: what the trainer sets on the model, and the GenerationConfig that it passes to generate()."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.installed import installed_version
from llmdoctor.core.release import release
from llmdoctor.gencfg.trainers import ALIGNMENT, Preset, Target, TrainerAssignment, load_preset, preset_span, version_for
from llmdoctor.gencfg.types import ConfigLayer, GenerateCall, Json, Origin, SourcedValue

_CHANGES_TOKENIZER = ("setup_chat_format", "clone_chat_template")
_TEXT_CONFIGS = ("text_config", "llm_config", "language_config")
_DECIDING = ("eos_token_id", "max_new_tokens", "max_length")  # a value that is not known could turn the verdict
_ONLINE_DPO = ("trl-online-dpo", "trl-nash-md", "trl-xpo")
_OVERRIDE = "trl/models/utils.py"  # _override_model_generation_config, for transformers before 5


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Special ids of the tokenizer; None if no file gives one."""

    eos_token_id: int | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Under which conditions a trainer works: the tokenizer's ids, the versions, and arguments that differ from their defaults.

    Versions that are None are the installed ones. `arguments` are trainer arguments such as {"stop_token": "eos"}.
    """

    tokens: SpecialIds = SpecialIds()
    trl: str | None = None
    transformers: str | None = None
    arguments: Mapping[str, Json] | None = None

    def preset(self, name: str) -> Preset:
        """Return the preset `name` in the version that applies."""
        return load_preset(name, version=version_for(name, self.trl, self.transformers))


def apply_preset(name: str, call: GenerateCall, training: Training, *, own_call: bool = True) -> GenerateCall:
    """Return `call` after the trainer: what it sets on model.generation_config is appended to the mutations, in its order.

    With `own_call`, the GenerationConfig and the arguments that the trainer passes to generate() become those of the call, if it
    passes any. A value from the tokenizer is left out if that id is not given (preset_notes lists them). If the trainer goes
    through transformers' Trainer.train, the alignment of special tokens of `training.transformers` follows.
    """
    preset, given = training.preset(name), dict(training.arguments or {})
    for assignment in _happening(preset, "model", given):
        call = _mutated(call, preset, assignment, training.tokens, given)
    passed = {target: _passed(preset, target, call, training) for target in ("call", "kwargs")} if own_call else {}
    if preset.aligns and preset.name != ALIGNMENT:
        aligner = _aligner(preset, training.transformers)
        for assignment in aligner.assignments if aligner else ():
            call = _mutated(call, aligner or preset, assignment, training.tokens, given)
    if passed.get("call"):
        call = replace(call, user_config=passed["call"])
        if preset.overrides and _older_than_5(training.transformers):
            origin = f"{preset.source} overrides the model's config during generation"
            over = tuple((key, SourcedValue(item.value, Origin("trainer", origin, _OVERRIDE))) for key, item in passed["call"].items())
            call = replace(call, mutations=(*call.mutations, *over))
    return replace(call, kwargs={**passed["kwargs"], **call.kwargs}) if passed.get("kwargs") else call


def preset_notes(name: str, training: Training) -> tuple[str, ...]:
    """Return what apply_preset() assumed or left out, one sentence each."""
    preset, tokens = training.preset(name), training.tokens
    happening = [item for target in TARGETS for item in _happening(preset, target, {})]
    missing = [
        f"{preset.source} {item.place} sets {item.field} to the tokenizer's, which no file gives: left as it was"
        for item in happening
        if item.value.get("tokenizer") in ("eos_token_id", "pad_token_id") and getattr(tokens, item.value["tokenizer"]) is None
    ]
    missing += [
        f"{preset.source} {item.place} sets {item.field} to {item.value['code']}, which is left out"
        for item in happening
        if "code" in item.value
    ]
    if preset.owner in _CHANGES_TOKENIZER:
        missing.append(f"{preset.owner} changes the tokenizer first: the ids here are those of the tokenizer in the directory")
    return (*preset.notes, *dict.fromkeys(missing))


def preset_limits(name: str, training: Training, *, own_call: bool = True, engine: str | None = None) -> tuple[str, ...]:
    """Return what a verdict about the trainer depends on, as clauses; `engine` generates instead of transformers (use_vllm=True)."""
    preset = training.preset(name)
    happening = [item for target in TARGETS for item in _happening(preset, target, {})]
    limits = [note for note in preset.notes if "newer" in note or "not installed" in note]
    if not happening:
        return (*limits, f"{preset.source} {preset.owner} is not known to set or pass anything that decides how text is generated")
    if all(item.target == "model" for item in happening):
        return tuple(limits)
    limits += [
        f"{item.field} is {item.value['code']}, which is not known here ({item.place})"
        for item in happening
        if own_call and "code" in item.value and item.field in _DECIDING
    ]
    if own_call:
        # trl/generation/vllm_generation.py:642 (1.0.0): the SamplingParams have the same values, and no stop ids.
        of_trl = preset.engine is None and preset.source.startswith("trl ")
        without = "" if not of_trl else ", without vLLM" if engine is None else f", generating with {engine} (use_vllm=True)"
        return (*limits, f"with the default arguments of {preset.source}'s {preset.owner}{without}")
    return (*limits, f"without the GenerationConfig that {preset.source}'s {preset.owner} passes itself")


# --- what happens -----------------------------------------------------------------------------------------------------------------

TARGETS: tuple[Target, ...] = ("model", "call", "kwargs")


def _happening(preset: Preset, target: Target, given: Mapping[str, Json]) -> Iterator[TrainerAssignment]:
    """Yield the assignments that happen under `given` arguments; an assignment that the arguments ask for replaces the default one of its field."""
    items = [item for item in preset.assignments if item.target == target and item.field != "*"]
    needed = [item for item in items if item.needs and all(_meets(given.get(key), wanted) for key, wanted in item.needs.items())]
    fields = {item.field for item in needed}
    usual = [item for item in items if item.default and not item.needs and item.field not in fields]
    done: set[tuple[str, str]] = set()
    for item in sorted((*needed, *usual), key=items.index):
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


def _passed(preset: Preset, target: Target, call: GenerateCall, training: Training) -> dict[str, SourcedValue]:
    """Return what the trainer passes to generate(), as far as it is known."""
    given = dict(training.arguments or {})
    passed = {}
    for assignment in _happening(preset, target, given):
        known, value = _value(assignment, call, training.tokens, given)
        if known and not (value is None and _drops_none(preset)):
            passed[assignment.field] = SourcedValue(value, _origin(preset, assignment, "trainer"))
    return passed


def _drops_none(preset: Preset) -> bool:
    """Return whether a trainer leaves out values that are None, so that GenerationConfig has its default instead (top_k 50 in transformers 4).

    trl/trainer/online_dpo_trainer.py "Remove None values", from 0.23 (0.23.1:578, 0.24.0:592); NashMD and XPO inherit it.
    """
    library, _, version = preset.source.partition(" ")
    return library == "trl" and preset.name in _ONLINE_DPO and (release(version) or (0,)) >= (0, 23)


def _older_than_5(version: str | None) -> bool:
    found = version or installed_version("transformers")
    return found is not None and (release(found) or (5,)) < (5,)


def _origin(preset: Preset, assignment: TrainerAssignment, layer: ConfigLayer) -> Origin:
    return Origin(layer, f"{preset.source} {assignment.place}", assignment.file, None, assignment.line)


def _value(assignment: TrainerAssignment, call: GenerateCall, tokens: SpecialIds, given: Mapping[str, Json]) -> tuple[bool, Json]:
    """Return whether the value of an assignment is known, and the value."""
    kind, what = next(iter(assignment.value.items()))
    if kind == "constant":
        return True, what
    if kind == "argument":
        found = given.get(what, assignment.value["default"])
        if assignment.value.get("plus_prompt") and found is not None:
            found += call.prompt_length
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
    config's, and put it in front even if it is there; from 5.18 ("adds", trainer_utils.py:_align_special_token) it is there once.
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
    """model.generation_config.<name> after the mutations so far."""
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


def _aligner(preset: Preset, transformers_version: str | None) -> Preset | None:
    """Return the alignment that a trainer inherits; None under a transformers that has none yet."""
    version = preset.version if preset.library == preset_span(ALIGNMENT)[0] else transformers_version
    try:
        return load_preset(ALIGNMENT, version=version)
    except QuestionError:
        return None

"""Why a call never stops: the setting that caused it, in one sentence, and the text to paste against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmdoctor.core.finding import Location
from llmdoctor.core.text import is_id
from llmdoctor.gencfg.engines.table import engine_named
from llmdoctor.gencfg.stop_ids import stop_ids_of
from llmdoctor.gencfg.types import Effective, Origin, Resolution, Resolved, SourcedValue, Wrapper


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cause:
    """A cause. `brief` fits a verdict ("trl 1.0.0 ... cleared eos_token_id"), `text` is the full sentence, `fix` the text to paste.

    `watch` is what else is affected, None if nothing is known.
    """

    brief: str
    text: str
    fix: str
    location: Location | None = None
    watch: str | None = None


def cause_of(answer: Resolution) -> Cause | None:
    """Return why `answer` never stops; None if it stops or fails."""
    effective = answer.effective
    if effective.error is not None or not effective.stop.never_stops:
        return None
    ids = effective.stop.eos_token_id
    return _blocked(answer) if ids else _missing(answer)


def passed_cause(answer: Resolution, token: int) -> Cause:
    """Return why a call that has eos ids does not stop at `token`: what replaced the ids that held it, else where the ids without it come from."""
    field = answer.effective.fields["eos_token_id"]
    stop_ids = stop_ids_of(answer)
    shown = stop_ids.name(token)
    held = next((setting.value for setting in field.overrides if token in _ids(setting.value)), None)
    what = f"eos_token_id {field.value!r} does not hold {shown}"
    if held is not None:
        what = f"set eos_token_id {held!r} -> {field.value!r}, without {shown}"
    kept = stop_ids.wanted(each for each in _ids(field.value) if is_id(each))
    ids = _ids(held) if held is not None else list(dict.fromkeys((*kept, token)))
    if not engine_named(answer.options.engine)[0].keeps_assignments:
        ids = [*(each for each in ids if each != token), token]  # an engine that takes one id more takes the last
    return Cause(
        f"{shown} is not among the ids at which the call stops",
        f"{field.origin.source} {what}" if held is not None else f"{what} ({field.origin.source})",
        _stop_fix(answer, field.origin, ids),
        _place(field.origin),
    )


def _stop_fix(answer: Resolution, origin: Origin, ids: list[int]) -> str:
    """Return the text to paste so that the call stops at `ids`: for the file or trainer that sets them, else in the language of the engine."""
    of_trainer = origin.layer == "trainer"
    if of_trainer or (answer.from_trace and origin.layer == "user-config" and answer.presets):
        from llmdoctor.gencfg.trainers import call_advice

        advice = next((found for name in answer.presets if (found := call_advice(name, ids)) is not None), None)
        if advice is not None or of_trainer:
            return advice or f"trainer.generation_config.eos_token_id = {ids}"
    engine, _ = engine_named(answer.options.engine)
    in_file = origin.layer in ("generation_config.json", "config.json", "class-default") and not answer.from_trace
    return f'"eos_token_id": {ids}   in generation_config.json' if in_file and engine.keeps_assignments else engine.stop_fix(ids)


def _ids(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _missing(answer: Resolution) -> Cause:
    """Return why no eos id reaches the decode loop: what removed it, from the last layer to the first."""
    effective = answer.effective
    engine, _ = engine_named(answer.options.engine)
    if not engine.keeps_assignments:
        return _unknown_to_engine(answer)
    argument = answer.call.kwargs.get("eos_token_id")
    if argument is not None and not argument.value and _same(effective.fields.get("eos_token_id"), argument):
        return _argument(answer, argument)
    if answer.wrapper is not None and answer.wrapper.eos_token_id:
        return _of_a_wrapper(answer, answer.wrapper)
    cleared = _cleared(effective)
    if cleared is not None:
        return _mutated(answer, *cleared)
    model_eos = effective.model_fields.get("eos_token_id")
    if model_eos is not None and model_eos.value:
        return _not_inherited(answer, model_eos)
    return _never_there(answer)


def _unknown_to_engine(answer: Resolution) -> Cause:
    """Return why an engine that reads files has no stop id: where it takes them from, and the text to paste."""
    engine, _ = engine_named(answer.options.engine)
    because = answer.effective.stop.because or "there is no stop id"
    wanted = _wanted(answer)
    ids = wanted if isinstance(wanted, list) else [wanted] if is_id(wanted) else []
    return Cause(f"{engine.title} has no stop id: {because}", engine.stops, engine.stop_fix(ids))


def _argument(answer: Resolution, argument: SourcedValue) -> Cause:
    return Cause(
        f"{argument.origin.source} cleared eos_token_id",
        f"{argument.origin.source} is {argument.value!r}, and an argument of generate() has the last word in {_under(answer)}",
        f"model.generate(..., eos_token_id={_wanted(answer)})",
        _place(argument.origin),
    )


def _mutated(answer: Resolution, origin: Origin, before: Any) -> Cause:
    supplies = "the GenerationConfig passed has no eos_token_id" if answer.call.user_config is not None else "no other layer has one"
    fix, watch = _preset_words(answer)
    own = f"GenerationConfig(..., eos_token_id={_wanted(answer, before)})"
    if answer.call.user_config is None:
        own = f"model.generation_config.eos_token_id = {_wanted(answer, before)}"
    return Cause(
        f"eos_token_id was cleared by {origin.source}",
        f"{origin.source} set model.generation_config.eos_token_id {before!r} -> None; {supplies}, so nothing ends a sequence",
        f"{fix}\n{own}" if fix else own,
        _place(origin),
        watch or "a checkpoint saved from this model loses its eos too",
    )


def _of_a_wrapper(answer: Resolution, wrapper: Wrapper) -> Cause:
    """Return why a wrapper never stops although the model inside it has eos ids: it was given another generation config."""
    passed = (answer.call.user_config or {}).values()
    origin = next((setting.origin for setting in passed if setting.origin.layer == "user-config"), None)
    ids = list(wrapper.eos_token_id)
    made = "" if origin is None else f", made at {origin.source},"
    return Cause(
        f"the generation_config of {wrapper.name} has no eos_token_id",
        f"{wrapper.name} generates with the generation_config that it was given: it{made} has no eos_token_id, and the {ids} of the model inside "
        "the wrapper are not used",
        f"trainer.generation_config.eos_token_id = {ids}",
        None if origin is None else _place(origin),
    )


def _not_inherited(answer: Resolution, model_eos: Resolved) -> Cause:
    who, under = ("generate_batch()", f"generate_batch() of {_under(answer)}") if answer.batch else ("this version", _under(answer))
    return Cause(
        f"the GenerationConfig passed has no eos_token_id, and {who} takes none from the model",
        f"{under} uses the GenerationConfig passed as it is: it has no eos_token_id, and the model's "
        f"{model_eos.value!r} ({model_eos.origin.source}) is not used",
        f"GenerationConfig(..., eos_token_id={_wanted(answer, model_eos.value)})",
        _place(model_eos.origin),
    )


def _never_there(answer: Resolution) -> Cause:
    call = answer.call
    if answer.unseen:
        return Cause(
            "the model's generation config has no eos_token_id",
            "the model's generation config had no eos_token_id when it was called; the change was not recorded: the model was made or changed "
            "before the recording began, or in another process",
            f"model.generation_config.eos_token_id = {_wanted(answer)}",
        )
    ignored = (call.config or {}).get("eos_token_id")
    if call.generation_config is not None:
        has = call.generation_config.get("eos_token_id")
        said = "no eos_token_id" if has is None else f"eos_token_id {has.value!r}"
        text = f"generation_config.json has {said}"
        if ignored is not None and ignored.value is not None:
            text += f"; because that file exists, config.json's {ignored.value!r} ({ignored.origin.source}) is ignored"
        place = None if has is None else _place(has.origin)
        brief = f"generation_config.json has {said}"
    else:
        text = f"there is no generation_config.json, and config.json has no eos_token_id that {_under(answer)} takes"
        place, brief = None, "no file has an eos_token_id"
    return Cause(brief, text, f'"eos_token_id": {_wanted(answer)}   in generation_config.json', place)


def _blocked(answer: Resolution) -> Cause:
    """Return why no eos id can end a sequence: all are outside the vocabulary, suppressed, or forbidden by a minimum."""
    stop = answer.effective.stop
    because = stop.because or "no eos id can be produced"
    field = next((name for name in _BLOCKERS if name in because), "eos_token_id")
    resolved = answer.effective.fields.get(field)
    origin = None if resolved is None else resolved.origin
    source = "" if origin is None else f" ({origin.source})"
    fix = f"eos_token_id={_wanted(answer)}" if field == "eos_token_id" else f"leave out {field}, or give it a value that lets eos through"
    return Cause(because, f"{because}{source}", fix, None if origin is None else _place(origin))


_BLOCKERS = ("suppress_tokens", "sequence_bias", "min_new_tokens", "min_length")


def _cleared(effective: Effective) -> tuple[Origin, Any] | None:
    """Return the mutation that removed the model's eos ids, and the ids before it."""
    field = effective.model_fields.get("eos_token_id")
    if field is None or field.value or field.origin.layer != "mutation":
        return None
    before = next((setting.value for setting in field.overrides if setting.value), None)
    return None if field.overrides and before is None else (field.origin, before)


def _preset_words(answer: Resolution) -> tuple[str | None, str | None]:
    if not answer.presets:
        return None, None
    from llmdoctor.gencfg.trainers import preset_advice

    for name in answer.presets:
        advice = preset_advice(name)
        if advice is not None:
            return advice
    return None, None


def wanted_ids(answer: Resolution, before: Any = None) -> list[int]:
    """Return the ids to stop at, as the files give them: those that were there before, the end of a turn, the tokenizer's eos_token."""
    field = answer.effective.fields.get("eos_token_id")
    earlier = [before, *(setting.value for setting in (field.overrides if field is not None else ()))]
    present = next((ids for value in earlier if (ids := [token for token in _ids(value) if is_id(token)])), [])
    if not present:
        config = (answer.call.config or {}).get("eos_token_id")
        present = [token for token in _ids(config.value if config is not None else None) if is_id(token)]
    return stop_ids_of(answer).wanted(present)


def _wanted(answer: Resolution, before: Any = None) -> Any:
    """Return the value to paste for eos_token_id."""
    wanted = wanted_ids(answer, before)
    if not wanted:
        return before or "<the id that ends a turn>"
    return wanted if len(wanted) > 1 or isinstance(before, list) else wanted[0]


def _same(field: Resolved | None, setting: SourcedValue) -> bool:
    return field is not None and field.origin == setting.origin


def _under(answer: Resolution) -> str:
    engine, _ = engine_named(answer.options.engine)
    return f"{engine.title} {answer.effective.transformers.removeprefix(f'{engine.name} ')}"


def _place(origin: Origin) -> Location | None:
    return None if origin.file is None else Location(origin.file, origin.pointer, origin.line)

"""A generate() of a trace as one side of a comparison: what the run has shown, in the same terms as what files predict."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

from llmdoctor.attach.records import Record
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.text import is_id, plural
from llmdoctor.gencfg.calls import default_version, resolve_files
from llmdoctor.gencfg.imports import Import
from llmdoctor.gencfg.layers import Fields
from llmdoctor.gencfg.modelconfig import LoadedModel
from llmdoctor.gencfg.options import GencfgOptions, split_trace
from llmdoctor.gencfg.resolve import resolve
from llmdoctor.gencfg.stop import stop_of
from llmdoctor.gencfg.trace.trace_file import TraceFile, as_written
from llmdoctor.gencfg.types import ConfigLayer, Effective, GenerateCall, LibraryError, Origin, Resolution, Resolved, SourcedValue, Wrapper
from llmdoctor.gencfg.versions import field_defaults, rules_for
from llmdoctor.modeldir.tokenizer import AddedToken, Tokenizer

_LAYERS = frozenset(get_args(ConfigLayer))
INTERRUPTS = ("KeyboardInterrupt", "SystemExit", "GeneratorExit")  # they end a run, and say nothing of the call


def ask_trace(side: GencfgOptions) -> Resolution:
    """The call that `run.jsonl#3` names, numbered from 1; without a number the first that never stops, else the first.

    Raises QuestionError where there is no such trace or call, and for options: what happened cannot be changed by them.
    """
    return _selected(side)[0]


def against_plain(left: GencfgOptions, right: GencfgOptions) -> tuple[Resolution, Resolution]:
    """A trace's call on the right, and on the left a plain generate() of the same model, as its directory has it now, else as it was
    loaded. `left`'s own options go to that generate()."""
    answer, record, load = _selected(replace(right, transformers=None))
    version, width = left.transformers or answer.effective.transformers, answer.call.prompt_length
    model = record.get("model")
    if isinstance(model, str) and os.path.isdir(model):
        plain = replace(left, model=model, transformers=version, prompt_length=left.prompt_length or width)
        return resolve_files(plain), answer
    if load is None:
        raise QuestionError(f"{right.model}: its model {model} is not here, and its load was not recorded: give the other side as well")
    call = GenerateCall(generation_config=_settings(load.get("generation_config"), load.get("provenance")), prompt_length=width)
    note = f"{model} is not here: the left side is the config as the run loaded it"
    return Resolution(replace(left, model=str(model)), answer.tokenizer, call, resolve(call, version), notes=(note,)), answer


def answer_of(record: Record, side: GencfgOptions | None = None, imports: Iterable[Record] = ()) -> Resolution:
    """A generate record as a Resolution. Unknown or missing parts of a record count as absent."""
    version = str(record.get("transformers") or default_version())
    minor, rules = rules_for(version)
    call = _call(record)
    fields = _fields(record.get("effective"), record.get("provenance"))
    default = Origin("library-default", f"transformers {version}")
    for name in field_defaults(minor):
        fields.setdefault(name, Resolved(None, default))
    model_fields = _fields(record.get("model_config"), record.get("model_provenance"))
    model = LoadedModel(
        fields=model_fields,
        stamp=None,
        from_config=False,
        config_fields={"vocab_size": record.get("vocab_size")},
        minor=minor,
        version=version,
    )
    stop = stop_of(fields, call, minor, model)
    custom = (record.get("custom") or {}).get("stopping_criteria") if isinstance(record.get("custom"), dict) else None
    if custom or isinstance(record.get("own"), str):
        stop = replace(stop, never_stops=False, because=None)
    if any(isinstance(each, dict) and each.get("stop_reason") in ("eos", "stop_string", "other") for each in record.get("sequences") or ()):
        stop = replace(stop, never_stops=False, because=None)  # seen to stop
    if record.get("batch") is True:  # its limit counts new tokens only
        limit = (record.get("effective") or {}).get("max_new_tokens")
        stop = replace(stop, limit=limit if isinstance(limit, int) else None)
    error = record.get("error")
    failed = None
    if isinstance(error, dict) and error.get("type") not in INTERRUPTS:
        failed = LibraryError(str(error.get("type")), str(error.get("message")), "generate")
    return Resolution(
        side or GencfgOptions(model=str(record.get("source"))),
        _tokenizer(record.get("terminators")),
        call,
        Effective(transformers=version, rules=rules, fields=fields, model_fields=model_fields, stop=stop, error=failed),
        presets=_presets(model_fields, fields),
        notes=(f"stopping_criteria {', '.join(map(str, custom))} may end it too",) if custom else (),
        imports=tuple(map(imported, imports)),
        unseen=record.get("model_seen") is False,
        from_trace=True,
        batch=record.get("batch") is True,
        wrapper=_wrapper(record.get("wrapper")),
    )


def imported(record: Record) -> Import:
    """An import record, read."""
    changed = record.get("changed")
    names = [str(entry.get("what")) for entry in (changed if isinstance(changed, list) else ()) if isinstance(entry, dict)]
    observed = record.get("observed")
    late = record.get("late") is True
    return Import(str(record.get("package")), str(record.get("source")), observed if isinstance(observed, int) else 0, tuple(names), late)


# --- inside -----------------------------------------------------------------------------------------------------------------------


def _selected(side: GencfgOptions) -> tuple[Resolution, Record, Record | None]:
    path, selector = split_trace(side.model)
    _refuse_options(side)
    if selector is not None and not (selector.isdecimal() and int(selector) > 0):
        raise QuestionError(f"{side.model}: {selector!r} is no call, expected a number from 1 as in {path}#3")
    reading, imports, loads = TraceFile(path), [], {}
    chosen, count = None, 0
    for record in reading.records():
        if record["kind"] == "import":
            imports.append(record)
        elif record["kind"] == "load":
            loads[str(record.get("model"))] = record
        elif record["kind"] == "generate":
            count += 1
            with as_written(record):
                chosen = _better(chosen, record, selector)
    if chosen is None:
        missing = "no generate() happened in it" if selector is None else f"no call {selector}, the trace has {plural(count, 'call')}"
        raise QuestionError(f"{side.model}: {missing}")
    with as_written(chosen):
        answer = answer_of(chosen, side, imports)
    if count > 1 and selector is None:
        note = f"{os.path.basename(path)}: call {chosen['call']} of {count}; {path}#N names another"
        answer = replace(answer, notes=(note, *answer.notes))
    return answer, chosen, loads.get(str(chosen.get("model")))


def _better(chosen: Record | None, record: Record, selector: str | None) -> Record | None:
    """The call a side stands for."""
    if selector is not None:
        return record if record["call"] == int(selector) else chosen
    if chosen is None:
        return record
    return record if runs_on(record) and not runs_on(chosen) else chosen


def runs_on(record: Record) -> bool:
    """Whether nothing could end a call's sequences before its limit."""
    return answer_of(record).effective.stop.never_stops


def _refuse_options(side: GencfgOptions) -> None:
    given = (
        side.config,
        side.sets,
        side.mutate,
        side.mutate_config,
        side.presets,
        side.transformers,
        side.engine,
        side.prompt_length,
        side.without,
    )
    if any(option not in (None, ()) for option in given):
        raise QuestionError(f"{side.model}: a trace is what happened, options such as --config or --set cannot change it")


def _call(record: Record) -> GenerateCall:
    provenance = record.get("provenance")
    user, width = record.get("user_config"), record.get("prompt_length")
    model = _settings(record.get("model_config"), record.get("model_provenance")) or {}
    return GenerateCall(
        generation_config={name: setting for name, setting in model.items() if setting.origin.layer == "generation_config.json"} or None,
        user_config=_settings(user, provenance) if isinstance(user, dict) else None,
        kwargs=_settings(record.get("kwargs"), provenance) or {},
        prompt_length=width if isinstance(width, int) and width >= 0 else 1,
    )


def _settings(values: Any, provenance: Any) -> dict[str, SourcedValue] | None:
    if not isinstance(values, dict):
        return None
    return {name: SourcedValue(value, _origin(provenance, name)) for name, value in values.items()}


def _fields(values: Any, provenance: Any) -> Fields:
    known = values if isinstance(values, dict) else {}
    recorded = provenance if isinstance(provenance, dict) else {}
    return Fields(
        {
            name: Resolved(known.get(name), _origin(recorded, name), _overrides(recorded, name))
            for name in dict.fromkeys((*known, *recorded))
        }
    )


def _origin(provenance: Any, name: str) -> Origin:
    recorded = provenance.get(name) if isinstance(provenance, dict) else None
    if not isinstance(recorded, dict):
        return Origin("library-default", "not recorded")
    line, file, pointer = recorded.get("line"), recorded.get("file"), recorded.get("pointer")
    return Origin(
        _layer(recorded),
        str(recorded.get("source")),
        os.path.relpath(file)
        if isinstance(file, str) and file.startswith(os.getcwd() + os.sep)
        else file
        if isinstance(file, str)
        else None,
        pointer if isinstance(pointer, str) else None,
        line if isinstance(line, int) and line > 0 else None,
    )


def _layer(recorded: Mapping[str, Any]) -> ConfigLayer:
    layer = recorded.get("layer")
    found: ConfigLayer = next((known for known in _LAYERS if known == layer), "derived")
    return found


def _overrides(provenance: Mapping[str, Any], name: str) -> tuple[SourcedValue, ...]:
    recorded = provenance.get(name)
    earlier = recorded.get("overrides") if isinstance(recorded, dict) else None
    return tuple(
        SourcedValue(entry.get("value"), Origin(_layer(entry), str(entry.get("source"))))
        for entry in (earlier if isinstance(earlier, list) else ())
        if isinstance(entry, dict)
    )


def _tokenizer(terminators: Any) -> Tokenizer:
    """The terminators' texts, as far as the run knew them."""
    known = terminators if isinstance(terminators, dict) else {}
    tokens = [(text, int(token)) for token, text in known.items() if isinstance(text, str) and token.lstrip("-").isdecimal()]
    return Tokenizer({text: AddedToken(token, text, True) for text, token in tokens}, {})


def _wrapper(recorded: Any) -> Wrapper | None:
    """Return the wrapper around the model that generated."""
    if not isinstance(recorded, dict):
        return None
    ids = recorded.get("eos_token_id")
    return Wrapper(str(recorded.get("class")), tuple(each for each in (ids if isinstance(ids, list) else ()) if is_id(each)))


def _presets(*layers: Fields) -> tuple[str, ...]:
    """Return the known trainers whose lines took the model's eos, or made the config that the call got."""
    found = {name for fields in layers if (name := _preset(fields)) is not None}
    return tuple(sorted(found))


def _preset(fields: Fields) -> str | None:
    eos = fields.get("eos_token_id")
    if eos is None or eos.origin.layer not in ("mutation", "user-config") or eos.origin.file is None or eos.origin.line is None:
        return None
    from llmdoctor.gencfg.trainers import preset_at

    library, _, rest = eos.origin.source.partition(" ")
    file = eos.origin.file.rpartition("/site-packages/")[2]
    return preset_at(library, rest.split(" ")[0], file, eos.origin.line)

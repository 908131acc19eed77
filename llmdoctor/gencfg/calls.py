"""From the options of a command to a GenerateCall, as the files of a model directory describe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmdoctor.configs.versions import version_of
from llmdoctor.core.errors import QuestionError
from llmdoctor.gencfg.engines.table import engine_named, version_for
from llmdoctor.gencfg.engines.types import ModelFacts
from llmdoctor.gencfg.options import GencfgOptions
from llmdoctor.gencfg.types import ConfigLayer, GenerateCall, Origin, Resolution, SourcedValue
from llmdoctor.modeldir.generating import no_generation

if TYPE_CHECKING:
    from llmdoctor.files.jsonfile import JsonFile
    from llmdoctor.gencfg.terminator import Terminator
    from llmdoctor.modeldir.directory import ModelDir


def resolve_files(options: GencfgOptions) -> Resolution:
    """Return the call that `options` describe, read from the model's files, and what it decodes with.

    Raises QuestionError if a file, a version, a preset or an option cannot be understood.
    """
    from llmdoctor.modeldir.directory import read_model_dir

    return resolve_directory(_with_engine(options), read_model_dir(options.model))


def _with_engine(options: GencfgOptions) -> GencfgOptions:
    """Return `options` for the engine that a trainer generates with, if the user names none."""
    if options.engine is not None or not options.presets:
        engine_named(options.engine)
        return options
    from llmdoctor.gencfg.trainers import load_preset

    return replace(options, engine=next((engine for name in options.presets if (engine := load_preset(name).engine)), None))


def resolve_directory(
    options: GencfgOptions,
    directory: ModelDir,
    *,
    request_defaults: Mapping[str, SourcedValue] | None = None,
    max_model_len: int | None = None,
) -> Resolution:
    """Return the call that `options` describe on the model in `directory`.

    `request_defaults` and `max_model_len` (tokens) come from the command line of a server; None if it does not set them.
    """
    engine, version = engine_named(options.engine)
    doubt = refuse_modelless(directory)
    call = without_keys(settings_given(model_call(directory, lines=True), options), options.without)
    call, notes, limits = _trained(call, options, directory)
    call = replace(call, mutations=call.mutations + tuple(_assignments(options.mutate, "--mutate", "mutation").items()))
    terminator, unrendered = _terminator(directory)
    limits = (*doubt, *limits, *unrendered)
    requested = version or (options.transformers if engine.keeps_assignments else None)
    facts = replace(facts_of(directory), request_defaults=request_defaults, max_model_len=max_model_len)
    effective = engine.resolve(call, facts, version_for(engine, requested, options.model).version)
    return Resolution(
        options=options,
        tokenizer=directory.tokenizer,
        call=call,
        effective=effective,
        presets=options.presets,
        notes=notes,
        limits=limits,
        terminator=terminator,
    )


def settings_given(call: GenerateCall, options: GencfgOptions) -> GenerateCall:
    """Return `call` with what the options pass to generate() or set on model.config."""
    return replace(
        call,
        user_config=_user_config(options.config),
        kwargs=_assignments(options.sets, "--set", "kwargs"),
        config_mutations=tuple(_assignments(options.mutate_config, "--mutate-config", "mutation").items()),
        prompt_length=1 if options.prompt_length is None else options.prompt_length,
        prompt_known=options.prompt_length is not None,
    )


def _terminator(directory: ModelDir) -> tuple[Terminator | None, tuple[str, ...]]:
    """Return what ends a turn by the chat template, and the clause for the verdict if the template cannot be rendered."""
    if directory.chat_template is None:
        return None, ()
    from llmdoctor.gencfg.turns import terminator_of
    from llmdoctor.modeldir.template import TemplateWorker

    with TemplateWorker() as worker:
        found, problems = terminator_of(directory, worker)
    unknown = bool(problems) and (found is None or found.id is None)
    return found, ("the end of a turn is unknown, because the chat template cannot be rendered",) if unknown else ()


def facts_of(directory: ModelDir) -> ModelFacts:
    """Return what engines read of the tokenizer beside the generation config."""
    eos = special_id(directory, "eos_token")
    base = directory.adapter.base if directory.adapter is not None else None
    tokenizer = directory.tokenizer if base is None else base.tokenizer
    return ModelFacts(
        tokenizer_eos=eos,
        tokenizer_pad=special_id(directory, "pad_token"),
        base_eos=eos if base is None else special_id(base, "eos_token"),
        id_of=tokenizer.id_of,
        has_tokenizer=bool(tokenizer.named or tokenizer.added or directory.tokenizer_config is not None),
    )


def refuse_modelless(directory: ModelDir) -> tuple[str, ...]:
    """Return the clause for the verdict if it is not known whether the model generates.

    Raises QuestionError if the directory holds no model that could be called.
    """
    for file in (directory.config, directory.generation_config):
        if file is not None and not isinstance(file.value, dict):
            raise QuestionError(_unreadable(file))
    if directory.config is None and directory.generation_config is None:
        if directory.adapter is not None:
            base = directory.adapter.name or "which adapter_config.json does not name"
            raise QuestionError(
                f"{directory.shown_name}: an adapter, whose base model ({base}) is not here: neither a local path nor in the hub cache"
            )
        raise QuestionError(f"{directory.shown_name}: no config.json and no generation_config.json, so there is no call to resolve")
    silent = no_generation(directory)
    if silent is not None and silent.certain:
        raise QuestionError(f"{directory.shown_name}: {silent.reason}, so there is no call to resolve")
    return () if silent is None else (silent.reason,)


def model_call(directory: ModelDir, *, lines: bool) -> GenerateCall:
    """Return a plain generate() of the directory's model; with `lines`, each value knows its line.

    A generation_config.json that is not JSON counts as missing: from_pretrained catches its OSError and reads config.json (4.37 to 5.23).
    """
    config, generation = _settings(directory.config, "config.json", lines), directory.generation_config
    if config is not None and directory.adapter is not None:
        from llmdoctor.gencfg.weights import adapter_rows

        rows = adapter_rows(directory.path)  # tokens were added, and the embedding was saved with the adapter
        config = config if rows is None else {**config, "vocab_size": SourcedValue(rows, Origin("config.json", "the adapter's embedding"))}
    return GenerateCall(config=config, generation_config=_settings(generation, "generation_config.json", lines))


def without_keys(call: GenerateCall, keys: tuple[str, ...]) -> GenerateCall:
    """Return `call` as if no file set `keys`. Raises QuestionError for a key that no file sets."""
    for key in keys:
        if not any(key in (settings or ()) for settings in (call.config, call.generation_config, call.user_config)):
            raise QuestionError(f"--without {key}: no file that was read sets {key}")

    def left(settings: Mapping[str, SourcedValue] | None) -> Mapping[str, SourcedValue] | None:
        return None if settings is None else {key: value for key, value in settings.items() if key not in keys}

    if not keys:
        return call
    return replace(call, config=left(call.config), generation_config=left(call.generation_config), user_config=left(call.user_config))


def default_version(near: str | None = None) -> str:
    """Return the version of transformers that an answer about `near` is for if none is asked for: pinned, installed, else the newest known."""
    return version_for(engine_named(None)[0], None, near).version


def special_id(directory: ModelDir, name: str) -> int | None:
    """Return the id of a special token such as "eos_token"; None if no file gives it."""
    found = directory.tokenizer.special(name)
    return None if found is None else found.id


def _trained(call: GenerateCall, options: GencfgOptions, directory: ModelDir) -> tuple[GenerateCall, tuple[str, ...], tuple[str, ...]]:
    """Return `call` after what the trainers do to it, what was assumed, and what the verdict depends on."""
    if not options.presets:
        return call, (), ()
    from llmdoctor.gencfg.trained import SpecialIds, Training, apply_preset, preset_limits, preset_notes
    from llmdoctor.gencfg.trainers import preset_versions

    tokens = SpecialIds(*(special_id(directory, name) for name in ("eos_token", "pad_token", "bos_token")))
    trl, reference = version_of("trl", known=preset_versions("trl"), near=options.model), engine_named(None)[0]
    transformers = version_of(reference.name, known=reference.known, named=options.transformers, near=options.model)
    training = Training(
        tokens=tokens,
        trl=trl.version if trl.basis == "pinned" else None,
        transformers=None if transformers.basis == "newest" else transformers.version,
    )
    own_call = options.config is None
    engine, _ = engine_named(options.engine)
    notes: list[str] = []
    limits: list[str] = []
    stated = (trl.pinned, *trl.doubts) if trl.basis == "pinned" else ()
    if any(name.startswith("trl-") and "@" not in name for name in options.presets):
        limits += [clause for clause in stated if clause is not None]
    for name in options.presets:
        call = apply_preset(name, call, training, own_call=own_call)
        notes += preset_notes(name, training)
        limits += preset_limits(name, training, own_call=own_call, engine=None if engine.keeps_assignments else engine.title)
    return call, tuple(notes), tuple(limits)


def _settings(file: JsonFile | None, layer: ConfigLayer, lines: bool) -> Mapping[str, SourcedValue] | None:
    if file is None or not isinstance(file.value, dict):
        return None
    return {key: SourcedValue(value, _origin(file, layer, key, lines)) for key, value in file.value.items()}


def _origin(file: JsonFile, layer: ConfigLayer, key: str, lines: bool) -> Origin:
    pointer = "/" + key.replace("~", "~0").replace("/", "~1")
    line = file.line(pointer) if lines else None
    name = file.shown_name.rsplit("/", 1)[-1]
    return Origin(layer, name if line is None else f"{name}:{line}", file.shown_name, pointer, line)


def _user_config(path: str | None) -> Mapping[str, SourcedValue] | None:
    if path is None:
        return None
    from llmdoctor.files.jsonfile import read_json_file

    file = read_json_file(path)
    if not isinstance(file.value, dict):
        raise QuestionError(_unreadable(file))
    return _settings(file, "user-config", lines=True)


def _unreadable(file: JsonFile) -> str:
    reason = next((problem.message for problem in file.problems), None)
    if reason is not None and file.value is None:
        return reason if file.shown_name in reason else f"{file.shown_name}: {reason}"
    return f"{file.shown_name}:1: expected a JSON object of generation settings, found {type(file.value).__name__}"


def _assignments(items: tuple[str, ...], option: str, layer: ConfigLayer) -> dict[str, SourcedValue]:
    import json

    out: dict[str, SourcedValue] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name.isidentifier():
            raise QuestionError(f"{option} {item}: expected NAME=JSON, such as eos_token_id=[151645,151643] or eos_token_id=null")
        try:
            value: Any = json.loads(text)
        except (ValueError, RecursionError):
            raise QuestionError(
                f"{option} {item}: the value of {name} is not JSON; write null for None, true for True, and text in double quotes"
            ) from None
        out[name] = SourcedValue(value, Origin(layer, f"{option} {name}"))
    return out

"""Calls on a GGUF file, an Ollama Modelfile, or the model of a server's command line."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

from llmdoctor.configs.modelfile import Modelfile, looks_like_modelfile, parse_modelfile
from llmdoctor.configs.serve_command import ServeCommand, find_command
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.text import is_id
from llmdoctor.files.gguf import GgufError, read_metadata
from llmdoctor.files.opening import Refusal, read_bytes
from llmdoctor.gencfg.calls import resolve_directory, settings_given
from llmdoctor.gencfg.engines.table import engine_named, engines, version_for
from llmdoctor.gencfg.engines.types import GenerationEngine, ModelFacts, ServeOptions
from llmdoctor.gencfg.options import GencfgOptions
from llmdoctor.gencfg.terminator import Terminator
from llmdoctor.gencfg.turns import terminator_in
from llmdoctor.gencfg.types import GenerateCall, Origin, Resolution, SourcedValue
from llmdoctor.modeldir.directory import read_model_dir
from llmdoctor.modeldir.template import ChatTemplate, TemplateWorker
from llmdoctor.modeldir.tokenizer import AddedToken, Tokenizer

_LIMIT = 2**20
_STOPS = ("eos_token_id", "eot_token_id", "eom_token_id")  # of tokenizer.ggml; the list eos_token_ids is Ollama's
_FILL_IN_THE_MIDDLE = ("fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id")  # llama-vocab.cpp:2876: they end generation too
_DEFAULT_EOS = {"llama": 2, "gpt2": 11, "t5": 1, "plamo2": 2}  # llama-vocab.cpp:1975 to :2105, by tokenizer.ggml.model
# llama-arch.cpp:171: what llama.cpp takes as defaults of every request.
_SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
_CONTROL, _USER_DEFINED = 3, 4  # llama.cpp llama.h: LLAMA_TOKEN_TYPE_CONTROL, LLAMA_TOKEN_TYPE_USER_DEFINED
_OLLAMA = {"num_predict": "max_new_tokens", "repeat_penalty": "repetition_penalty", "stop": "stop_strings"}
_OLLAMA_IGNORED = (
    "num_ctx",
    "num_keep",
    "num_batch",
    "num_gpu",
    "num_thread",
    "main_gpu",
    "use_mmap",
    "low_vram",
    "num_gqa",
    "draft_num_predict",
)


def resolve_served(options: GencfgOptions) -> Resolution:
    """Return the call that the file describes, under the engine that it belongs to.

    Raises QuestionError if the file is of another kind, is broken, or belongs to another engine than --engine names.
    """
    if options.model.endswith(".gguf"):
        _refuse_python(options)
        return _resolve_gguf(options)
    data = read_bytes(options.model, _LIMIT)
    if not isinstance(data, bytes):
        raise QuestionError(f"{options.model}: {data.reason if isinstance(data, Refusal) else 'there is no such file'}")
    text = data.decode("utf-8", "replace")
    if looks_like_modelfile(os.path.basename(options.model), text):
        _refuse_python(options)
        return _resolve_modelfile(options, parse_modelfile(text))
    candidates = [(engine, serve) for engine in engines().values() for serve in engine.serve]
    found = find_command(text, [serve.words for _, serve in candidates])
    if found is None:
        known = ", ".join(" ".join(serve.words) for _, serve in candidates)
        raise QuestionError(
            f"{options.model}: expected a model directory, a generation_config.json, a trace, a GGUF file, a Modelfile, "
            f"or a file with a command line of a server ({known})"
        )
    engine, serve = candidates[found[0]]
    return _resolve_command(options, engine, serve, found[1])


def _refuse_python(options: GencfgOptions) -> None:
    """Raise QuestionError for options that concern a model in Python, or keys of JSON files."""
    given = {
        "--preset": options.presets,
        "--mutate": options.mutate,
        "--mutate-config": options.mutate_config,
        "--without": options.without,
    }
    named = [name for name, value in given.items() if value]
    if named:
        raise QuestionError(f"{options.model}: {', '.join(named)} cannot be used with this kind of file: no model in Python reads it")


# --- GGUF -------------------------------------------------------------------------------------------------------------------------


def _resolve_gguf(options: GencfgOptions, modelfile: Modelfile | None = None, path: str | None = None) -> Resolution:
    engine = _engine(options, "ollama") if modelfile is not None else _engine(options, "llama.cpp", "ollama")
    file = path or options.model
    metadata = _metadata(file)
    call, tokenizer = gguf_call(metadata, file)
    call = settings_given(call, options)
    if modelfile is not None:
        call = _with_parameters(call, options.model, modelfile)
    context = _context(metadata) if modelfile is None else _num_ctx(modelfile)
    facts = ModelFacts(id_of=tokenizer.id_of, is_gguf=True, max_model_len=context)
    effective = engine.resolve(call, facts, _version(options, engine))
    template = metadata.get("tokenizer.chat_template")
    terminator = _terminator(template, tokenizer, file) if isinstance(template, str) else None
    limits = [] if terminator is not None else [f"{file} has no chat template, so the end of a turn is not known"]
    limits += [] if modelfile is None else _unread_lines(options.model, modelfile)
    return Resolution(_for_engine(options, engine), tokenizer, call, effective, limits=tuple(limits), terminator=terminator)


def _metadata(path: str) -> dict[str, Any]:
    try:
        return read_metadata(path)
    except GgufError as error:
        raise QuestionError(f"{path}: {error}") from None
    except OSError as error:
        raise QuestionError(f"{path}: {error.strerror or error}") from None


def gguf_call(metadata: dict[str, Any], path: str) -> tuple[GenerateCall, Tokenizer]:
    """Return a plain call of a GGUF file and its tokenizer, from its metadata."""
    name = os.path.basename(path)
    texts = [text for text in metadata.get("tokenizer.ggml.tokens") or () if isinstance(text, str)]
    kinds = metadata.get("tokenizer.ggml.token_type") or []
    added = {
        text: AddedToken(at, text, kinds[at] == _CONTROL)
        for at, text in enumerate(texts)
        if at < len(kinds) and kinds[at] in (_CONTROL, _USER_DEFINED)
    }
    vocabulary = json.dumps({text: at for at, text in enumerate(texts)}).encode()
    architecture = metadata.get("general.architecture")
    config: dict[str, Any] = {"model_type": architecture, "max_position_embeddings": _context(metadata)}
    config |= {"vocab_size": len(texts)} if texts else {}
    generation = {**_stop_ids(metadata, name, path, len(texts)), **_sampling(metadata, name, path)}
    values = {key: SourcedValue(value, Origin("model-file", name, path)) for key, value in config.items()}
    return GenerateCall(config=values, generation_config=generation), Tokenizer(added, {}, vocabulary)


def _stop_ids(metadata: dict[str, Any], name: str, path: str, size: int) -> dict[str, SourcedValue]:
    """Return the stop ids of the metadata; without eos_token_id llama.cpp takes a default of the kind of vocabulary."""
    keys = [key for key in _STOPS if is_id(metadata.get(f"tokenizer.ggml.{key}"))]
    ids = [metadata[f"tokenizer.ggml.{key}"] for key in keys]
    more = metadata.get("tokenizer.ggml.eos_token_ids")
    if isinstance(more, list):
        keys.append("eos_token_ids")
        ids += [item for item in more if is_id(item)]
    default = _DEFAULT_EOS.get(metadata.get("tokenizer.ggml.model") or "")
    if "eos_token_id" not in keys and default is not None and default < size:
        keys.insert(0, f"no eos_token_id, so the default of a {metadata['tokenizer.ggml.model']} vocabulary")
        ids.insert(0, default)
    fill = [metadata[f"tokenizer.ggml.{key}"] for key in _FILL_IN_THE_MIDDLE if is_id(metadata.get(f"tokenizer.ggml.{key}"))]
    found = {"fill_in_the_middle_ids": SourcedValue(fill, Origin("model-file", f"{name} fim_..._token_id", path))} if fill else {}
    if ids:
        found["eos_token_id"] = SourcedValue(list(dict.fromkeys(ids)), Origin("model-file", f"{name} {', '.join(keys)}", path))
    return found


def _sampling(metadata: dict[str, Any], name: str, path: str) -> dict[str, SourcedValue]:
    """Return the sampling defaults of the metadata, in transformers' names."""
    found = {}
    for key, ours in _SAMPLING.items():
        value = metadata.get(f"general.sampling.{key}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            shown = round(value, 6) if isinstance(value, float) else value  # stored with 32 bits: 0.6 is 0.6000000238
            found[ours] = SourcedValue(shown, Origin("model-file", f"{name} general.sampling.{key}", path))
    return found


def _context(metadata: dict[str, Any]) -> int | None:
    found = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _terminator(template: str, tokenizer: Tokenizer, path: str) -> Terminator | None:
    with TemplateWorker() as worker:
        return terminator_in(ChatTemplate("default", template, path), tokenizer, worker)[0]


# --- Modelfile --------------------------------------------------------------------------------------------------------------------


def _resolve_modelfile(options: GencfgOptions, modelfile: Modelfile) -> Resolution:
    base = modelfile.base or ""
    for candidate in (os.path.join(os.path.dirname(options.model), base), base):
        if candidate.endswith(".gguf") and os.path.isfile(candidate):
            return _resolve_gguf(options, modelfile, candidate)
    engine = _engine(options, "ollama")
    call = _with_parameters(settings_given(GenerateCall(), options), options.model, modelfile)
    effective = engine.resolve(call, ModelFacts(max_model_len=_num_ctx(modelfile)), _version(options, engine))
    stop = replace(effective.stop, never_stops=False, because=None)
    limit = f"FROM {base}: that GGUF file is not here, so its own stop ids and its template are not known"
    limits = (limit, *_unread_lines(options.model, modelfile))
    return Resolution(_for_engine(options, engine), Tokenizer({}, {}), call, replace(effective, stop=stop), limits=limits)


def _num_ctx(modelfile: Modelfile) -> int | None:
    """Return the context in tokens that the Modelfile sets; without one Ollama decides by its release and the memory of the GPU."""
    found = [_number(item.value) for item in modelfile.parameters if item.name == "num_ctx"]
    return found[-1] if found and is_id(found[-1]) and found[-1] > 0 else None


def _unread_lines(path: str, modelfile: Modelfile) -> list[str]:
    """Return a clause for each line that is not an instruction."""
    return [f"{path}:{line} is not an instruction of a Modelfile: {text[:40]}" for line, text in list(modelfile.unknown.items())[:3]]


def _with_parameters(call: GenerateCall, path: str, modelfile: Modelfile) -> GenerateCall:
    """Return `call` with the PARAMETER lines as the settings of its request; what the request sets itself has the last word."""
    name = os.path.basename(path)
    given: dict[str, SourcedValue] = {}
    stops: list[str] = []
    for item in modelfile.parameters:
        ours = _OLLAMA.get(item.name, item.name)
        value: Any = _number(item.value)
        if ours == "stop_strings":
            stops.append(item.value)
            value = list(stops)
        elif ours in ("max_new_tokens",) and isinstance(value, int) and value < 0:
            continue  # -1: until the context is full
        if item.name not in _OLLAMA_IGNORED:
            given[ours] = SourcedValue(value, Origin("model-file", f"{name}:{item.line}", path, None, item.line))
    return replace(call, user_config={**given, **(call.user_config or {})})


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# --- a server's command line ------------------------------------------------------------------------------------------------------


def _resolve_command(options: GencfgOptions, engine: GenerationEngine, serve: ServeOptions, command: ServeCommand) -> Resolution:
    _engine(options, engine.name)
    given = {**_yaml_options(options.model, serve, command), **command.options}
    model = given.get(serve.model) if serve.model is not None else next(iter(command.words), given.get("--model"))
    if model is None:
        raise QuestionError(f"{options.model}:{command.line}: the command line names no model")
    here = os.path.join(os.path.dirname(options.model), model)
    directory = read_model_dir(here if os.path.isdir(here) else model)
    defaults, limits = _request_defaults(options.model, serve, command.line, given, directory)
    context = _tokens(given.get(serve.context)) if serve.context is not None else None
    if serve.context in given and context is None:
        limits.append(f"{serve.context} {given[serve.context]} is not a number of tokens: the context of config.json was taken")
    if serve.tokenizer in given:
        limits.append(f"{serve.tokenizer} {given[serve.tokenizer]}: the tokenizer of {model} was read instead")
    inner = replace(_for_engine(options, engine), model=directory.path)
    found = resolve_directory(inner, directory, request_defaults=defaults, max_model_len=context)
    return replace(found, options=replace(inner, model=options.model), limits=(*found.limits, *limits))


def _request_defaults(
    path: str, serve: ServeOptions, line: int, given: dict[str, str], directory: Any
) -> tuple[dict[str, SourcedValue] | None, list[str]]:
    """Return what the command line puts under every request (None: what generation_config.json has), and what could not be read."""
    source = given.get(serve.defaults) if serve.defaults is not None else None
    override = given.get(serve.override) if serve.override is not None else None
    limits = []
    if source not in (None, "auto", "model", serve.own_defaults):
        limits.append(f"{serve.defaults} {source}: the generation_config.json of the model was read instead")
    if source != serve.own_defaults and override is None:
        return None, limits
    file = directory.generation_config.value if directory.generation_config is not None else None
    origin = Origin("generation_config.json", "generation_config.json")
    kept = {} if source == serve.own_defaults or not isinstance(file, dict) else file
    fields = next(engine.file_defaults for engine in engines().values() if serve in engine.serve)
    values = {name: SourcedValue(value, origin) for name, value in kept.items() if name in fields and value is not None}
    if override is not None:
        try:
            added = json.loads(override)
        except ValueError:
            raise QuestionError(f"{path}:{line}: {serve.override} {override}: expected a JSON object") from None
        place = Origin("server", f"{os.path.basename(path)}:{line} {serve.override}", path, None, line)
        values |= {name: SourcedValue(value, place) for name, value in added.items() if name in fields}
        other = [name for name in added if name not in fields]
        limits += [f"{serve.override} {', '.join(other)}: no default of a request"] if other else []
    return values, limits


def _yaml_options(path: str, serve: ServeOptions, command: ServeCommand) -> dict[str, str]:
    name = command.options.get(serve.yaml or "")
    if serve.yaml is None or name is None:
        return {}
    from llmdoctor.files.yamlfile import parse_yaml

    file = os.path.join(os.path.dirname(path), name)
    data = read_bytes(file if os.path.isfile(file) else name, _LIMIT)
    if not isinstance(data, bytes):
        raise QuestionError(f"{path}:{command.line}: {serve.yaml} {name}: the file cannot be read")
    value = parse_yaml(data, name, name).value
    if not isinstance(value, dict):
        raise QuestionError(f"{name}: expected a mapping of options")
    return {
        f"--{str(key).replace('_', '-')}": item if isinstance(item, str) else json.dumps(item)
        for key, item in value.items()
        if item is not None
    }


def _tokens(text: str | None) -> int | None:
    """Return a number of tokens such as "32768", "32k" (thousands) or "32K" (1,024)."""
    import re

    match = re.fullmatch(r"(\d{1,9})([kKmM]?)", text or "")
    return None if match is None else int(match[1]) * {"": 1, "k": 1000, "K": 1024, "m": 10**6, "M": 2**20}[match[2]]


def _engine(options: GencfgOptions, *names: str) -> GenerationEngine:
    """Return the engine that a file belongs to, the first of `names` by default. Raises QuestionError if --engine names another one."""
    if options.engine is None:
        return engine_named(names[0])[0]
    engine, _ = engine_named(options.engine)
    if engine.name not in names:
        raise QuestionError(f"{options.model}: a file for {' or '.join(names)}, but --engine names {options.engine}")
    return engine


def _version(options: GencfgOptions, engine: GenerationEngine) -> str:
    """Return the version of the engine that the answer is for."""
    return version_for(engine, engine_named(options.engine)[1] if options.engine else None, options.model).version


def _for_engine(options: GencfgOptions, engine: GenerationEngine) -> GencfgOptions:
    """Return `options` with the engine that the file belongs to; what the user named, version included, is kept."""
    return options if options.engine is not None else replace(options, engine=engine.name)

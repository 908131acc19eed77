"""What vLLM makes of a request on a model directory: hidden defaults, stop ids, greedy decoding, limits. Nothing of vLLM is imported.

Lines are those of vLLM 0.33.0 (with transformers 5.16 to 5.20); vllm_releases.py has what other releases do. Field names are those of
transformers, so that the two can be compared:
max_new_tokens is vLLM's max_tokens, min_new_tokens its min_tokens, eos_token_id every id at which it stops, stop_strings its stop,
num_return_sequences its n. do_sample is derived: vLLM has no such setting, a temperature below 1e-5 is greedy.

- A chat or completions request: its own values, else generation_config.json's (`--generation-config auto`, the default since 0.8;
  config/model.py:1860 get_diff_sampling_param), else SamplingParams' (entrypoints/openai/chat_completion/protocol.py:748).
- LLM.generate(): the SamplingParams passed, as they are; only if none are passed, generation_config.json's (entrypoints/llm.py:410).
- Stop ids, either way: the tokenizer's eos, and generation_config.json's (sampling_params.py:775 update_from_generation_config). Without
  that file, config.json's, with the defaults of its class (transformers_utils/config.py:1275).
- Limit: a chat request without max_tokens may fill the context (serve/utils/api_utils.py:234); LLM.generate() stops after 16 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from llmdoctor.core.release import release as numbers_of
from llmdoctor.gencfg.engines.class_eos import class_eos
from llmdoctor.gencfg.engines.types import GenerationEngine, ModelFacts, ServeOptions
from llmdoctor.gencfg.engines.vllm_checks import EPSILON, LOWEST_TEMPERATURE, model_length, plain, refusal, text_config
from llmdoctor.gencfg.engines.vllm_releases import KNOWN, NEWEST, VllmRelease, vllm_release
from llmdoctor.gencfg.layers import Fields
from llmdoctor.gencfg.types import Effective, GenerateCall, LibraryError, Origin, Resolved, SourcedValue, Stop

Entrypoint = Literal["chat", "generate"]

# transformers' name -> (vLLM's name, its default, the line in sampling_params.py).
_PARAMETERS: dict[str, tuple[str, Any, int]] = {
    "num_return_sequences": ("n", 1, 285),
    "presence_penalty": ("presence_penalty", 0.0, 296),
    "frequency_penalty": ("frequency_penalty", 0.0, 300),
    "repetition_penalty": ("repetition_penalty", 1.0, 304),
    "temperature": ("temperature", 1.0, 308),
    "top_p": ("top_p", 1.0, 315),
    "top_k": ("top_k", 0, 318),
    "min_p": ("min_p", 0.0, 321),
    "seed": ("seed", None, 325),
    "stop_strings": ("stop", None, 327),
    "ignore_eos": ("ignore_eos", False, 334),
    "max_new_tokens": ("max_tokens", 16, 337),
    "min_new_tokens": ("min_tokens", 0, 339),
}
_OURS = {theirs: ours for ours, (theirs, _, _) in _PARAMETERS.items()}
_INTEGERS = ("num_return_sequences", "top_k", "max_new_tokens", "min_new_tokens", "seed")
# What generation_config.json supplies to a request (config/model.py:1882 available_params), in transformers' names.
FROM_FILE = ("repetition_penalty", "presence_penalty", "frequency_penalty", "temperature", "top_k", "top_p", "min_p", "max_new_tokens")
_LATER_FROM_FILE = ("presence_penalty", "frequency_penalty")
# Fields of the file that shape decoding in transformers and that vLLM does not read.
_UNREAD = frozenset(
    (
        *("num_beams", "length_penalty", "early_stopping", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens"),
        *("begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "sequence_bias", "typical_p", "epsilon_cutoff"),
        *("eta_cutoff", "top_h", "min_new_tokens", "min_length", "max_length", "stop_strings", "guidance_scale", "penalty_alpha"),
        *("exponential_decay_length_penalty", "renormalize_logits"),
    )
)
# Flags of a GenerationConfig that change no token: not worth a word.
_HARMLESS = frozenset(
    (
        *("do_sample", "return_dict_in_generate", "output_scores", "output_logits", "output_attentions", "output_hidden_states"),
        *("use_cache", "pad_token_id", "bos_token_id", "transformers_version", "max_time", "cache_implementation", "cache_config"),
        *("disable_compile", "use_model_defaults"),
    )
)


def effective_vllm(
    call: GenerateCall,
    *,
    tokenizer_eos: int | None,
    max_model_len: int | None = None,
    entrypoint: Entrypoint = "chat",
    defaults: Mapping[str, SourcedValue] | None = None,
    version: str = NEWEST,
) -> Effective:
    """Return the settings of a request that carries the user config and keyword arguments of `call`, in one release of vLLM.

    `tokenizer_eos` is the tokenizer's eos id. `max_model_len` is the server's; None derives it from config.json (the tokenizer's
    model_max_length, which vLLM also looks at, is the caller's to pass). `entrypoint` is "chat", the OpenAI server, or "generate",
    LLM.generate(). A request that vLLM refuses is an answer: `error`.
    """
    release = vllm_release(version)
    length = max_model_len or model_length(call)
    fields = _defaults(entrypoint, call, length, release)
    request = _request(call)
    warnings = [*_warnings(call, entrypoint, bool(request), defaults is None, release)]
    under = _file_defaults(call, release) if defaults is None else dict(defaults)
    defaults_below = under if entrypoint == "chat" or not request else {}
    fields.put_all(defaults_below)
    for name, setting in request.items():
        if name in _PARAMETERS:
            fields.put(name, setting)
    _lower_limit(fields, defaults_below, release, entrypoint)
    _stop_ids(fields, call, request.get("eos_token_id"), tokenizer_eos, release)
    model_fields = {name: Resolved(setting.value, setting.origin) for name, setting in {**defaults_below, **_file_eos(call)}.items()}
    error = _refused(fields, call, request, length, entrypoint, release=release)
    if error is None:
        _adjust(fields, call, length, entrypoint, release)
    return Effective(
        transformers=release.name,
        rules=rules_of(version),
        fields=fields,
        model_fields=model_fields,
        stop=_stop(fields, call),
        error=error,
        warnings=tuple(warnings),
    )


# --- the request ------------------------------------------------------------------------------------------------------------------


def rules_of(version: str) -> str:
    """Return the known release whose rules apply."""
    return next((known for known in reversed(KNOWN) if numbers_of(known) <= numbers_of(version)), KNOWN[0])


def _lower_limit(fields: Fields, below: Mapping[str, SourcedValue], release: VllmRelease, entrypoint: Entrypoint) -> None:
    """Until 0.16 the server takes the lower one of the request's and the file's limit (get_max_tokens)."""
    file, limit = below.get("max_new_tokens"), fields.value("max_new_tokens")
    if release.lower_limit and entrypoint == "chat" and file is not None and _whole(file.value) and _whole(limit) and file.value < limit:
        fields.put("max_new_tokens", file)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _defaults(entrypoint: Entrypoint, call: GenerateCall, length: int | None, release: VllmRelease) -> Fields:
    fields = Fields()
    for name, (theirs, value, line) in _PARAMETERS.items():
        fields[name] = Resolved(
            value, Origin("library-default", f"{release.name} SamplingParams.{theirs}", "vllm/sampling_params.py", None, release.line(line))
        )
    if entrypoint == "chat":
        room = None if length is None else length - call.prompt_length
        said = (
            f"{release.name}: the context, {length}, less the prompt, {call.prompt_length}"
            if length is not None
            else f"{release.name}: the context"
        )
        fields["max_new_tokens"] = Resolved(room, _derived(said, "vllm/entrypoints/serve/utils/api_utils.py", release.line(253)))
    return fields


def _request(call: GenerateCall) -> dict[str, SourcedValue]:
    """The request's values by transformers' names, those left None dropped; keyword arguments come after the config."""
    request: dict[str, SourcedValue] = {}
    for name, setting in [*(call.user_config or {}).items(), *call.kwargs.items()]:
        ours = "eos_token_id" if name == "stop_token_ids" else _OURS.get(name, name)
        if setting.value is None:
            request.pop(ours, None)
        elif ours in _PARAMETERS or ours == "eos_token_id":
            request[ours] = setting
    return request


def _file_defaults(call: GenerateCall, release: VllmRelease) -> dict[str, SourcedValue]:
    """What generation_config.json puts under every request. A file that is not there puts nothing: config.json gives no sampling values."""
    file = call.generation_config or {}
    read = FROM_FILE if release.file_penalties else tuple(name for name in FROM_FILE if name not in _LATER_FROM_FILE)
    return {name: file[name] for name in read if name in file and file[name].value is not None}


def _coerced(value: Any, name: str) -> Any:
    """A whole float where the server's request model wants an int (pydantic's lax mode)."""
    return int(value) if name in _INTEGERS and isinstance(value, float) and value.is_integer() else value


def _warnings(call: GenerateCall, entrypoint: Entrypoint, requested: bool, from_file: bool, release: VllmRelease) -> list[str]:
    said = []
    if call.mutations or call.config_mutations:
        said.append("assignments on a model in Python do not reach vLLM: it reads the directory's files")
    own = {**(call.user_config or {}), **call.kwargs}
    foreign = sorted(
        name
        for name, setting in own.items()
        if setting.value is not None and name not in _PARAMETERS and name not in _OURS and name not in _HARMLESS
        if name not in ("eos_token_id", "stop_token_ids")
    )
    if foreign:
        said.append(f"vLLM has no {', '.join(foreign)}: not taken over from the call")
    unread = sorted(
        name
        for name, setting in (call.generation_config or {}).items()
        if setting.value not in (None, False) and (name in _UNREAD or (name in _LATER_FROM_FILE and not release.file_penalties))
    )
    if unread:
        said.append(f"vLLM does not read {', '.join(unread)} from generation_config.json")
    greedy = [source for source in (own, call.generation_config or {}) if "do_sample" in source and source["do_sample"].value is False]
    if greedy:
        said.append("do_sample=False does not reach vLLM: there, temperature 0 is greedy")
    defaults_below = _file_defaults(call, release) if from_file else {}
    if defaults_below and entrypoint == "generate" and requested:
        said.append(
            f"SamplingParams passed to LLM.generate() take nothing from generation_config.json ({', '.join(defaults_below)} unused)"
        )
    elif defaults_below:
        said.append(
            f"generation_config.json sets {', '.join(defaults_below)} under every request that does not; not before vLLM 0.8, and not "
            "with --generation-config vllm"
        )
    return said


# --- stop ids ---------------------------------------------------------------------------------------------------------------------


def _file_eos(call: GenerateCall) -> dict[str, SourcedValue]:
    """eos_token_id of generation_config.json; without that file config.json's, its language model's, its class's."""
    if call.generation_config is not None:
        found = call.generation_config.get("eos_token_id")
        return {} if found is None or found.value is None else {"eos_token_id": found}
    config = call.config or {}
    if "eos_token_id" in config and config["eos_token_id"].value is not None:
        return {"eos_token_id": config["eos_token_id"]}
    inner, origin = text_config(config)
    if origin is not None and inner.get("eos_token_id") is not None:
        return {"eos_token_id": SourcedValue(inner["eos_token_id"], origin)}
    return class_eos(config)


def _stop_ids(fields: Fields, call: GenerateCall, own: SourcedValue | None, tokenizer_eos: int | None, release: VllmRelease) -> None:
    """Fill fields["eos_token_id"] with every id that ends a sequence, the files' first, in their order."""
    file = _file_eos(call).get("eos_token_id")
    ignoring = bool(fields.value("ignore_eos"))
    origin = Origin("library-default", f"{release.name} SamplingParams.stop_token_ids", "vllm/sampling_params.py", None, release.line(330))
    fields["eos_token_id"] = Resolved(None, origin)
    if file is not None and not ignoring:
        fields.put("eos_token_id", file)
    if tokenizer_eos is not None and not ignoring and tokenizer_eos not in _ids(fields.value("eos_token_id")):
        with_file = f" and {file.origin.source}" if file is not None and _ids(file.value) else ""
        both = [*_ids(fields.value("eos_token_id")), tokenizer_eos]
        fields.put(
            "eos_token_id",
            SourcedValue(both, _sampling(f"{release.name}: the tokenizer's eos{with_file}", 775, release)),
        )
    if own is not None and (more := [item for item in _ids(own.value) if item not in _ids(fields.value("eos_token_id"))]):
        fields.put("eos_token_id", SourcedValue([*_ids(fields.value("eos_token_id")), *more], own.origin))


def _ids(value: Any) -> list[int]:
    """Return the ids in an eos_token_id: an int or a list of them; other values end nothing."""
    values = value if isinstance(value, list | tuple) else [value]
    return list(dict.fromkeys(item for item in values if isinstance(item, int) and not isinstance(item, bool)))


def _stop(fields: Fields, call: GenerateCall) -> Stop:
    ids = tuple(_ids(fields.value("eos_token_id")))
    limit = fields.value("max_new_tokens")
    limit = limit if isinstance(limit, int) else None
    because = _why_never(fields, call, ids, limit)
    return Stop(ids, None, limit, because is not None, because)


def _why_never(fields: Fields, call: GenerateCall, ids: tuple[int, ...], limit: int | None) -> str | None:
    if not ids and not fields.value("stop_strings"):
        return "ignore_eos is set" if fields.value("ignore_eos") else "there is no eos_token_id, neither the tokenizer's nor a file's"
    least = fields.value("min_new_tokens")
    if limit is not None and isinstance(least, int) and least >= limit:
        return f"min_new_tokens {least} forbids every stop id up to the limit"
    inner = text_config(call.config or {})[0]
    size = next((item for item in (plain(call.config, "vocab_size"), inner.get("vocab_size")) if isinstance(item, int)), None)
    if not fields.value("stop_strings") and all(item < 0 or (size is not None and item >= size) for item in ids):
        return f"every eos_token_id is outside the vocabulary{f' of {size}' if size is not None else ''}"
    return None


# --- limits, greedy, errors -------------------------------------------------------------------------------------------------------


def _adjust(fields: Fields, call: GenerateCall, length: int | None, entrypoint: Entrypoint, release: VllmRelease) -> None:
    """What SamplingParams.__post_init__ and the server make of values that they accept, in place."""
    temperature = fields.value("temperature")
    if 0 < temperature < LOWEST_TEMPERATURE:
        temperature = LOWEST_TEMPERATURE
        fields.put(
            "temperature",
            SourcedValue(temperature, _sampling(f"{release.name}: the lowest temperature", 568, release)),
        )
    greedy = temperature < EPSILON
    if greedy:
        for name, off in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0)):
            if fields.value(name) != off:
                fields.put(
                    name,
                    SourcedValue(off, _sampling(f"{release.name}: temperature 0 is greedy", 617, release)),
                )
    fields["do_sample"] = Resolved(not greedy, _sampling(f"{release.name}: temperature {temperature:g}", 615, release))
    if entrypoint == "chat":
        for name in _INTEGERS:
            found = fields.get(name)
            if found is not None and isinstance(found.value, float):
                fields[name] = Resolved(_coerced(found.value, name), found.origin, found.overrides)
    _cap(fields, call, length, release)


def _cap(fields: Fields, call: GenerateCall, length: int | None, release: VllmRelease) -> None:
    """The context is the last limit, whatever was asked for."""
    limit = fields.value("max_new_tokens")
    room = None if length is None else length - call.prompt_length
    if room is not None and (limit is None or limit > room):
        said = f"{release.name}: the context, {length}, less the prompt, {call.prompt_length}"
        fields.put("max_new_tokens", SourcedValue(room, _derived(said, "vllm/entrypoints/serve/utils/api_utils.py", release.line(253))))


def _refused(
    fields: Fields,
    call: GenerateCall,
    request: Mapping[str, SourcedValue],
    length: int | None,
    entrypoint: Entrypoint,
    *,
    release: VllmRelease,
) -> LibraryError | None:
    """The exception that the request ends in, or None."""
    values = {name: field.value for name, field in fields.items()}
    if entrypoint == "chat":
        for name in request.keys() & set(_INTEGERS):
            values[name] = _coerced(values[name], name)
            if isinstance(values[name], float):
                message = f"{_PARAMETERS[name][0]}: Input should be a valid integer, got a number with a fractional part"
                return LibraryError("ValidationError", message, "generate")
        own = values["max_new_tokens"] if "max_new_tokens" in request else None
        if release.sums_lengths and length is not None and isinstance(own, int) and own + call.prompt_length > length:
            message = (
                f"'max_tokens' or 'max_completion_tokens' is too large: {own}. This model's maximum context length is {length} tokens and your "
                f"request has {call.prompt_length} input tokens ({own} > {length} - {call.prompt_length})."
            )
            return LibraryError(release.error_type("max_tokens must be"), message, "generate")
        if length is not None and isinstance(own, int) and own > length:
            message = f"max_tokens={own} cannot be greater than max_model_len={length}. Please request fewer output tokens."
            return LibraryError("VLLMValidationError", message, "generate")
    if length is not None and call.prompt_length > length:
        message = f"Input length ({call.prompt_length}) exceeds model's maximum context length ({length})."
        return LibraryError("ValueError", message, "generate")
    if entrypoint == "chat" and length is not None and isinstance(values["max_new_tokens"], int):
        values["max_new_tokens"] = min(values["max_new_tokens"], length - call.prompt_length)
    try:
        refused = refusal(values, release)
    except (TypeError, OverflowError) as error:  # SamplingParams compares a string, or a number that is too large
        return LibraryError(type(error).__name__, str(error), "generate")
    return None if refused is None else LibraryError(release.error_type(refused), refused, "generate")


def _sampling(source: str, line: int, release: VllmRelease) -> Origin:
    return _derived(source, "vllm/sampling_params.py", release.line(line))


def _derived(source: str, file: str, line: int | None) -> Origin:
    return Origin("derived", source, file, None, line)


# --- the entry --------------------------------------------------------------------------------------------------------------------


def _resolve(call: GenerateCall, facts: ModelFacts, version: str) -> Effective:
    return effective_vllm(
        call,
        tokenizer_eos=facts.tokenizer_eos if vllm_release(version).adapter_tokenizer else facts.base_eos,
        max_model_len=facts.max_model_len,
        defaults=facts.request_defaults,
        version=version,
    )


def _stop_fix(ids: Sequence[int]) -> str:
    return f'"stop_token_ids": {list(ids)}   in the request, or SamplingParams(stop_token_ids={list(ids)})'


_SERVE: dict[str, str] = {
    "tokenizer": "--tokenizer",
    "defaults": "--generation-config",
    "own_defaults": "vllm",
    "override": "--override-generation-config",
    "context": "--max-model-len",
    "yaml": "--config",
}
ENGINE = GenerationEngine(
    name="vllm",
    title="vLLM",
    distribution="vllm",
    known=KNOWN,
    evidence="measured",
    source="vllm 0.10.0 to 0.33.0, 25 releases: their checks of a request and their stop ids were run (sampling_params.py, "
    "conformance/compare_vllm.py); read: config/model.py, entrypoints/",
    resolve=_resolve,
    acts_on=frozenset((*_PARAMETERS, "eos_token_id", "do_sample")),
    neutral={
        **{name: default for name, (_, default, _) in _PARAMETERS.items()},
        "do_sample": False,
        "max_new_tokens": None,
        "stop_strings": [],
    },
    stops="vLLM stops at the tokenizer's eos_token, at eos_token_id of generation_config.json (config.json's without that file), and at "
    "stop_token_ids and stop of the request.",
    ignores="vLLM ignores do_sample, stop_strings, suppress_tokens and every field of generation_config.json other than "
    "eos_token_id, temperature, top_k, top_p, min_p, the penalties and max_new_tokens.",
    stop_fix=_stop_fix,
    file_defaults=FROM_FILE,
    serve=(
        ServeOptions(words=("vllm", "serve"), **_SERVE),
        ServeOptions(words=("-m", "vllm.entrypoints.openai.api_server"), model="--model", **_SERVE),
    ),
)

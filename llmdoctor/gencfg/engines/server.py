"""The effective config of a request to a server whose rules are a table: names, defaults, what the model's files supply, and stop ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from llmdoctor.core.text import is_id
from llmdoctor.gencfg.engines.types import ModelFacts
from llmdoctor.gencfg.layers import Fields
from llmdoctor.gencfg.modelconfig import vocabulary_in
from llmdoctor.gencfg.types import Effective, GenerateCall, Json, Origin, Resolved, SourcedValue, Stop

Limit = Literal["context"] | int
StopSource = Callable[[GenerateCall, ModelFacts], list[SourcedValue]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ServerRules:
    """How one server makes the settings of a request.

    `parameters` maps the name of a field in transformers to the server's name and default. `limit` is the default number of new tokens,
    "context" if a request without a limit may fill the context. `stop_ids` returns the ids that the model's files supply, each list
    with its origin. `file_defaults` are the fields of generation_config.json that count if a request does not set them; `place` is the
    source file that was read. `unlimited` is a clause on a request that sets no limit: what it is limited by, and which other requests
    have another default.
    """

    name: str
    version: str
    place: str
    parameters: Mapping[str, tuple[str, Json]]
    limit: Limit
    stop_ids: StopSource
    file_defaults: tuple[str, ...] = ()
    unlimited: str | None = None


def resolve_server(
    rules: ServerRules, call: GenerateCall, facts: ModelFacts, version: str | None = None, limits: tuple[str, ...] = ()
) -> Effective:
    """Return the settings of a request that carries the call's user config and keyword arguments.

    `version` is the version that the answer names, None for that of the rules; `limits` are clauses for the verdict.
    """
    fields = _defaults(rules, call, facts)
    file = call.generation_config or {}
    model = {name: file[name] for name in rules.file_defaults if name in file and file[name].value is not None}
    if facts.request_defaults is not None:
        model = dict(facts.request_defaults)
    fields.put_all(model)
    request, foreign = _request(rules, call)
    requested = request.pop("eos_token_id", None)
    fields.put_all(request)
    _put_stop_ids(rules, fields, call, facts, requested)
    greedy = fields.value("temperature") == 0
    fields["do_sample"] = Resolved(not greedy, Origin("derived", f"{rules.name} {rules.version}: temperature 0 is greedy", rules.place))
    warnings = []
    if call.mutations or call.config_mutations:
        warnings.append(f"assignments on a model in Python do not reach {rules.name}: it reads the files")
    if foreign:
        warnings.append(f"{rules.name} has no {', '.join(sorted(foreign))}: not taken over from the call")
    name = f"{rules.name} {version or rules.version}"
    if rules.unlimited is not None and fields["max_new_tokens"].origin.layer in ("library-default", "derived"):
        limits = (*limits, rules.unlimited)
    model_fields = {key: Resolved(item.value, item.origin) for key, item in model.items()}
    return Effective(
        transformers=name,
        rules=rules.version,
        fields=fields,
        model_fields=model_fields,
        stop=_stop(fields, call, facts),
        error=None,
        warnings=tuple(warnings),
        limits=limits,
    )


def _defaults(rules: ServerRules, call: GenerateCall, facts: ModelFacts) -> Fields:
    fields = Fields()
    for name, (theirs, value) in rules.parameters.items():
        fields[name] = Resolved(value, Origin("library-default", f"{rules.name} {rules.version} {theirs}", rules.place))
    if rules.limit == "context":
        room = None if facts.max_model_len is None else facts.max_model_len - call.prompt_length
        fields["max_new_tokens"] = Resolved(room, Origin("derived", f"{rules.name} {rules.version}: the context", rules.place))
    else:
        origin = Origin("library-default", f"{rules.name} {rules.version} {rules.parameters['max_new_tokens'][0]}", rules.place)
        fields["max_new_tokens"] = Resolved(rules.limit, origin)
    return fields


def _request(rules: ServerRules, call: GenerateCall) -> tuple[dict[str, SourcedValue], list[str]]:
    """Return the values of the request in transformers' names, and the names that the server does not know."""
    theirs = {name: ours for ours, (name, _) in rules.parameters.items()}
    request: dict[str, SourcedValue] = {}
    foreign = []
    for name, setting in [*(call.user_config or {}).items(), *call.kwargs.items()]:
        ours = "eos_token_id" if name in ("stop_token_ids", "end_id") else theirs.get(name, name)
        if setting.value is None:
            request.pop(ours, None)
        elif ours in rules.parameters or ours == "eos_token_id":
            request[ours] = setting
        elif name not in _HARMLESS:
            foreign.append(name)
    return request, foreign


_HARMLESS = frozenset(
    "do_sample return_dict_in_generate output_scores output_logits use_cache pad_token_id bos_token_id transformers_version max_length "
    "disable_compile cache_implementation".split()
)


def _put_stop_ids(rules: ServerRules, fields: Fields, call: GenerateCall, facts: ModelFacts, requested: SourcedValue | None) -> None:
    """Fill fields["eos_token_id"] with every id that ends a sequence, those of the files first."""
    fields["eos_token_id"] = Resolved(None, Origin("library-default", f"{rules.name} {rules.version}: no stop id", rules.place))
    ids: list[int] = []
    sources = [] if fields.value("ignore_eos") is True else rules.stop_ids(call, facts)
    for source in [*sources, *([] if requested is None else [requested])]:
        new = [token for token in ids_in(source.value) if token not in ids]
        if new:
            ids += new
            others = fields["eos_token_id"].origin
            both = source.origin if len(ids) == len(new) else Origin("derived", f"{others.source} and {source.origin.source}", others.file)
            fields["eos_token_id"] = Resolved(list(ids), both)


def ids_in(value: Json) -> list[int]:
    """Return the ids in an eos_token_id: an int or a list of them."""
    return [item for item in (value if isinstance(value, list | tuple) else [value]) if is_id(item)]


def _stop(fields: Fields, call: GenerateCall, facts: ModelFacts) -> Stop:
    ids = tuple(ids_in(fields.value("eos_token_id")))
    limit = fields.value("max_new_tokens")
    limit = limit if is_id(limit) and limit >= 0 else None
    because = None
    if not ids and not facts.has_tokenizer and not fields.value("ignore_eos") and not fields.value("stop_strings"):
        return Stop((), None, limit, never_stops=False, unknown="the directory has no tokenizer, whose eos_token the server takes")
    if not fields.value("stop_strings"):
        config = {name: setting.value for name, setting in (call.config or {}).items()}
        size = vocabulary_in(config)
        if not ids:
            because = "ignore_eos is set" if fields.value("ignore_eos") else "no file and no request gives a stop id"
        elif all(token < 0 or (size is not None and token >= size) for token in ids):
            because = f"every stop id is outside the vocabulary{f' of {size}' if size is not None else ''}"
    return Stop(ids, None, limit, because is not None, because)


# --- where stop ids come from -----------------------------------------------------------------------------------------------------


def generation_eos(call: GenerateCall, _: ModelFacts) -> list[SourcedValue]:
    """Return eos_token_id of generation_config.json."""
    found = (call.generation_config or {}).get("eos_token_id")
    return [] if found is None or not ids_in(found.value) else [found]


def config_eos(call: GenerateCall, _: ModelFacts) -> list[SourcedValue]:
    """Return eos_token_id at the top of config.json."""
    found = (call.config or {}).get("eos_token_id")
    return [] if found is None or not ids_in(found.value) else [found]


def tokenizer_eos(_: GenerateCall, facts: ModelFacts) -> list[SourcedValue]:
    """Return the id of the eos_token of the tokenizer that the server loads."""
    return [] if facts.base_eos is None else [SourcedValue(facts.base_eos, Origin("derived", "the tokenizer's eos_token"))]


def named_tokens(*texts: str) -> StopSource:
    """Return a source that looks for tokens by their text."""

    def find(_: GenerateCall, facts: ModelFacts) -> list[SourcedValue]:
        found = [(text, token) for text in texts if facts.id_of is not None and (token := facts.id_of(text)) is not None]
        return [SourcedValue(token, Origin("derived", f"the token {text}")) for text, token in found]

    return find


def together(*sources: StopSource) -> StopSource:
    """Return a source that asks several sources in turn."""
    return lambda call, facts: [found for source in sources for found in source(call, facts)]

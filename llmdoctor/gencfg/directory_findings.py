"""Findings about a model directory: each rule is a function from what was examined to its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from llmdoctor.core.edit import Edit
from llmdoctor.core.finding import Finding, Location, Severity
from llmdoctor.core.rule import Rule
from llmdoctor.files.jsonfile import JsonFile
from llmdoctor.gencfg import rules
from llmdoctor.gencfg.engines.vllm import FROM_FILE
from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.findings import call_findings
from llmdoctor.gencfg.types import Effective
from llmdoctor.modeldir.directory import ModelDir

# What transformers' GenerationConfig.validate() calls sampling-only flags, and the values that mean "not set" (5.23.0, 4.57.6).
SAMPLING_DEFAULTS = {
    "temperature": 1.0,
    "top_p": 1.0,
    "min_p": None,
    "top_h": None,
    "typical_p": 1.0,
    "top_k": 50,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}


def directory_findings(examined: Examined) -> Iterator[Finding]:
    """Yield every finding of every rule about one model directory."""
    for rule in _RULES:
        yield from rule(examined)


def _call(examined: Examined) -> Iterator[Finding]:
    """GEN001, GEN004, GEN005: the plain call raises or never stops."""
    for finding in call_findings(examined.answer):
        place = finding.location or _place(examined.directory.generation_config or examined.directory.config, "")
        located = replace(finding, location=place, evidence={**finding.evidence, **_verdicts(examined)})
        yield located if finding.code == rules.REJECTED.code else _lowered(examined, located)


def _turn_end(examined: Examined) -> Iterator[Finding]:
    """GEN002."""
    end = examined.terminator
    if end is None or end.id is None or not examined.runs or not examined.eos or end.id in examined.eos:
        return
    eos = examined.directory.tokenizer.special("eos_token")
    also = ", which is also the tokenizer's eos_token" if eos is not None and eos.id == end.id else ""
    yield _stop_finding(examined, rules.TURN_END, end.id, f"the chat template ends an answer with {end.token} ({end.id}){also}")


def _tokenizer_eos(examined: Examined) -> Iterator[Finding]:
    """GEN003; not where GEN002 has said it of the same token."""
    eos = examined.directory.tokenizer.special("eos_token")
    if eos is None or eos.id is None or not examined.runs or not examined.eos or eos.id in examined.eos:
        return
    if examined.terminator is not None and examined.terminator.id == eos.id:
        return
    separator = examined.directory.tokenizer.special("sep_token")
    if separator is not None and separator.id in examined.eos:
        return  # BERT's tokenizers end a sequence with [SEP], whatever eos_token says
    yield _stop_finding(examined, rules.TOKENIZER_EOS, eos.id, f"the tokenizer's eos_token is {eos.token} ({eos.id})")


def _stop_finding(examined: Examined, rule: Rule, wanted: int, found: str) -> Finding:
    field = examined.answer.effective.fields["eos_token_id"]
    file = examined.directory.generation_config or examined.directory.config
    ids = list(examined.eos)
    both = [wanted, *(token for token in ids if token != wanted)]
    finding = rule.at(
        _place(file, field.origin.pointer or "/eos_token_id"),
        f"{found}, but generate() stops only at {', '.join(map(str, ids))}; {_elsewhere(examined, wanted)}",
        cause=f"eos_token_id {field.value!r} comes from {field.origin.file or field.origin.source}",
        fix=f'"eos_token_id": {both}   in generation_config.json',
        edits=_stop_edit(examined, rule, both),
        wanted=wanted,
        eos_token_id=ids,
        **_verdicts(examined),
    )
    return _lowered(examined, finding)


def _elsewhere(examined: Examined, token: int) -> str:
    """Return which other engines stop at `token` with the files as they are."""
    stopping = [engine.title for engine in examined.stopping_at(token)]
    if not stopping:
        return "no other engine known here stops there either"
    return f"{' and '.join(stopping)} {'stops' if len(stopping) == 1 else 'stop'} there"


def _stop_edit(examined: Examined, rule: Rule, ids: list[int]) -> tuple[Edit, ...]:
    """The ids in generation_config.json, where there is one: a new file would cut the call off from config.json's other fields.

    Safe where the directory's own template ends an answer with the new id: it never stands inside one. A tokenizer's eos_token may.
    """
    file = examined.directory.generation_config
    if file is None or examined.directory.remote_code:
        return ()
    return (Edit(file.shown_name, "/eos_token_id", value=ids, safe=rule is rules.TURN_END),)


def _class_default(examined: Examined) -> Iterator[Finding]:
    """GEN006."""
    field = examined.answer.effective.fields.get("eos_token_id")
    if not examined.runs or field is None or field.origin.layer != "class-default" or field.value is None:
        return
    yield _finding(
        rules.CLASS_DEFAULT,
        f"eos_token_id {field.value!r} is the configuration class's default; transformers 5 does not ask for it, and runs on",
        _place(examined.directory.config, ""),
        {"eos_token_id": field.value},
        f'{{"eos_token_id": {field.value!r}}}   as generation_config.json',
    )


def _pad_outside(examined: Examined) -> Iterator[Finding]:
    """GEN007."""
    pad = examined.answer.effective.stop.pad_token_id
    size = vocabulary_size(examined.directory)
    if pad is None or size is None or pad < size:
        return
    field = examined.answer.effective.fields.get("pad_token_id")
    file = examined.directory.generation_config or examined.directory.config
    yield _finding(
        rules.PAD_OUTSIDE,
        f"pad_token_id {pad} is outside the vocabulary of {size}",
        _place(file, (field and field.origin.pointer) or "/pad_token_id"),
        {"pad_token_id": pad, "vocab_size": size},
        rules.PAD_OUTSIDE.fix,
    )


def _ignored_sampling(examined: Examined) -> Iterator[Finding]:
    """GEN008."""
    file = examined.directory.generation_config
    if file is None or not isinstance(file.value, dict) or file.value.get("do_sample"):
        return
    given = {
        name: file.value[name]
        for name, default in SAMPLING_DEFAULTS.items()
        if file.value.get(name) is not None and file.value[name] != default and not _off(name, file.value[name])
    }
    if not given:
        return
    names = ", ".join(f"{name} {value!r}" for name, value in given.items())
    finding = _finding(
        rules.UNSAVEABLE,
        f"{names}: ignored, because do_sample is {file.value.get('do_sample')!r}",
        _place(file, f"/{next(iter(given))}"),
        {"ignored": given, "do_sample": file.value.get("do_sample")},
        '"do_sample": true   or leave them out',
    )
    # vLLM samples by the file's numbers whatever do_sample says: for it, what goes is a changed default.
    yield replace(finding, edits=tuple(Edit(file.shown_name, f"/{name}", "remove", safe=name not in FROM_FILE) for name in given))


def _off(name: str, value: Any) -> bool:
    return name == "top_k" and value == 0


def _token_conflict(examined: Examined) -> Iterator[Finding]:
    """GEN009: an empty eos_token, or two files that name different ones."""
    config, special = examined.directory.tokenizer_config, examined.directory.special_tokens_map
    for name in ("eos_token", "bos_token", "pad_token"):
        one, other = _token(config, name), _token(special, name)
        if one == "":
            yield _conflict(f"{name} is the empty string", config, name, {"tokenizer_config.json": one, "special_tokens_map.json": other})
        elif name == "eos_token" and one is not None and other is not None and one != other:
            said = f"{name} is {one!r} in tokenizer_config.json and {other!r} in special_tokens_map.json"
            yield _conflict(said, special, name, {"tokenizer_config.json": one, "special_tokens_map.json": other})
    eos = examined.directory.tokenizer.special("eos_token")
    size = vocabulary_size(examined.directory)
    if eos is not None and eos.id is not None and size is not None and eos.id >= size:
        yield _conflict(
            f"eos_token {eos.token!r} has id {eos.id}, outside the vocabulary of {size}", config or special, "eos_token", {"id": eos.id}
        )


def _conflict(message: str, file: JsonFile | None, name: str, evidence: dict[str, Any]) -> Finding:
    return _finding(rules.TOKEN_CONFLICT, message, _place(file, f"/{name}"), evidence, rules.TOKEN_CONFLICT.fix)


def _pad_is_eos(examined: Examined) -> Iterator[Finding]:
    """GEN010."""
    pad = examined.answer.effective.stop.pad_token_id
    field = examined.answer.effective.fields.get("pad_token_id")
    if pad is None or pad not in examined.eos or field is None or field.origin.layer == "derived":
        return
    file = examined.directory.generation_config or examined.directory.config
    yield _finding(rules.PAD_IS_EOS, f"pad_token_id {pad} is also an eos id", _place(file, "/pad_token_id"), {"pad_token_id": pad}, None)


def _model_defaults(examined: Examined) -> Iterator[Finding]:
    """GEN011."""
    file = examined.directory.generation_config
    if file is None or not isinstance(file.value, dict) or not _gate_open(file.value.get("transformers_version")):
        return
    given = {name: file.value[name] for name, default in SAMPLING_DEFAULTS.items() if file.value.get(name) not in (None, default)}
    if given:
        yield _finding(
            rules.MODEL_DEFAULTS,
            f"under 4.50 to 4.57 a GenerationConfig that leaves {', '.join(given)} at the library's default gets the file's value",
            _place(file, "/transformers_version") if "transformers_version" in file.value else _place(file, ""),
            {"model": given, "transformers_version": file.value.get("transformers_version")},
            rules.MODEL_DEFAULTS.fix,
        )


def _gate_open(stamp: Any) -> bool:
    if stamp is None:
        return True
    parts = str(stamp).split(".")
    return len(parts) > 1 and parts[0].isdigit() and parts[1].isdigit() and (int(parts[0]), int(parts[1])) >= (4, 50)


def _engines_differ(examined: Examined) -> Iterator[Finding]:
    """GEN012: other stop tokens under vLLM, where no other rule has said so."""
    ours, theirs = set(examined.eos), set(examined.vllm.stop.eos_token_id)
    if ours == theirs or not examined.runs or not ours or examined.vllm.error is not None:
        return
    file = examined.directory.generation_config or examined.directory.config
    yield _finding(
        rules.ENGINES_DIFFER,
        f"transformers stops at {_ids(ours)}, vLLM at {_ids(theirs)}",
        _place(file, "/eos_token_id"),
        _verdicts(examined),
        rules.ENGINES_DIFFER.fix,
    )


def _ids(ids: set[int]) -> str:
    return ", ".join(map(str, sorted(ids))) or "nothing"


def _unresolved(examined: Examined) -> Iterator[Finding]:
    """GEN013."""
    end = examined.terminator
    if end is None or end.reason is None:
        return
    named = [examined.directory.tokenizer.token_of(token) for token in examined.eos]
    if end.token is not None and end.token in named:
        return
    file = examined.directory.tokenizer_config or examined.directory.config
    yield _finding(
        rules.UNRESOLVED,
        end.reason,
        _place(file, "/chat_template" if file and _has(file, "chat_template") else ""),
        {"token": end.token},
        None,
    )


def vocabulary_size(directory: ModelDir) -> int | None:
    """vocab_size of config.json, else that of the language model nested in it; None where no file tells."""
    config = directory.config.value if directory.config is not None else None
    if not isinstance(config, dict):
        return None
    for value in (config, *(config.get(name) for name in ("text_config", "llm_config", "language_config", "language", "decoder"))):
        size = value.get("vocab_size") if isinstance(value, dict) else None
        if isinstance(size, int) and not isinstance(size, bool):
            return size
    return None


def _verdicts(examined: Examined) -> dict[str, Any]:
    def said(effective: Effective) -> str:
        if effective.error is not None:
            return f"raises {effective.error.type}"
        return "never stops" if effective.stop.never_stops else f"stops at {_ids(set(effective.stop.eos_token_id))}"

    return {"transformers": said(examined.answer.effective), **{name: said(other) for name, other in examined.elsewhere.items()}}


def _lowered(examined: Examined, finding: Finding) -> Finding:
    """A warning where the directory brings its own code: its chat() may supply the ids that generate() is not given."""
    if not examined.directory.remote_code:
        return finding
    why = "the directory brings its own code (auto_map), whose chat() may pass stop ids of its own: a warning only"
    return replace(finding, severity=Severity.WARNING, cause=f"{finding.cause}; {why}" if finding.cause else why)


def _finding(rule: Rule, message: str, place: Location | None, evidence: dict[str, Any], fix: str | None) -> Finding:
    return rule.at(place, message, fix=fix, **evidence)


def _place(file: JsonFile | None, pointer: str) -> Location | None:
    return None if file is None else Location(file.shown_name, pointer or None, file.line(pointer) if pointer else None)


def _has(file: JsonFile, key: str) -> bool:
    return isinstance(file.value, dict) and key in file.value


def _token(file: JsonFile | None, name: str) -> str | None:
    value = file.value.get(name) if file is not None and isinstance(file.value, dict) else None
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


_RULES: tuple[Callable[[Examined], Iterator[Finding]], ...] = (
    _call,
    _turn_end,
    _tokenizer_eos,
    _class_default,
    _pad_outside,
    _ignored_sampling,
    _token_conflict,
    _pad_is_eos,
    _model_defaults,
    _engines_differ,
    _unresolved,
)

"""Findings about the fields and tokens of a model directory's files: GEN006 to GEN011, GEN023 to GEN025."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from llmdoctor.core.edit import Edit
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.files.jsonfile import JsonFile
from llmdoctor.gencfg import rules
from llmdoctor.gencfg.engines.table import engines
from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.fields import SAMPLING_DEFAULTS, near_field, read_by_a_model
from llmdoctor.gencfg.places import place
from llmdoctor.gencfg.versions import METADATA, known_field


def class_default(examined: Examined) -> Iterator[Finding]:
    """GEN006: the only eos_token_id is the configuration class's default."""
    field = examined.answer.effective.fields.get("eos_token_id")
    if not examined.runs or field is None or field.origin.layer != "class-default" or field.value is None:
        return
    yield rules.CLASS_DEFAULT.at(
        place(examined.directory.config, ""),
        f"eos_token_id {field.value!r} is the default of the configuration class; transformers 5 does not read it, and never stops",
        fix=f'{{"eos_token_id": {field.value!r}}}   as generation_config.json',
        eos_token_id=field.value,
    )


def pad_outside(examined: Examined) -> Iterator[Finding]:
    """GEN007: the embedding has no row for pad_token_id."""
    pad, size = examined.answer.effective.stop.pad_token_id, examined.vocab_size
    field = examined.answer.effective.fields.get("pad_token_id")
    if pad is None or field is None or field.origin.layer == "derived" or (pad >= 0 and (size is None or pad < size)):
        return
    where = "negative" if pad < 0 else f"outside the vocabulary of {size}"
    special = examined.directory.tokenizer.special("pad_token")
    known = special.id if special is not None and special.id is not None and not examined.stop_ids.is_outside(special.id) else None
    fix = f'"pad_token_id": {known}   (the tokenizer\'s {special.token})' if known is not None and special is not None else None
    yield rules.PAD_OUTSIDE.at(
        place(examined.file, field.origin.pointer or "/pad_token_id"),
        f"pad_token_id {pad} is {where}: a batch in which one sequence ends before another raises IndexError",
        fix=fix,
        pad_token_id=pad,
        vocab_size=size,
    )


def ignored_sampling(examined: Examined) -> Iterator[Finding]:
    """GEN008: sampling settings without do_sample."""
    file = examined.directory.generation_config
    if file is None or not isinstance(file.value, dict) or file.value.get("do_sample"):
        return
    given = {
        name: file.value[name]
        for name, default in SAMPLING_DEFAULTS.items()
        if file.value.get(name) is not None and file.value[name] != default and not (name == "top_k" and file.value[name] == 0)
    }
    if not given:
        return
    names = ", ".join(f"{name} {value!r}" for name, value in given.items())
    # An engine that takes the file's numbers as defaults samples by them even without do_sample: removing them changes its output.
    taken = {name for engine in engines().values() for name in engine.file_defaults}
    yield rules.UNSAVEABLE.at(
        place(file, f"/{next(iter(given))}"),
        f"{names}: ignored, because do_sample is {file.value.get('do_sample')!r}",
        fix='"do_sample": true   or leave them out',
        edits=tuple(Edit(file.shown_name, f"/{name}", "remove", safe=name not in taken) for name in given),
        ignored=given,
        do_sample=file.value.get("do_sample"),
    )


def token_conflict(examined: Examined) -> Iterator[Finding]:
    """GEN009: an empty special token, or two files that name different ones."""
    config, special = examined.directory.tokenizer_config, examined.directory.special_tokens_map
    for name in ("eos_token", "bos_token", "pad_token"):
        one, other = _token(config, name), _token(special, name)
        evidence: dict[str, Any] = {"tokenizer_config.json": one, "special_tokens_map.json": other}
        if one == "":
            yield rules.TOKEN_CONFLICT.at(place(config, f"/{name}"), f"{name} is the empty string", **evidence)
        elif name == "eos_token" and one is not None and other is not None and one != other:
            message = f"{name} is {one!r} in tokenizer_config.json and {other!r} in special_tokens_map.json"
            yield rules.TOKEN_CONFLICT.at(place(special, f"/{name}"), message, **evidence)


def beyond_embedding(examined: Examined) -> Iterator[Finding]:
    """GEN024: a token that the chat template or the tokenizer puts at the end of an answer has no row in the embedding."""
    size, tokenizer = examined.vocab_size, examined.directory.tokenizer
    eos, end = tokenizer.special("eos_token"), examined.terminator
    used: dict[int, str] = {}
    if end is not None and end.id is not None and end.token is not None:
        used[end.id] = f"{end.token}, with which the chat template ends an answer,"
    if eos is not None and eos.id is not None:
        used.setdefault(eos.id, f"the tokenizer's eos_token {eos.token}")
    for token, what in used.items():
        if size is None or token < size:
            continue
        owner = "the base model" if examined.directory.adapter is not None else "the model"
        yield rules.BEYOND_EMBEDDING.at(
            place(examined.directory.tokenizer_config or examined.directory.config, ""),
            f"{what} has id {token}, but the vocabulary of {owner} has {size} ids (0 to {size - 1}): a prompt that holds the token "
            "raises IndexError, and the model can never produce it",
            token=token,
            vocab_size=size,
        )


def adapter_vocabulary(examined: Examined) -> Iterator[Finding]:
    """GEN025: the tokenizers of an adapter and its base model give a special token different ids."""
    adapter = examined.directory.adapter
    if adapter is None or adapter.base is None:
        return
    own, base = examined.directory.tokenizer, adapter.base.tokenizer
    differing = {
        text: (number, other)
        for text, number in own.special_ids().items()
        if number is not None and (other := base.id_of(text)) is not None and other != number
    }
    if differing:
        first = ", ".join(f"{text} is {mine} here and {theirs} in the base model" for text, (mine, theirs) in list(differing.items())[:3])
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        file = examined.directory.json("adapter_config.json")
        yield rules.ADAPTER_VOCABULARY.at(place(file, "/base_model_name_or_path"), f"{first}{more}", tokens=differing)


def pad_is_eos(examined: Examined) -> Iterator[Finding]:
    """GEN010: pad_token_id is also an eos id."""
    pad = examined.answer.effective.stop.pad_token_id
    field = examined.answer.effective.fields.get("pad_token_id")
    if pad is None or pad not in examined.eos or field is None or field.origin.layer == "derived":
        return
    yield rules.PAD_IS_EOS.at(place(examined.file, "/pad_token_id"), f"pad_token_id {pad} is also an eos id", pad_token_id=pad)


def model_defaults(examined: Examined) -> Iterator[Finding]:
    """GEN011: under 4.50 to 4.57 the file's values replace the defaults of a GenerationConfig."""
    file = examined.directory.generation_config
    if file is None or not isinstance(file.value, dict) or not _gate_open(file.value.get("transformers_version")):
        return
    given = {name: file.value[name] for name, default in SAMPLING_DEFAULTS.items() if file.value.get(name) not in (None, default)}
    if given:
        yield rules.MODEL_DEFAULTS.at(
            place(file, "/transformers_version" if "transformers_version" in file.value else ""),
            f"under 4.50 to 4.57 a GenerationConfig that leaves {', '.join(given)} at the library's default gets the file's value",
            model=given,
            transformers_version=file.value.get("transformers_version"),
        )


def unknown_fields(examined: Examined) -> Iterator[Finding]:
    """GEN023: fields that no version of transformers reads. A note if the name resembles no setting: vendors add fields of their own."""
    file = examined.directory.generation_config
    if file is None or not isinstance(file.value, dict):
        return
    config = examined.directory.config
    kind = config.value.get("model_type") if config is not None and isinstance(config.value, dict) else None
    for name in file.value:
        if name in METADATA or name.startswith("_") or known_field(name) is not None or read_by_a_model(name, kind):
            continue
        meant = near_field(name)
        doubtful = meant is None or bool(examined.directory.remote_code)
        finding = rules.UNKNOWN_FIELD.at(
            place(file, "/" + name.replace("~", "~0").replace("/", "~1")),
            f"no version of transformers has a generation setting {name}: "
            + ("only the directory's own code could read it" if examined.directory.remote_code else "it has no effect on generate()"),
            fix=f'"{meant}": ...   instead of "{name}"' if meant is not None else None,
            severity=Severity.INFO if doubtful else None,
            field=name,
            meant=meant,
        )
        clash = meant is not None and meant in file.value
        yield replace(finding, fix=f'remove "{name}": "{meant}" is set already') if clash else finding


def _gate_open(stamp: Any) -> bool:
    if stamp is None:
        return True
    parts = str(stamp).split(".")
    return len(parts) > 1 and parts[0].isdigit() and parts[1].isdigit() and (int(parts[0]), int(parts[1])) >= (4, 50)


def _token(file: JsonFile | None, name: str) -> str | None:
    value = file.value.get(name) if file is not None and isinstance(file.value, dict) else None
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None

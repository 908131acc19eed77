"""The one way to read a training configuration: which format it is, what it sets, and which defaults apply.

`check`, `look`, `mem` and `labels` call `read`, and `recognise` of configs/recognise.py; no other module tells formats apart.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llmdoctor.configs.normal import Normal, shorter
from llmdoctor.configs.recognise import recognise
from llmdoctor.configs.schema import literal_choices
from llmdoctor.configs.script_values import computed
from llmdoctor.configs.types import Configuration, Format, Ignored, Key, KeyEffect, UnknownKey, Uses, Variant
from llmdoctor.core.errors import QuestionError
from llmdoctor.files.jsonfile import JsonFile

_YAML = (".yaml", ".yml")
COMPUTED = frozenset({"distributed_state", "deepspeed_plugin", "hf_deepspeed_config", "fsdp_plugin_args", "generation_config"})


def read(path: str, *, without: Iterable[str] = (), text: str | None = None, releases: Mapping[str, str] = {}) -> Configuration:
    """Read the configuration in the file `path`, or in `text` as if it were in that file, as the `releases` of libraries read it.

    Raises QuestionError, one sentence, if the file cannot be read or has no known format.
    """
    if os.path.splitext(path)[1].lower() == ".py":
        return _script(path, text, without)
    return read_file(opened(path, text), without=without, releases=releases)


def _script(path: str, text: str | None, without: Iterable[str]) -> Configuration:
    from llmdoctor.configs import script
    from llmdoctor.files.opening import Refusal, read_bytes

    if text is None:
        data = read_bytes(path, script.LIMIT)
        if data is None or isinstance(data, Refusal):
            raise QuestionError(f"{path}: no such file" if data is None else f"{path} {data.reason}")
        text = data.decode("utf-8", "replace")
    found = script.read_calls(text, path)
    file = JsonFile(path=path, shown_name=path, value=found.values, problems=(), text="", _lines={"": 1, **found.lines})
    return read_value(found.values, path, script.format_of(found), without=without, file=file, variant=script.variant(found))


def read_file(
    file: JsonFile, *, without: Iterable[str] = (), format_: Format | None = None, releases: Mapping[str, str] = {}
) -> Configuration:
    """Read the configuration in a file that is parsed already."""
    if not isinstance(file.value, Mapping):
        reason = next((problem.message for problem in file.problems), "expected an object of settings")
        raise QuestionError(reason if file.shown_name in reason else f"{file.shown_name}: {reason}")
    found = format_ or recognise(file.value, stated=True)
    if found is None:
        from llmdoctor.configs.formats import FORMATS

        known = ", ".join(one.title for one in FORMATS)
        raise QuestionError(f"{file.shown_name}: none of the configurations that are known here ({known}): it has none of their keys")
    return read_value(file.value, file.shown_name, found.of(releases), without=without, file=file)


def opened(path: str, text: str | None = None) -> JsonFile:
    """Parse the JSON, YAML, Python or pickle file `path`; QuestionError if it cannot be opened."""
    from llmdoctor.files.jsonfile import CONFIG_LIMIT, parse, refused
    from llmdoctor.files.opening import Refusal, read_bytes
    from llmdoctor.files.yamlfile import YAML_LIMIT, parse_yaml

    ending = os.path.splitext(path)[1].lower()
    data = text.encode() if text is not None else read_bytes(path, YAML_LIMIT if ending in _YAML else CONFIG_LIMIT)
    if data is None:
        raise QuestionError(f"{path}: no such file")
    if isinstance(data, Refusal):
        return refused(data, path, path)
    if ending in _YAML:
        return parse_yaml(data, path, path)
    if ending == ".bin":
        return _pickled(data, path)
    return parse(data, path, path)


def _pickled(data: bytes, path: str) -> JsonFile:
    from llmdoctor.files.pickles import parse_pickle, plain

    try:
        value = plain(parse_pickle(data))
        if isinstance(value, dict):  # attributes that __post_init__ computes are no settings
            value = {key: item for key, item in value.items() if not str(key).startswith("_") and key not in COMPUTED}
        return JsonFile(path, path, value)
    except ValueError as error:
        raise QuestionError(f"{path}: a pickle that is not read: {error}") from None


def read_value(
    value: Mapping[str, Any],
    path: str,
    format_: Format,
    *,
    without: Iterable[str] = (),
    file: JsonFile | None = None,
    variant: Variant | None = None,
) -> Configuration:
    """Read an object of settings of the format `format_`; `path` names it in messages, `variant` is the class that reads it, if that is known."""
    variant = variant or format_.variant(value)
    wanted = tuple(without)
    rows = list(flat(value, variant))
    left = tuple(dict.fromkeys(name for name in wanted if any(_covers(name, row) for row in rows)))
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    unknown: list[UnknownKey] = []
    rejected: dict[str, str] = {}
    for name, written, item in (row for row in rows if not any(_covers(one, row) for one in left)):
        if value.get(variant.replaced.get(written[0], "")) is not None:
            unknown.append(UnknownKey(".".join(written), "ignores"))
            continue
        key = variant.keys.get(name)
        line = None if file is None else file.line("".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in written))
        if line is not None:
            lines[name] = line
        if key is None or key.removed is not None:
            close = (variant.renamed[name],) if name in variant.renamed else _close(name, variant.keys)
            unknown.append(UnknownKey(name, _effect(name, variant, format_, value), close, None if key is None else key.removed))
        if key is None:
            continue
        if name in values:
            rejected[name] = f"{'.'.join(written)} sets {name} a second time"
        values[name] = item
    normal = normalised(values, path, variant, format_, rejected)
    renamed = [one.key for one in unknown if one.effect == "renamed"]
    if renamed:
        who = f"{format_.library} {format_.version}"
        normal.limits.append(f"{', '.join(renamed)} read by the present names, as {who} would run it, which rejects the old ones")
    return Configuration(
        path=path, format=format_, variant=variant, values=values, normal=normal, unknown=tuple(unknown), rejected=rejected, without=left, lines=lines
    )  # fmt: skip


def _effect(name: str, variant: Variant, format_: Format, value: Mapping[str, Any]) -> KeyEffect:
    """Return what becomes of a key that the described release does not have."""
    key = variant.keys.get(name)
    meaning = None if key is None else key.meanings["memory"]
    if isinstance(meaning, Ignored):
        return "older"
    now = variant.keys.get(variant.renamed.get(name, ""))
    if now is not None and now.meanings["memory"] == meaning and isinstance(meaning, Uses) and now.name not in value:
        return "renamed"
    return format_.unknown(name)


def normalised(values: Mapping[str, Any], path: str, variant: Variant, format_: Format, rejected: dict[str, str]) -> Normal:
    """Return the normalised settings of `values`; what the framework, or the kind of a setting, does not admit is added to `rejected`."""
    normal = Normal(path, variant.name, raw=values, limits=list(variant.limits))
    for name, value in variant.facts.items():
        normal.put(name, value)
    for name, value in values.items():
        key = variant.keys[name]
        if format_.auto and value == "auto":
            continue
        unclear = next(computed(value), None)
        if unclear is not None:
            if not isinstance(key.meanings["memory"], Ignored):
                rejected[name] = f"{name}: the script computes its value ({unclear.source})"
            continue
        choices = variant.choices.get(name) or literal_choices(key.type)
        if choices and value is not None and value not in choices and value != "auto":
            close = difflib.get_close_matches(str(value), [str(one) for one in choices], 1, 0.6)
            meant = f' (is "{close[0]}" meant?)' if close else ""
            rejected[name] = f"{name}: {shorter(value)} is not one of the values that {format_.library} {format_.version} accepts{meant}"
            continue
        meaning = key.meanings["memory"]
        if isinstance(meaning, Uses):
            try:
                normal.put(meaning.field, value, name)
            except QuestionError as error:
                rejected[name] = str(error).removeprefix(f"{path}: ")
    if not rejected:
        try:
            format_.settle(normal)
        except QuestionError as error:
            rejected[""] = str(error).removeprefix(f"{path}: ")
    return normal


def flat(value: Mapping[str, Any], variant: Variant) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Yield each setting: its name in the schema, the keys that lead to it in the file, its value."""
    canonical = {alias: key.name for key in variant.keys.values() for alias in key.aliases}
    sections = {name[:at] for name in (*variant.keys, *canonical) for at in range(len(name)) if name[at] == "."}

    def below(inner: Mapping[str, Any], name: str, written: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], Any]]:
        for part, item in inner.items():
            full = f"{name}.{part}" if name else str(part)
            full = canonical.get(full, full)
            place = (*written, str(part))
            if isinstance(item, Mapping) and full in sections and (item or full not in variant.keys):
                yield from below(item, full, place)
            else:
                yield full, place, item

    yield from below(value, "", ())


def _covers(name: str, row: tuple[str, tuple[str, ...], Any]) -> bool:
    """Return whether `--without NAME` names this setting or a section that holds it."""
    written = ".".join(row[1])
    return any(one == name or one.startswith(f"{name}.") for one in (row[0], written))


def _close(name: str, keys: Mapping[str, Key]) -> tuple[str, ...]:
    section, _, last = name.rpartition(".")
    names = {
        key.name.rpartition(".")[2]: key.name for key in keys.values() if key.removed is None and key.name.rpartition(".")[0] == section
    }
    return tuple(names[one] for one in difflib.get_close_matches(last, list(names), 1, 0.8))


def linked_path(by: str, named: str) -> str:
    """Return the path of a file that the configuration `by` names, in one of linked.places; QuestionError if it is in none of them."""
    from llmdoctor.configs.linked import places

    found = next((place for place in places(by, named) if os.path.isfile(place)), None)
    if found is None:
        raise QuestionError(f"{by}: {named}: no such file beside {by}, in the working directory or in a folder above {by}")
    return os.path.relpath(found) if not os.path.isabs(named) else found

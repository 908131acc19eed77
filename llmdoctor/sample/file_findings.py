"""SMP005 and SMP006: sampling settings that a model's generation_config.json brings along, and requests that take them without a word."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from llmdoctor.configs.linked import LinkedFiles
from llmdoctor.core.finding import Finding, Location
from llmdoctor.core.text import shown
from llmdoctor.files.jsonfile import JsonFile
from llmdoctor.modeldir import hub
from llmdoctor.modeldir.directory import ModelDir
from llmdoctor.requests.request_files import Request
from llmdoctor.sample.rules import DEFAULTS, TAKEN

# What is off, in both libraries: a file that sets it changes nothing. vLLM reads these (config/model.py:1882 available_params).
_NEUTRAL: dict[str, tuple[float, ...]] = {
    "temperature": (1.0,), "top_p": (1.0,), "top_k": (0, -1, 50), "min_p": (0.0,), "repetition_penalty": (1.0,),
}  # fmt: skip

_ONE_TOKEN = {
    "top_k": 1,
    "top_p": 0.01,
}  # with at most so much one token is left, whatever the temperature; top_k 0 and -1 are not among `values`
_OFF = {"top_k": "-1", "top_p": "1.0", "min_p": "0.0", "repetition_penalty": "1.0"}  # as vLLM writes "off"


def file_defaults(directory: ModelDir) -> tuple[Finding, ...]:
    """The one finding of a model directory whose generation_config.json sets how tokens are drawn; an adapter's base is judged where it lies.

    Where do_sample is not true transformers does not sample and only vLLM takes the settings: GEN008 tells that, and this rule is silent, as it
    is over a file of the library's own defaults (temperature 1, top_k 50, top_p 1).
    """
    file = directory.json("generation_config.json")
    values = _drawn_with(file)
    if file is None or not values or file.value.get("do_sample") is not True:
        return ()
    named = ", ".join(f"{name} {shown(value)}" for name, value in values.items())
    first = next(iter(values))
    where = Location(file.shown_name, f"/{first}", file.line(f"/{first}"))
    message = f"a call that sets nothing else draws with {named}"
    cause = "transformers generate() and vLLM's --generation-config auto take them from this file"
    return (DEFAULTS.at(where, message, cause=cause, **values),)


def check_requests(requests: tuple[Request, ...], linked: LinkedFiles) -> Iterator[Finding]:
    """What requests leave to the generation_config.json of a model that lies here: a directory, or a hub id in the cache."""
    for request in requests:
        file = None if request.is_openai else _config_of(request, linked)
        values = {name: value for name, value in _drawn_with(file).items() if request.settings.get(name) is None}
        if file is None or not values:
            continue
        if _is_greedy(request.settings.get("temperature")):
            values = {name: value for name, value in values.items() if name == "repetition_penalty"}
        if not values:
            continue
        yield _taken(request, file, values)


def _taken(request: Request, file: JsonFile, values: Mapping[str, Any]) -> Finding:
    """Return the finding for a request that leaves `values` to `file`: with the values to write down, or to turn off if they leave one token."""
    named = ", ".join(f"{name} {shown(value)}" for name, value in values.items())
    times = "" if request.count == 1 else f" ({request.count:,} requests from line {request.line} on)"
    message = f"the request does not set {', '.join(values)}: vLLM takes {named} from {file.shown_name}{times}"
    single = [name for name, value in values.items() if name in _ONE_TOKEN and value <= _ONE_TOKEN[name]]
    fix = ", ".join(f'"{name}": {shown(value)}' for name, value in values.items())
    if single and request.settings.get("temperature") is not None:
        message += f"; {' and '.join(single)} leave one token to draw from, so that the temperature has no effect"
        off = ", ".join(f'"{name}": {_OFF.get(name, shown(value))}' for name, value in values.items())
        fix = f"{off} in the request, or vllm serve --generation-config vllm"
    cause = "vllm/config/model.py:1860 (get_diff_sampling_param)"
    return TAKEN.at(request.where(), message, cause=cause, fix=fix, requests=request.count, **values)


def _drawn_with(file: JsonFile | None) -> Mapping[str, Any]:
    """The sampling settings of a generation_config.json that are not off."""
    if file is None or not isinstance(file.value, dict):
        return {}
    found = {name: file.value[name] for name in _NEUTRAL if isinstance(file.value.get(name), int | float)}
    return {name: value for name, value in found.items() if not isinstance(value, bool) and value not in _NEUTRAL[name]}


def _config_of(request: Request, linked: LinkedFiles) -> JsonFile | None:
    name = request.model
    if not name or "\0" in name:
        return None
    snapshot = hub.find_snapshot(name) if hub.looks_like_id(name) and "/" in name and not os.path.isdir(name) else None
    return linked.named(request.shown_name, os.path.join(snapshot or name, "generation_config.json"))


def _is_greedy(temperature: Any) -> bool:
    return isinstance(temperature, int | float) and not isinstance(temperature, bool) and 0 <= temperature < 1e-5

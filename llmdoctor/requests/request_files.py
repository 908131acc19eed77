"""Requests to an OpenAI-compatible server as files keep them: one JSON object, or a batch of lines with a `body` each (vllm run-batch, OpenAI).

Only the settings of a request are kept, not its messages: the lines of a batch that ask alike are one Request with a count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from llmdoctor.core.edit import Edit
from llmdoctor.core.finding import Location
from llmdoctor.files.jsonfile import MAX_DEPTH, JsonFile, is_too_deep
from llmdoctor.files.opening import Refusal, open_inside, shown_path

HEAD, LINE_LIMIT, BATCH_LIMIT, MAX_GROUPS = 2**16, 16 * 2**20, 256 * 2**20, 200
_CONTENT = ("messages", "prompt", "input")
_SETTINGS = frozenset(
    "temperature top_p top_k min_p max_tokens max_completion_tokens min_tokens stop stop_token_ids ignore_eos n best_of seed presence_penalty "
    "frequency_penalty repetition_penalty logprobs top_logprobs logit_bias stream response_format tools tool_choice use_beam_search".split()
)
_OPENAI = ("gpt-3", "gpt-4", "gpt-5", "chatgpt", "o1", "o3", "o4", "davinci", "babbage", "ft:gpt")


@dataclass(frozen=True, slots=True)
class Request:
    """The settings of `count` requests that ask alike; `file`, `line` and `at` (a JSON pointer) give the place of the first."""

    settings: Mapping[str, Any]
    endpoint: str
    shown_name: str
    line: int | None = None
    at: str = ""
    count: int = 1
    file: JsonFile | None = None

    @property
    def model(self) -> str:
        """The model's name, "" if none is given."""
        model = self.settings.get("model")
        return model if isinstance(model, str) else ""

    @property
    def is_openai(self) -> bool:
        """Whether the model is one that OpenAI serves, so that its API's own limits hold."""
        name = self.model.lower()
        return name.startswith(_OPENAI) and "/" not in name and not os.path.isdir(name)

    def where(self, *keys: str) -> Location:
        """The place of a setting."""
        pointer = self.at + "".join(f"/{key}" for key in keys)
        line = self.file.line(pointer) if self.file is not None else self.line
        return Location(self.shown_name, pointer or None, line)

    def removal(self, *keys: str, safe: bool) -> tuple[Edit, ...]:
        """Edits that take settings out of a JSON file; a batch's lines are not edited, nor what extra_body brought."""
        if self.file is None:
            return ()
        body = self.file.value["body"] if self.at else self.file.value
        if not all(key in body for key in keys):
            return ()
        return tuple(Edit(self.shown_name, f"{self.at}/{key}", "remove", safe=safe) for key in keys)


def is_request(value: Any) -> bool:
    """A body with a model, something to answer and a setting, and nothing of an answer; or a batch's line."""
    if not isinstance(value, dict):
        return False
    if _is_line(value):
        return True
    asks = isinstance(value.get("model"), str) and any(isinstance(value.get(key), list | str) for key in _CONTENT)
    return asks and bool(_SETTINGS & value.keys()) and not {"choices", "usage", "object", "response"} & value.keys()


def requests_in(file: JsonFile) -> tuple[Request, ...]:
    """The request in a JSON file."""
    body, at = (file.value["body"], "/body") if _is_line(file.value) else (file.value, "")
    return (
        Request(
            settings=_only_settings(body), endpoint=_endpoint(file.value), shown_name=file.shown_name, line=None, at=at, count=1, file=file
        ),
    )


def read_batch(path: str) -> tuple[Request, ...] | str | None:
    """Return the requests of a JSON Lines file, grouped; None if its first line is not a request, a reason if the file cannot be read to the end.

    Only the first line is read of a file that is not a batch.
    """
    opened = open_inside(path, None)
    if opened is None or isinstance(opened, Refusal):
        return None if opened is None else opened.reason
    with os.fdopen(opened, "rb") as file:
        head = file.read(HEAD)
        if not any(f'"{key}"'.encode() in head for key in ("body", *_CONTENT)) or b'"model"' not in head:
            return None
        file.seek(0)
        return _grouped(file, shown_path(path))


def _grouped(file: BinaryIO, name: str) -> tuple[Request, ...] | str | None:
    groups: dict[str, Request] = {}
    read = 0
    for number, line in _lines(file):
        read += len(line)
        if len(line) > LINE_LIMIT or read > BATCH_LIMIT:
            return f"line {number} passes the limit of {LINE_LIMIT} bytes a line, {BATCH_LIMIT} in all"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return None if number == 1 else f"line {number} is not JSON"
        if is_too_deep(value):
            return None if number == 1 else f"line {number} is nested deeper than {MAX_DEPTH} levels"
        if not is_request(value):
            if number == 1:
                return None
            continue
        body, at = (value["body"], "/body") if _is_line(value) else (value, "")
        settings = _only_settings(body)
        key = json.dumps([settings, _endpoint(value)], sort_keys=True, default=str)
        found = groups.get(key)
        if found is None and len(groups) >= MAX_GROUPS:
            continue  # more kinds of request than a person writes: what is wrong with the first is reported
        groups[key] = Request(settings, _endpoint(value), name, number, at) if found is None else replace(found, count=found.count + 1)
    return tuple(groups.values()) or None


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(LINE_LIMIT + 1):
        number += 1
        if line.strip():
            yield number, line


def _is_line(value: Mapping[str, Any]) -> bool:
    url = value.get("url")
    return isinstance(value.get("body"), dict) and isinstance(url, str) and url.startswith("/v1/") and "completions" in url


def _endpoint(value: Mapping[str, Any]) -> str:
    url = value.get("url")
    if url is None and "input" in value and not {"messages", "prompt"} & value.keys():
        return "responses"  # or embeddings: no limit of the completions' kind
    return "chat" if "chat" in str(url) or (url is None and "messages" in value) else "completions"


def _only_settings(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without what it is about; `extra_body`, which the openai package lays over it, unfolded."""
    extra = body.get("extra_body")
    kept = {key: value for key, value in body.items() if key not in _CONTENT and key != "extra_body"}
    return {**kept, **extra} if isinstance(extra, dict) else kept

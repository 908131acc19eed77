"""Responses with log-probabilities, as OpenAI's API, vLLM and SGLang write them, JSON or JSON lines; a request beside them is the claim."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.modeldir.files import Refusal, read_bytes

_LIMIT = 512 << 20
_REQUESTS = ("request", "body", "params", "sampling_params")
_RESPONSES = ("response", "output", "result")


@dataclass(frozen=True, slots=True)
class Listed:
    """One step: the drawn token and its log-probability, and the listed alternatives, likeliest first; `rank` where the engine gives it."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...]
    rank: int | None = None


@dataclass(slots=True)
class Responses:
    """Every step of a file's responses, the requests beside them, and which engine wrote them ("" where that cannot be told)."""

    path: str
    steps: list[Listed] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    masks: list[tuple[int, ...]] = field(default_factory=list)
    engine: str = ""


def looks_like_responses(path: str) -> bool:
    """Whether the file can be JSON with objects in it, rather than a list of numbers."""
    try:
        with open(path, "rb") as file:
            start = file.read(4096).lstrip()
    except OSError:
        return False
    return start[:1] == b"{" or (start[:1] == b"[" and start[1:].lstrip()[:1] == b"{")


def read_responses(path: str) -> Responses:
    """Read them all. Raises QuestionError."""
    data = read_bytes(path, _LIMIT)
    if data is None:
        raise QuestionError(f"{path}: no such file")
    if isinstance(data, Refusal):
        raise QuestionError(f"{path} {data.reason}")
    found = Responses(path)
    for line, value in _values(data, path):
        try:
            _read(value, found)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise QuestionError(f"{path}:{line}: not a response with log-probabilities: {type(error).__name__}: {error}") from None
    if not found.steps:
        raise QuestionError(f"{path}: no log-probabilities in it; ask for them with logprobs=True, top_logprobs=20")
    return found


def _values(data: bytes, path: str) -> Iterator[tuple[int, Any]]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        for number, line in enumerate(data.splitlines(), 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError):
                    raise QuestionError(f"{path}:{number}: not JSON; the file may be cut off") from None
        return
    yield from ((1, item) for item in (value if isinstance(value, list) else [value]))


def _read(value: Any, found: Responses) -> None:
    if not isinstance(value, dict):
        raise TypeError(f"a JSON {type(value).__name__}, expected an object")
    for key in _REQUESTS:
        if isinstance(value.get(key), dict):
            found.requests.append(value[key])
            break
    inner = next((value[key] for key in _RESPONSES if isinstance(value.get(key), dict)), value)
    masks = inner.get("sampling_mask")
    if isinstance(masks, list):
        found.masks += [tuple(int(token) for token in mask) for mask in masks]
    if isinstance(inner.get("meta_info"), dict):
        found.engine = "sglang"
        _sglang(inner["meta_info"], found)
    for choice in inner.get("choices") or inner.get("outputs") or []:
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
            found.steps += [_chat(item) for item in logprobs["content"]]
        elif isinstance(logprobs, dict):
            found.steps += list(_completion(logprobs))
        elif isinstance(logprobs, list):
            found.engine = "vllm"
            found.steps += list(_vllm(choice["token_ids"], logprobs))


def _chat(item: dict[str, Any]) -> Listed:
    top = tuple((str(other["token"]), _number(other["logprob"])) for other in item.get("top_logprobs") or [])
    return _listed(str(item["token"]), _number(item["logprob"]), top)


def _completion(logprobs: dict[str, Any]) -> Iterator[Listed]:
    tops = logprobs.get("top_logprobs") or [{}] * len(logprobs["tokens"])
    for token, logprob, top in zip(logprobs["tokens"], logprobs["token_logprobs"], tops, strict=True):
        if logprob is not None:
            yield _listed(str(token), _number(logprob), tuple((str(other), _number(value)) for other, value in (top or {}).items()))


def _vllm(tokens: list[int], logprobs: list[dict[str, Any]]) -> Iterator[Listed]:
    for token, step in zip(tokens, logprobs, strict=True):
        own = step[str(token)]
        most = max((int(item["rank"]) for other, item in step.items() if other != str(token) and item.get("rank")), default=0)
        top = tuple(
            (other, _number(item["logprob"]))
            for other, item in step.items()
            if other != str(token) or int(item.get("rank") or 0) <= most + 1
        )
        yield _listed(str(token), _number(own["logprob"]), top, own.get("rank"))


def _sglang(meta: dict[str, Any], found: Responses) -> None:
    tops = meta.get("output_top_logprobs") or []
    for index, entry in enumerate(meta.get("output_token_logprobs") or []):
        top = tops[index] if index < len(tops) and tops[index] else []
        found.steps.append(_listed(str(entry[1]), _number(entry[0]), tuple((str(other[1]), _number(other[0])) for other in top)))


def _listed(token: str, logprob: float, top: tuple[tuple[str, float], ...], rank: int | None = None) -> Listed:
    ordered = tuple(sorted(top, key=lambda item: -item[1]))
    return Listed(token, logprob, ordered, rank)


def _number(value: Any) -> float:
    if value is None:
        return -math.inf
    number = float(value)
    if math.isnan(number) or number > 1e-2:
        raise ValueError(f"{value!r} is no log-probability")
    return -math.inf if number <= -9999 else number  # vLLM writes -9999 for -inf, which JSON cannot hold

"""Responses with log-probabilities: JSON, JSON lines or an event stream (SSE) of OpenAI (chat, completions, responses, batch output), vLLM,
TensorRT-LLM, SGLang, llama.cpp (old and new), TGI and Ollama.

A request beside a response is its claim. Prompt tokens (`echo`, `prompt_logprobs`) are left out: they were not drawn.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.opening import Refusal, open_inside, read_bytes
from llmdoctor.requests.listed import Listed, Responses

_LIMIT = 512 << 20
_SAME = 0.05  # nats by which a server's two numbers for one token may differ
_REQUESTS = ("request", "body", "params", "sampling_params", "generation_settings")
_RESPONSES = ("response", "output", "result", "body")
_EVENTS = (b"data:", b"event:", b": ")


def looks_like_responses(path: str) -> bool:
    """Return whether the file can be JSON with objects in it or an event stream, rather than a list of numbers."""
    opened = open_inside(path, None)
    if not isinstance(opened, int):
        return False
    with os.fdopen(opened, "rb") as file:
        start = file.read(4096).lstrip()
    return start[:1] == b"{" or (start[:1] == b"[" and start[1:].lstrip()[:1] == b"{") or start.startswith(_EVENTS)


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
            _read(value, found, line)
        except KeyError as error:
            raise QuestionError(
                f"{path}:{line}: not a response with log-probabilities: no {error.args[0]!r} where one is expected"
            ) from None
        except (TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            text = "an entry of another type" if isinstance(error, AttributeError | RecursionError) else str(error)
            raise QuestionError(f"{path}:{line}: not a response with log-probabilities: {text[:120]}") from None
    if not found.steps:
        raise QuestionError(f"{path}: no log-probabilities in it; ask for them with logprobs=True, top_logprobs=20")
    return found


def _values(data: bytes, path: str) -> Iterator[tuple[int, Any]]:
    if data.lstrip().startswith(_EVENTS):
        yield from _events(data, path)
        return
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
    yield from enumerate(value if isinstance(value, list) else [value], 1)


def _events(data: bytes, path: str) -> Iterator[tuple[int, Any]]:
    """The chunks of an event stream, those of one response as one value {"chunks": [...]}."""
    streams: dict[str, tuple[int, list[Any]]] = {}
    for number, line in enumerate(data.splitlines(), 1):
        text = line.strip()
        if not text.startswith(b"data:") or text[5:].strip() in (b"", b"[DONE]"):
            continue
        try:
            chunk = json.loads(text[5:])
        except (ValueError, RecursionError):
            raise QuestionError(f"{path}:{number}: not JSON behind `data:`; the stream may be cut off") from None
        name = str(chunk.get("id", "")) if isinstance(chunk, dict) else ""
        streams.setdefault(name, (number, []))[1].append(chunk)
    for number, chunks in streams.values():
        yield number, {"chunks": chunks}


def _read(value: Any, found: Responses, line: int) -> None:
    if not isinstance(value, dict):
        raise TypeError(f"a JSON {type(value).__name__}, expected an object")
    request: dict[str, Any] | None = None
    sequences: dict[int, list[Listed]] = {}
    for chunk in _last_of_cumulative(value["chunks"]) if isinstance(value.get("chunks"), list) else [value]:
        request = _read_one(chunk, found, sequences) or request
    for _, steps in sorted(sequences.items()):
        if steps:
            found.steps += steps
            found.requests.append((line, request))
            found.sizes.append(len(steps))


def _last_of_cumulative(chunks: list[Any]) -> list[Any]:
    """SGLang's chunks repeat everything so far: the last one is enough."""
    whole = [chunk for chunk in chunks if isinstance(chunk, dict) and isinstance(chunk.get("meta_info"), dict)]
    return whole[-1:] if whole else chunks


def _read_one(value: Any, found: Responses, sequences: dict[int, list[Listed]]) -> dict[str, Any] | None:
    """Read one response, or one chunk of a stream, into its sequences by the index of the choice; return the request beside it."""
    if not isinstance(value, dict):
        raise TypeError(f"a JSON {type(value).__name__}, expected an object")
    inner = value
    while deeper := next((inner[key] for key in _RESPONSES if isinstance(inner.get(key), dict)), None):
        inner = deeper  # OpenAI's batch output: response.body
    request = _request(value, inner)
    steps: list[Listed] = []
    meta = inner.get("meta_info")
    prompts = inner.get("prompt_logprobs") or (meta.get("input_token_logprobs") if isinstance(meta, dict) else None)
    if isinstance(prompts, list) and prompts:
        found.notes.append(f"{len(prompts)} prompt tokens (prompt_logprobs) are not judged: they were not drawn")
    masks = inner.get("sampling_mask")
    if isinstance(masks, list):
        found.masks += [tuple(int(token) for token in mask) for mask in masks]
    if isinstance(inner.get("meta_info"), dict):
        found.engine = "sglang"
        steps = list(_sglang(inner["meta_info"]))
    elif isinstance(inner.get("completion_probabilities"), list):
        found.engine = "llama.cpp"
        steps = [_llama(item, found) for item in inner["completion_probabilities"]]
    elif isinstance(inner.get("details"), dict):
        found.engine = "tgi"
        steps = list(_tgi(inner["details"]))
    elif isinstance(inner.get("token"), dict) and "logprob" in inner["token"]:
        found.engine = "tgi"  # a chunk of its stream
        steps = list(_tgi({"tokens": [inner["token"]], "top_tokens": [inner.get("top_tokens") or []]}))
    elif isinstance(inner.get("output"), list):
        steps = [_chat(item) for part in _parts(inner["output"]) for item in part.get("logprobs") or []]
    elif isinstance(inner.get("logprobs"), list) and "choices" not in inner and "outputs" not in inner:
        found.engine = found.engine or ("ollama" if "done" in inner else "")
        steps = [_chat(item) for item in inner["logprobs"]]
    sequences.setdefault(-1, []).extend(steps)
    _choices(inner, request, found, sequences)
    return request


def _choices(inner: Mapping[str, Any], request: Mapping[str, Any] | None, found: Responses, sequences: dict[int, list[Listed]]) -> None:
    """The choices of a response; the prompt's tokens in front of each (echo) are left out."""
    choices = inner.get("choices") or inner.get("outputs") or []
    each: list[list[Listed | None]] = [_choice(choice, found) for choice in choices]
    prompt = _echoed(each, inner, request, choices)
    if prompt:
        found.notes.append(f"{prompt * len(each)} prompt tokens (echo) are in the list and are not judged: they were not drawn")
    for place, (steps, choice) in enumerate(zip(each, choices, strict=True)):
        index = choice.get("index", place)
        mine = sequences.setdefault(index if type(index) is int else place, [])
        mine += [step for step in steps[prompt:] if step is not None]


def _echoed(each: list[list[Listed | None]], inner: Mapping[str, Any], request: Mapping[str, Any] | None, choices: list[Any]) -> int:
    """How many tokens at the start of each choice are the prompt's. Raises ValueError if they are in the list and cannot be counted."""
    usage = inner.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    prompt, drawn = usage.get("prompt_tokens"), usage.get("completion_tokens")
    total = sum(map(len, each))
    echoed = request is not None and request.get("echo") is True
    if type(prompt) is int and type(drawn) is int and each and total > drawn and total == len(each) * prompt + drawn:
        return prompt
    begins = any(steps and steps[0] is None for steps in each)
    if not echoed and not begins:
        return 0
    if type(drawn) is int and len(each) == 1 and total >= drawn:
        return total - drawn
    text = request.get("prompt") if request is not None else None
    offsets = (choices[0].get("logprobs") or {}).get("text_offset") if len(choices) == 1 else None
    if isinstance(text, str) and isinstance(offsets, list) and len(offsets) == total:
        return sum(type(offset) is int and offset < len(text) for offset in offsets)
    raise ValueError(
        "its list starts with the prompt's tokens (echo); without usage.completion_tokens the number of drawn tokens is unknown"
    )


def _choice(choice: Any, found: Responses) -> list[Listed | None]:
    """The steps of one choice; None for a token without a log-probability, which only the first one of an echoed prompt is."""
    if not isinstance(choice, dict):
        raise TypeError(f"a JSON {type(choice).__name__} among its choices, expected an object")
    logprobs = choice.get("logprobs")
    if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
        return [_chat(item) for item in logprobs["content"]]
    if isinstance(logprobs, dict) and "tokens" in logprobs:
        return _completion(logprobs, found)
    if isinstance(logprobs, list) and logprobs and all(isinstance(item, int | float) for item in logprobs):
        return [_listed(str(token), _number(item), ()) for token, item in zip(choice["token_ids"], logprobs, strict=True)]  # TensorRT-LLM
    if isinstance(logprobs, list):
        found.engine = found.engine or "vllm"
        return list(_vllm(choice["token_ids"], logprobs))
    return []


def _request(value: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any] | None:
    """The request beside a response; OpenAI's response object repeats its temperature and top_p."""
    found = next((value[key] for key in _REQUESTS if isinstance(value.get(key), dict) and value[key] is not inner), None)
    if found is None and inner.get("object") == "response":
        found = {name: inner[name] for name in ("temperature", "top_p", "top_logprobs") if name in inner}
    return found or None


def _parts(output: list[Any]) -> Iterator[dict[str, Any]]:
    for item in output:
        for part in (item.get("content") if isinstance(item, dict) else None) or []:
            if isinstance(part, dict):
                yield part


def _chat(item: dict[str, Any]) -> Listed:
    top = tuple((str(other["token"]), _number(other["logprob"])) for other in item.get("top_logprobs") or [])
    return _listed(str(item["token"]), _number(item["logprob"]), top)


def _completion(logprobs: dict[str, Any], found: Responses) -> list[Listed | None]:
    """The steps of a completion, whose lists are objects by text: of several tokens with one text such an object keeps one alone.

    Lists with such a text are left out: it is that of single bytes, or of a drawn token that is listed with another log-probability.
    """
    tops = logprobs.get("top_logprobs") or [{}] * len(logprobs["tokens"])
    steps: list[Listed | None] = []
    for token, logprob, top in zip(logprobs["tokens"], logprobs["token_logprobs"], tops, strict=True):
        listed = tuple((str(other), _number(value)) for other, value in (top or {}).items())
        steps.append(None if logprob is None else _listed(str(token), _number(logprob), listed))
    shared = {step.token for step in steps if step is not None and _listed_otherwise(step)}
    unclear = [step is not None and any(text in shared or text == "" or "\ufffd" in text for text, _ in step.top) for step in steps]
    if any(unclear):
        found.notes.append(f"{sum(unclear)} lists are left out: several tokens have one text in them, of which an object keeps one")
    return [replace(step, top=()) if step is not None and bad else step for step, bad in zip(steps, unclear, strict=True)]


def _listed_otherwise(step: Listed) -> bool:
    """Whether a token with the text of the drawn one is listed, and with another log-probability."""
    place = step.place
    return place is not None and step.top[place][1] != step.logprob and not abs(step.top[place][1] - step.logprob) <= _SAME


def _vllm(tokens: list[int], logprobs: list[dict[str, Any]]) -> Iterator[Listed]:
    for token, step in zip(tokens, logprobs, strict=True):
        own = step[str(token)]
        rank = own.get("rank")
        if rank is not None and type(rank) is not int:
            raise ValueError(f"rank {str(rank)[:40]!r}, expected a whole number")
        yield _listed(str(token), _number(own["logprob"]), tuple((other, _number(item["logprob"])) for other, item in step.items()), rank)


def _sglang(meta: dict[str, Any]) -> Iterator[Listed]:
    tops = meta.get("output_top_logprobs") or []
    for index, entry in enumerate(meta.get("output_token_logprobs") or []):
        top = tops[index] if index < len(tops) and tops[index] else []
        yield _listed(str(entry[1]), _number(entry[0]), tuple((str(other[1]), _number(other[0])) for other in top))


def _llama(item: dict[str, Any], found: Responses) -> Listed:
    """One step of llama.cpp's server.

    post_sampling_probs false gives logprob and top_logprobs; true gives prob and top_probs, those after the samplers. Servers before
    December 2024 give probs, a list of tok_str and prob, after the samplers too.
    """
    if "probs" in item:
        found.kind = "processed"
        top = tuple((str(other["tok_str"]), _probability(other, "prob")) for other in item["probs"])
        token = str(item["content"])
        return _listed(token, next((value for name, value in top if name == token), -math.inf), top)
    tops, name = (item["top_logprobs"], "logprob") if "top_logprobs" in item else (item["top_probs"], "prob")
    found.kind = "processed" if name == "prob" else found.kind
    return _listed(_id(item), _probability(item, name), tuple((_id(other), _probability(other, name)) for other in tops))


def _tgi(details: dict[str, Any]) -> Iterator[Listed]:
    tops = details.get("top_tokens") or []
    for index, item in enumerate(details.get("tokens") or []):
        top = tops[index] if index < len(tops) else []
        yield _listed(_id(item), _number(item["logprob"]), tuple((_id(other), _number(other["logprob"])) for other in top))


def _id(item: dict[str, Any]) -> str:
    return str(item["id"] if "id" in item else item["token"])


def _probability(item: dict[str, Any], name: str) -> float:
    if name == "logprob":
        return _number(item["logprob"])
    value = float(item["prob"])
    if not 0 <= value <= 1.001:
        raise ValueError(f"{value!r} is no probability")
    return math.log(value) if value > 0 else -math.inf


def _listed(token: str, logprob: float, top: tuple[tuple[str, float], ...], rank: int | None = None) -> Listed:
    ordered = tuple(sorted(top, key=lambda item: -item[1]))
    return Listed(token, logprob, ordered, rank)


def _number(value: Any) -> float:
    if value is None:
        return -math.inf
    number = float(value)
    if math.isnan(number) or number > 1e-2:
        raise ValueError(f"{str(value)[:40]!r} is no log-probability")
    return -math.inf if number <= -9999 else number  # vLLM writes -9999 for -inf, which JSON cannot hold

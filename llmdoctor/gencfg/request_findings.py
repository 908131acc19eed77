"""GEN017 to GEN020 over the requests of a file. vLLM's limits (0.33.0) are those that gencfg show --engine vllm knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llmdoctor.core.edit import Edit
from llmdoctor.core.finding import Finding, Severity
from llmdoctor.core.rule import Rule
from llmdoctor.core.text import shown
from llmdoctor.gencfg.engines.table import engines, version_for
from llmdoctor.gencfg.engines.vllm import effective_vllm
from llmdoctor.gencfg.engines.vllm_checks import EPSILON
from llmdoctor.gencfg.request_rules import IDLE, NO_LIMIT, REFUSED, RUNS_ON
from llmdoctor.gencfg.types import GenerateCall, Origin, SourcedValue
from llmdoctor.requests.request_files import Request

_PARAMETERS = (
    "n temperature top_p top_k min_p presence_penalty frequency_penalty repetition_penalty min_tokens seed stop".split()
)  # vLLM's names; what the limit is called depends on the endpoint
_RANGES = {  # what vllm_checks accepts, to paste
    "temperature": "0 to 2", "top_p": "above 0, at most 1", "top_k": "0 (off) or a whole number from 1", "min_p": "0 to 1",
    "presence_penalty": "-2 to 2", "frequency_penalty": "-2 to 2", "repetition_penalty": "above 0", "stop": "texts that are not empty",
    "max_tokens": "at least 1", "min_tokens": "0 to max_tokens", "n": "at least 1",
}  # fmt: skip
_STOPS = 4  # OpenAI's API reference: up to 4 sequences


def check_requests(requests: tuple[Request, ...]) -> Iterator[Finding]:
    """Yield the findings in the requests of one file; equal requests are reported once."""
    for request in requests:
        yield from _refused(request)
        yield from _idle(request)
        yield from _limit(request)
        if request.settings.get("ignore_eos") is True:
            least = request.settings.get("max_completion_tokens", request.settings.get("max_tokens"))
            until = f"to its {least} tokens" if least is not None else "until the context is full"
            yield _finding(
                RUNS_ON, request, f"ignore_eos is true: every answer runs {until}", "ignore_eos", cause="vllm/sampling_params.py:334"
            )


def _refused(request: Request) -> Iterator[Finding]:
    wrong = _openai_refusal(request) if request.is_openai else None
    if wrong is not None:
        yield _finding(REFUSED, request, wrong[1], wrong[0], cause="OpenAI API reference, chat/create")
        return
    version = version_for(engines()["vllm"], None, request.shown_name).version
    error = _vllm_error(request, version)
    if error is not None and not request.is_openai:
        name = next((key for key in sorted(request.settings, key=len, reverse=True) if key in error), "")
        fix = f'"{name}": {_RANGES[name]}' if name in _RANGES else None
        yield _finding(
            REFUSED, request, f"vLLM {version} refuses it: {error}", name, cause="vllm/sampling_params.py (_verify_args)", fix=fix
        )


def _vllm_error(request: Request, version: str) -> str | None:
    names = [*_PARAMETERS, "max_tokens"]
    origin = Origin("kwargs", "the request")
    kwargs = {name: SourcedValue(_lax(request.settings[name]), origin) for name in names if request.settings.get(name) is not None}
    most = request.settings.get("max_completion_tokens")
    if most is not None and request.endpoint == "chat":
        kwargs["max_tokens"] = SourcedValue(_lax(most), origin)
    call = GenerateCall(kwargs=kwargs)
    error = effective_vllm(call, tokenizer_eos=0, version=version).error
    return None if error is None else " ".join(error.message.split())


def _lax(value: Any) -> Any:
    """A number written as a text, which the server's request model (pydantic, lax) takes."""
    try:
        return float(value) if isinstance(value, str) and value.strip() and not value.strip().isalpha() else value
    except ValueError:
        return value


def _openai_refusal(request: Request) -> tuple[str, str] | None:
    settings = request.settings
    bounds: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
        ("temperature", lambda value: 0 <= value <= 2, "from 0 to 2"),
        ("top_p", lambda value: 0 <= value <= 1, "from 0 to 1"),
        ("presence_penalty", lambda value: -2 <= value <= 2, "from -2 to 2"),
        ("frequency_penalty", lambda value: -2 <= value <= 2, "from -2 to 2"),
    )
    for name, fits, words in bounds:
        value = settings.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not fits(value)):
            return name, f"{name} is {shown(value)}, OpenAI takes a number {words}"
    stop = settings.get("stop")
    if isinstance(stop, list) and len(stop) > _STOPS:
        return "stop", f"stop holds {len(stop)} sequences, OpenAI takes at most {_STOPS}"
    foreign = [name for name in ("top_k", "min_p", "repetition_penalty", "ignore_eos", "min_tokens", "stop_token_ids") if name in settings]
    if foreign:
        return foreign[0], f"{', '.join(foreign)}: vLLM's, OpenAI answers 400 (unrecognized request argument)"
    return None


def _idle(request: Request) -> Iterator[Finding]:
    settings = request.settings
    temperature = settings.get("temperature")
    if isinstance(temperature, int | float) and not isinstance(temperature, bool) and 0 <= temperature < EPSILON:
        off = {"top_p": (1,), "top_k": (0, -1, 1), "min_p": (0,)}
        idle = [name for name, neutral in off.items() if settings.get(name) is not None and settings[name] not in neutral]
        if idle:
            named = " and ".join(f"{name} {shown(settings[name])}" for name in idle)
            message = f"temperature is {temperature:g}, so {named} {'does' if len(idle) == 1 else 'do'} nothing: decoding is greedy"
            cause = "vllm/sampling_params.py:617" if not request.is_openai else None
            fix = f"remove {' and '.join(idle)}, or set a temperature"
            yield _finding(IDLE, request, message, idle[0], cause=cause, fix=fix, edits=request.removal(*idle, safe=not request.is_openai))
    if settings.get("max_tokens") is not None and settings.get("max_completion_tokens") is not None and request.endpoint == "chat":
        most, least = settings["max_completion_tokens"], settings["max_tokens"]
        message = f"max_tokens {shown(least)} is not read beside max_completion_tokens {shown(most)}"
        yield _finding(
            IDLE,
            request,
            message,
            "max_tokens",
            cause="OpenAI deprecated max_tokens; servers take the new name first",
            fix="remove max_tokens",
        )
    if settings.get("max_completion_tokens") is not None and request.endpoint == "completions":
        message = "max_completion_tokens is not known at /v1/completions: the limit there is max_tokens, 16 unless it is set"
        fix = f'"max_tokens": {shown(settings["max_completion_tokens"])}'
        yield _finding(IDLE, request, message, "max_completion_tokens", fix=fix)
    if settings.get("stop") == []:
        yield _finding(IDLE, request, "stop is an empty list: it stops nothing", "stop", fix="remove it", severity=Severity.INFO)


def _limit(request: Request) -> Iterator[Finding]:
    names = ("max_tokens", "max_completion_tokens") if request.endpoint == "chat" else ("max_tokens",)
    if request.endpoint == "responses" or any(request.settings.get(name) is not None for name in names):
        return
    until = "may fill the context" if request.endpoint == "chat" else "are cut after 16 tokens"
    yield _finding(NO_LIMIT, request, f"no {' or '.join(names)}: answers {until}", cause="vllm/entrypoints/serve/utils/api_utils.py:234")


def _finding(
    rule: Rule,
    request: Request,
    message: str,
    *keys: str,
    cause: str | None = None,
    fix: str | None = None,
    severity: Severity | None = None,
    edits: tuple[Edit, ...] = (),
) -> Finding:
    times = "" if request.count == 1 else f" ({request.count:,} requests from line {request.line} on)"
    where = request.where(*(key for key in keys if key))
    return rule.at(where, message + times, cause=cause, fix=fix, severity=severity, edits=edits, requests=request.count)

"""What a single file is: told from its first bytes, and where it is JSON from its keys. The name counts only where bytes do not tell."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from llmdoctor.check.kinds import kind_of
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.text import shown
from llmdoctor.files.opening import Refusal, open_inside
from llmdoctor.files.yamlfile import YAML_LIMIT, parse_yaml
from llmdoctor.look.binaries import see_binary
from llmdoctor.look.report import Seen, Try, model_near, quoted
from llmdoctor.mem.fields import Given
from llmdoctor.mem.strategies import read_strategy

HEAD = 256 * 2**10
_WHOLE = 16 * 2**20  # a JSON file up to here is decoded, of a larger one its head is looked at
_GENERATION = {"eos_token_id", "pad_token_id", "do_sample", "max_new_tokens", "temperature", "top_p", "top_k"}
_OUTPUTS = {
    "completion",
    "completions",
    "output",
    "outputs",
    "response",
    "responses",
    "generated_text",
    "completion_ids",
    "output_ids",
    "token_ids",
}


def see_file(path: str) -> Seen:
    """What the file is. Raises QuestionError where it is none, or cannot be read."""
    opened = open_inside(path, None)
    if opened is None:
        raise QuestionError(f"{path}: no such file")
    if isinstance(opened, Refusal):
        raise QuestionError(f"{path} {opened.reason}")
    with os.fdopen(opened, "rb") as file:
        try:
            head = file.read(HEAD)
            size = os.fstat(file.fileno()).st_size
            whole = head + file.read(_WHOLE + 1 - len(head)) if _is_text(head) and size <= _WHOLE else head
        except OSError as error:
            raise QuestionError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not head:
        return Seen("empty", "AN EMPTY FILE")
    seen = _by_bytes(path, head) or (_by_text(path, whole, len(whole) < size) if _is_text(head) else None)
    return seen or Seen("unknown", "NOTHING THIS TOOL KNOWS", (("bytes", f"{size:,}"), ("begins", shown(head[:16]))))


def _is_text(head: bytes) -> bool:
    return b"\0" not in head[:4096]


# --- files that are no text ------------------------------------------------------------------------------------------------------------


def _by_bytes(path: str, head: bytes) -> Seen | None:
    if head.startswith(b"PAR1") or head.startswith(b"\x1f\x8b"):
        kind = "A PARQUET TABLE" if head.startswith(b"PAR1") else "A COMPRESSED TABLE OR LOG"
        return _maybe(_outputs(path, f"{kind}: outputs, if it has a column of them", ()))
    return see_binary(path, head)


# --- text --------------------------------------------------------------------------------------------------------------------------------


def _by_text(path: str, data: bytes, cut: bool) -> Seen | None:
    ending = os.path.splitext(path)[1].lower()
    if ending in (".py", ".ipynb"):
        what = "A NOTEBOOK" if ending == ".ipynb" else "PYTHON"
        return Seen("code", what, (), (Try(f"llmdoctor check {quoted(path)}", "pitfalls of generate(), masks and sampling in it"),))
    if ending in (".yaml", ".yml"):
        return _yaml(path, data)
    if data.lstrip()[:1] not in (b"{", b"["):
        from llmdoctor.look.logs import see_log

        return see_log(path, data)
    values, lines = _values(data, cut)
    if not values:
        what = "JSON OR JSON LINES THAT CANNOT BE READ"
        return Seen("unreadable", what, (), (Try(f"llmdoctor check {quoted(path)}", "where it is broken"),) if ending == ".json" else ())
    first = values[0]
    if isinstance(first, dict):
        for recognise in _OBJECTS:
            seen = recognise(path, first, lines)
            if seen is not None:
                return seen
    if lines:
        return _maybe(_outputs(path, "JSON LINES: recorded outputs, if they hold any", (("first line has", _keys(first)),)))
    if isinstance(first, list):
        return _list(path, first)
    return Seen("json", "JSON THAT THIS TOOL HAS NO QUESTION ABOUT", (("keys", _keys(first)),))


def _values(data: bytes, cut: bool) -> tuple[list[Any], bool]:
    """The file's value, or the first lines' values and True; nothing where neither is JSON."""
    if not cut:
        try:
            return [json.loads(data)], False
        except (ValueError, RecursionError):
            pass
    values = []
    for line in data.split(b"\n", 4)[:3]:
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError):
            break
    return values, True


def _trace(path: str, value: Mapping[str, Any], _lines: bool) -> Seen | None:
    if not ({"kind", "t"} <= value.keys() and ("pid" in value or "schema" in value)):
        return None
    file = quoted(path)
    return Seen(
        "trace",
        "A TRACE of generate() calls, by `llmdoctor gencfg trace`",
        (("first record", str(value["kind"])),),
        (
            Try(f"llmdoctor gencfg trace --summary {file}", "which calls stopped, and what cleared their eos"),
            Try(f"llmdoctor gencfg diff {file}", "the run's call against a plain generate() of its model"),
            Try(f"llmdoctor gencfg trace --summary {file} --format html:trace.html", "the same to send to somebody"),
        ),
    )


def _ours(path: str, value: Mapping[str, Any], _lines: bool) -> Seen | None:
    schema, file = value.get("schema"), quoted(path)
    if schema == "llmdoctor.report/1":
        return Seen("report", f"A REPORT of `llmdoctor {value.get('command')}`", (("findings", _count(value.get("findings"))),))
    if schema == "llmdoctor.baseline/1":
        tries: tuple[Try, ...] = (Try(f"llmdoctor check --baseline {file}", "what is found that the baseline does not know"),)
        return Seen("baseline", "A BASELINE of `llmdoctor check`", (("findings", _count(value.get("findings"))),), tries)
    if schema == "llmdoctor.mem/1":
        tries = (
            Try(f"llmdoctor mem measure --summary {file}", "what was held, phase by phase"),
            Try(f"llmdoctor mem compare {model_near(path)} --strategy trainer:adamw_torch --measured {file}", "the prediction beside it"),
        )
        return Seen("measured", "RECORDS of `llmdoctor mem measure`", (), tries)
    return None


def _model_file(path: str, value: Mapping[str, Any], _lines: bool) -> Seen | None:
    name = os.path.basename(path)
    folder = quoted(os.path.dirname(path) or ".")
    if "model_type" in value or "architectures" in value or name in ("tokenizer_config.json", "tokenizer.json", "adapter_config.json"):
        kind = value.get("model_type") or value.get("tokenizer_class") or value.get("peft_type") or ""
        return Seen(
            "model-file",
            f"A FILE OF A MODEL DIRECTORY{f': {kind}' if kind else ''}",
            (),
            (Try(f"llmdoctor look {folder}", "the directory as a whole"),),
        )
    if name == "generation_config.json" or ("transformers_version" in value and _GENERATION & value.keys()):
        ids = [("eos_token_id", shown(value.get("eos_token_id"))), ("do_sample", shown(value.get("do_sample")))]
        tries = (
            Try(f"llmdoctor gencfg show {quoted(path)}", "what one generate() comes to, and whether it stops"),
            Try(f"llmdoctor gencfg check {folder}", "whether it stops where the chat template ends"),
            Try(f"llmdoctor gencfg diff {quoted(path)} {model_near(os.path.dirname(path) or '.')}", "how it differs from another"),
        )
        return Seen("generation-config", "A GENERATION CONFIG", tuple(ids), tries)
    return None


def _training(path: str, value: Mapping[str, Any], _lines: bool) -> Seen | None:
    if "log_history" in value:
        folder = quoted(os.path.dirname(path) or ".")
        tries = (Try(f"llmdoctor look {folder}", "the checkpoint it belongs to"),)
        return Seen("trainer-state", "A TRAINER'S STATE", (("global_step", str(value.get("global_step"))),), tries)
    kind = kind_of(value)
    return None if kind is None or kind == "request" else _strategy(path, kind.upper(), ())


def _yaml(path: str, data: bytes) -> Seen:
    file = parse_yaml(data[:YAML_LIMIT], path, path)
    kind = kind_of(file.value)
    if kind is not None:
        return _strategy(path, kind.upper(), ())
    return Seen("yaml", "YAML THAT THIS TOOL HAS NO QUESTION ABOUT", (("keys", _keys(file.value)),))


def _request(path: str, value: Mapping[str, Any], lines: bool) -> Seen | None:
    file, model = quoted(path), model_near(path)
    body = value["body"] if isinstance(value.get("body"), dict) else value
    if kind_of(value) == "request":
        tries = (
            Try(f"llmdoctor check {file}", "settings that do nothing or are refused"),
            Try(f"llmdoctor gencfg show {model} --engine vllm", "what vLLM adds from the model's own files"),
        )
        rows = tuple((name, shown(body[name])) for name in ("model", "temperature", "top_p", "max_tokens", "stop") if name in body)
        return Seen("request", "A REQUEST to an OpenAI-compatible server" + (", one a line" if lines else ""), rows, tries)
    if isinstance(value.get("messages"), list) and not _OUTPUTS & value.keys():
        return _chat(path)
    return None


def _response(path: str, value: Mapping[str, Any], lines: bool) -> Seen | None:
    body = value.get("response") if isinstance(value.get("response"), dict) else value
    if isinstance(body, dict) and isinstance(body.get("body"), dict):
        body = body["body"]
    if isinstance(body, dict) and isinstance(body.get("choices"), list):
        logprobs = any(isinstance(choice, dict) and choice.get("logprobs") for choice in body["choices"])
        seen = _outputs(
            path, f"RESPONSES of an OpenAI-compatible server{', one a line' if lines else ''}", (("logprobs", "yes" if logprobs else "no"),)
        )
        return seen if logprobs else replace(seen, tries=seen.tries[:2])
    if _OUTPUTS & value.keys():
        seen = _outputs(path, "RECORDED OUTPUTS" + (", one a line" if lines else ""), (("fields", _keys(value)),))
        return seen if "logprobs" in value or "meta_info" in value else replace(seen, tries=seen.tries[:2])
    return None


def _list(path: str, value: list[Any]) -> Seen:
    if value and isinstance(value[0], dict):
        if {"role", "content"} <= value[0].keys():
            return _chat(path)
        return _maybe(_outputs(path, "A LIST OF RECORDS: recorded outputs, if they hold any", (("first has", _keys(value[0])),)))
    if value and all(isinstance(one, int | float) for one in value[:1000]):
        file = quoted(path)
        tries = (
            Try(f"llmdoctor sample engines --logits {file} --temperature 0.7 --top-p 0.9", "logits: what each engine makes of them"),
            Try(f"llmdoctor sample draw --probs {file}", "probabilities: draws from them, and what a test would see"),
        )
        return Seen("numbers", "A LIST OF NUMBERS: logits, probabilities or token ids", (("length", f"{len(value):,}"),), tries)
    return Seen("json", "JSON THAT THIS TOOL HAS NO QUESTION ABOUT", (("a list of", f"{len(value):,}"),))


def _strategy(path: str, what: str, rows: tuple[tuple[str, str], ...]) -> Seen:
    file, model = quoted(path), model_near(path)
    check = Try(f"llmdoctor check {file}", "settings that contradict each other or do nothing")
    try:
        stage = read_strategy(path, Given(model_dtype="bfloat16", hidden_size=1024)).stage
    except QuestionError as error:  # an "auto" that only the Trainer fills in, a runner that is not modelled
        rows = (*rows, ("memory", f"not told from this file alone: {str(error).removeprefix(f'{path}: ')}"))
        named = f"llmdoctor mem compare {model} --strategy trainer:adamw_torch,bf16 --strategy deepspeed:zero2,bf16"
        return Seen("strategy", what, rows, (check, Try(named, "what a step holds under the Trainer and under ZeRO-2")))
    other = "trainer:adamw_torch,bf16" if stage >= 0 else "deepspeed:zero2,bf16"
    tries = (
        check,
        Try(f"llmdoctor mem compare {model} --strategy {file}", "the memory of a step, by component"),
        Try(f"llmdoctor mem compare {model} --strategy {file} --strategy {other}", "what it would be otherwise, and why"),
    )
    return Seen("strategy", what, rows, tries)


def _chat(path: str) -> Seen:
    file, model = quoted(path), model_near(path)
    tries = (
        Try(f"llmdoctor mask inspect {model} --messages {file}", "the mask of this chat, through the model's own processor"),
        Try(f"llmdoctor gencfg check {model}", "whether the model stops where its template ends an answer"),
    )
    return Seen("messages", "A CHAT: messages with roles", (), tries)


def _outputs(path: str, what: str, rows: tuple[tuple[str, str], ...]) -> Seen:
    file, model = quoted(path), model_near(path)
    tries = (
        Try(f"llmdoctor gencfg runaway {file}", "how the sequences ended: passed terminators, loops, limits"),
        Try(f"llmdoctor gencfg runaway {file} --model {model}", "the same, with the model's terminators and the likely cause"),
        Try(f"llmdoctor sample replay {file} --temperature 1.0", "responses with logprobs: were they sampled so?"),
    )
    return Seen("outputs", what, rows, tries)


def _maybe(seen: Seen) -> Seen:
    """What may be outputs: the first command alone tells."""
    return replace(seen, kind="records", tries=seen.tries[:1])


def _count(value: Any) -> str:
    return f"{len(value):,}" if isinstance(value, list) else "not a list"


def _keys(value: Any) -> str:
    return shown(list(value)[:8] if isinstance(value, dict) else type(value).__name__, 76)


_OBJECTS: tuple[Callable[[str, Mapping[str, Any], bool], Seen | None], ...] = (
    _trace,
    _ours,
    _model_file,
    _training,
    _response,
    _request,
)

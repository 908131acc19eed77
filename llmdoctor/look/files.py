"""What a single file is: recognised by its first bytes and, for JSON, by its keys. Its name counts only if the content does not decide."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmdoctor.check.kinds import kind_of
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.text import shown
from llmdoctor.files.opening import Refusal, open_inside
from llmdoctor.files.yamlfile import YAML_LIMIT, parse_yaml
from llmdoctor.look.binaries import logprobs_of_both, recognise_binary
from llmdoctor.look.logs import recognise_log
from llmdoctor.look.paths import model_near, named_model, quoted
from llmdoctor.look.training import recognise_code, recognise_strategy
from llmdoctor.look.types import Recognised, Suggestion
from llmdoctor.modeldir.generating import names_a_model
from llmdoctor.sample.columns import holds_both_sides

if TYPE_CHECKING:
    from llmdoctor.requests.listed import Responses

HEAD = 256 * 2**10
_WHOLE = 16 * 2**20  # bytes; a larger JSON file is not parsed, only its first lines are
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
_PAIRS = ({"prompt", "completion"}, {"instruction", "output"})  # keys of recorded outputs that a training set can have too


def recognise_file(path: str) -> Recognised:
    """Return what the file is. Raises QuestionError if it cannot be read."""
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
        return Recognised("empty", "an empty file")
    found = _by_bytes(path, head) or (_by_text(path, whole, len(whole) < size) if _is_text(head) else None)
    return found or Recognised(
        "unknown", "a file that no command of llmdoctor reads", (("bytes", f"{size:,}"), ("first bytes", shown(head[:16])))
    )


def _is_text(head: bytes) -> bool:
    return b"\0" not in head[:4096]


# --- binary files ------------------------------------------------------------------------------------------------------------


def _by_bytes(path: str, head: bytes) -> Recognised | None:
    if head.startswith(b"PAR1") or head.startswith(b"\x1f\x8b"):
        kind = "a parquet table" if head.startswith(b"PAR1") else "a compressed table or log"
        return _maybe(_outputs(path, f"{kind}, which may hold recorded outputs", ()))
    return recognise_binary(path, head)


# --- text --------------------------------------------------------------------------------------------------------------------------------


def _by_text(path: str, data: bytes, cut: bool) -> Recognised | None:
    ending = os.path.splitext(path)[1].lower()
    if ending in (".py", ".ipynb"):
        return recognise_code(path, data, ending)
    if ending in (".yaml", ".yml"):
        return _yaml(path, data)
    if data.lstrip()[:1] not in (b"{", b"["):
        return recognise_log(path, data)
    values, lines = _values(data, cut)
    if lines and _has_text(data):  # a log whose first lines are a Trainer's dictionaries
        log = recognise_log(path, data)
        if log.kind == "log":
            return log
    if not values:
        what = "JSON or JSON lines that cannot be parsed"
        return Recognised(
            "unreadable", what, (), (Suggestion(f"llmdoctor check {quoted(path)}", "where it is broken"),) if ending == ".json" else ()
        )
    first = values[0]
    if isinstance(first, dict):
        for recognise in _OBJECTS:
            found = recognise(path, first, lines)
            if found is not None:
                return found
    if lines:
        return _maybe(_outputs(path, "a file of JSON lines, which may hold recorded outputs", (("keys of the first line", _keys(first)),)))
    if isinstance(first, list):
        return _list(path, first)
    return Recognised("json", "a JSON file that no command of llmdoctor reads", (("keys", _keys(first)),))


def _has_text(data: bytes) -> bool:
    """Return whether a line begins as neither a value of JSON nor one inside a value."""
    return any(line.lstrip()[:1] not in (*b'{[}]"', b"") for line in data.splitlines() if line.strip())


def _values(data: bytes, cut: bool) -> tuple[list[Any], bool]:
    """Return the value of the file and False, or the values of its first lines and True; an empty list if neither is JSON."""
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


def _trace(path: str, value: Mapping[str, Any], _lines: bool) -> Recognised | None:
    if not ({"kind", "t"} <= value.keys() and ("pid" in value or "schema" in value)):
        return None
    file = quoted(path)
    return Recognised(
        "trace",
        "a trace of generate() calls, recorded by `llmdoctor gencfg trace`",
        (("first record", str(value["kind"])),),
        (
            Suggestion(f"llmdoctor gencfg trace --summary {file}", "which calls stopped, and what cleared their eos"),
            Suggestion(f"llmdoctor gencfg diff {file}", "how the recorded call differs from a plain generate() of its model"),
            Suggestion(f"llmdoctor gencfg trace --summary {file} --format html:trace.html", "the same as a page to share"),
        ),
    )


def _dump(path: str, value: Mapping[str, Any], lines: bool) -> Recognised | None:
    """Return a dump with both sides of `sample compare`, which may also hold texts and token ids."""
    if not lines or not holds_both_sides(value.keys()):
        return None
    more = _outputs(path, "", ()).suggestions[:1] if _OUTPUTS & value.keys() else ()
    return logprobs_of_both(path, (("keys", _keys(value)),), more)


def _ours(path: str, value: Mapping[str, Any], _lines: bool) -> Recognised | None:
    schema, file = value.get("schema"), quoted(path)
    if schema == "llmdoctor.report/1":
        return Recognised("report", f"a report of `llmdoctor {value.get('command')}`", (("findings", _count(value.get("findings"))),))
    if schema == "llmdoctor.baseline/1":
        suggestions: tuple[Suggestion, ...] = (Suggestion(f"llmdoctor check --baseline {file}", "findings that are not in the baseline"),)
        return Recognised("baseline", "a baseline of `llmdoctor check`", (("findings", _count(value.get("findings"))),), suggestions)
    if schema == "llmdoctor.mem/1":
        suggestions = (
            Suggestion(f"llmdoctor mem measure --summary {file}", "the memory of each phase"),
            Suggestion(
                f"llmdoctor mem compare {model_near(path)} --strategy trainer:adamw_torch --measured {file}",
                "measured beside predicted",
            ),
        )
        return Recognised("measured", "a measurement recorded by `llmdoctor mem measure`", (), suggestions)
    return None


def _model_file(path: str, value: Mapping[str, Any], _lines: bool) -> Recognised | None:
    name = os.path.basename(path)
    folder = quoted(os.path.dirname(path) or ".")
    if names_a_model(value) or name in ("tokenizer_config.json", "tokenizer.json", "adapter_config.json"):
        kind = value.get("model_type") or value.get("tokenizer_class") or value.get("peft_type") or ""
        return Recognised(
            "model-file",
            f"a file of a model directory{f' ({kind})' if kind else ''}",
            (),
            (Suggestion(f"llmdoctor look {folder}", "the directory as a whole"),),
        )
    if name == "generation_config.json" or ("transformers_version" in value and _GENERATION & value.keys()):
        ids = [("eos_token_id", shown(value.get("eos_token_id"))), ("do_sample", shown(value.get("do_sample")))]
        suggestions = (
            Suggestion(f"llmdoctor gencfg show {quoted(path)}", "the effective settings of generate(), and whether it stops"),
            Suggestion(f"llmdoctor gencfg check {folder}", "whether it stops where the chat template ends"),
            Suggestion(f"llmdoctor gencfg diff {quoted(path)} {model_near(os.path.dirname(path) or '.')}", "how it differs from another"),
        )
        return Recognised("generation-config", "a generation config", tuple(ids), suggestions)
    return None


def _training(path: str, value: Mapping[str, Any], _lines: bool) -> Recognised | None:
    if "log_history" in value:
        folder = quoted(os.path.dirname(path) or ".")
        suggestions = (Suggestion(f"llmdoctor look {folder}", "the checkpoint it belongs to"),)
        return Recognised("trainer-state", "the state of a Trainer", (("global_step", str(value.get("global_step"))),), suggestions)
    kind = kind_of(value)
    return None if kind is None or kind == "request" else recognise_strategy(path, named(kind), (), named_model(value))


def _yaml(path: str, data: bytes) -> Recognised:
    file = parse_yaml(data[:YAML_LIMIT], path, path)
    kind = kind_of(file.value)
    if kind is not None:
        return recognise_strategy(path, named(kind), (), named_model(file.value))
    return Recognised("yaml", "a YAML file that no command of llmdoctor reads", (("keys", _keys(file.value)),))


def _request(path: str, value: Mapping[str, Any], lines: bool) -> Recognised | None:
    file, model = quoted(path), model_near(path)
    body = value["body"] if isinstance(value.get("body"), dict) else value
    if kind_of(value) == "request":
        suggestions = (
            Suggestion(f"llmdoctor check {file}", "settings without effect, and settings that the server rejects"),
            Suggestion(f"llmdoctor gencfg show {model} --engine vllm", "the defaults that vLLM takes from the model's files"),
        )
        rows = tuple((name, shown(body[name])) for name in ("model", "temperature", "top_p", "max_tokens", "stop") if name in body)
        return Recognised("request", f"{'a batch of requests' if lines else 'a request'} to an OpenAI-compatible server", rows, suggestions)
    if isinstance(value.get("messages"), list) and not _OUTPUTS & value.keys():
        return _chat(path, lines or path.endswith(".jsonl"))
    return None


def _response(path: str, value: Mapping[str, Any], lines: bool) -> Recognised | None:
    body = value.get("response") if isinstance(value.get("response"), dict) else value
    if isinstance(body, dict) and isinstance(body.get("body"), dict):
        body = body["body"]
    of_server = isinstance(body, dict) and isinstance(body.get("choices"), list)
    logprobs = _logprobs(path, value)
    if logprobs is None and not of_server and not _OUTPUTS & value.keys():
        return None
    from llmdoctor.gencfg.engines.table import engines

    server = engines().get(logprobs.engine) if logprobs and logprobs.engine else None
    what = f"{'a file of responses' if lines else 'a response'} of {'an OpenAI-compatible server' if server is None else server.title}"
    if server is None and not of_server:
        what = "a file of recorded outputs" + (", one per line" if lines else "")
    if logprobs is None:
        found = _outputs(path, what, (("keys", _keys(value)), ("log-probabilities", "none")))
        taught = (_targets(path),) if any(pair <= value.keys() for pair in _PAIRS) else ()
        return replace(found, suggestions=(*found.suggestions[:2], *taught))
    rows = [("log-probabilities", f"{len(logprobs.steps):,} tokens")]
    settings = next((request for _, request in logprobs.requests if request), None)
    if settings:
        rows.append(("settings", ", ".join(f"{name} {shown(settings[name])}" for name in _SETTINGS if name in settings)))
    found = _outputs(path, what, tuple(rows))
    options = "" if settings and "temperature" in settings else " --temperature 1.0"
    replay = Suggestion(f"llmdoctor sample replay {quoted(path)}{options}", "whether the tokens were sampled with these settings")
    return replace(found, suggestions=(replay, *found.suggestions[:2]))


_SETTINGS = ("temperature", "top_p", "top_k", "min_p")
_WITH_LOGPROBS = {"choices", "meta_info", "completion_probabilities", "details", "outputs", "response", "logprobs", "output"}


def _logprobs(path: str, value: Mapping[str, Any]) -> Responses | None:
    """Return the log-probabilities of a file of responses, read as `sample replay` reads them; None if there are none."""
    if not _WITH_LOGPROBS & value.keys():
        return None
    from llmdoctor.requests.logprob_files import read_responses

    try:
        return read_responses(path)
    except QuestionError:
        return None


def _list(path: str, value: list[Any]) -> Recognised:
    if value and isinstance(value[0], dict):
        if {"role", "content"} <= value[0].keys():
            return _chat(path)
        return _maybe(_outputs(path, "a list of records, which may be recorded outputs", (("keys of the first", _keys(value[0])),)))
    if value and all(isinstance(one, int | float) for one in value[:1000]):
        file = quoted(path)
        suggestions = (
            Suggestion(
                f"llmdoctor sample engines --logits {file} --temperature 0.7 --top-p 0.9",
                "each engine's distribution, if these are logits",
            ),
            Suggestion(f"llmdoctor sample draw --probs {file}", "draws from them, and what a test detects, if these are probabilities"),
        )
        return Recognised("numbers", "a list of numbers: logits, probabilities or token ids", (("length", f"{len(value):,}"),), suggestions)
    return Recognised("json", "a JSON file that no command of llmdoctor reads", (("items", f"{len(value):,}"),))


def _chat(path: str, lines: bool = False) -> Recognised:
    """Return a chat, or with `lines` a table of chats, which a model may be trained on."""
    file, model = quoted(path), model_near(path)
    suggestions = (
        *((_targets(path),) if lines else ()),
        Suggestion(f"llmdoctor mask inspect {model} --messages {file}", "the mask of this chat, from the model's own processor"),
        Suggestion(f"llmdoctor gencfg check {model}", "whether the model stops where its template ends an answer"),
    )
    return Recognised("messages", "a table of chats, one per line" if lines else "a chat: messages with roles", (), suggestions)


def _targets(path: str) -> Suggestion:
    command = f"llmdoctor labels inspect {model_near(path)} {quoted(path)}"
    return Suggestion(command, "which tokens a trainer would train on, and whether the end of an answer is one")


def _outputs(path: str, what: str, rows: tuple[tuple[str, str], ...]) -> Recognised:
    file, model = quoted(path), model_near(path)
    suggestions = (
        Suggestion(f"llmdoctor gencfg runaway {file}", "how the sequences ended: terminators passed, loops, length limits"),
        Suggestion(f"llmdoctor gencfg runaway {file} --model {model}", "the same with the model's terminators, and the likely cause"),
        Suggestion(
            f"llmdoctor sample replay {file} --temperature 1.0",
            "whether the tokens were sampled so (needs log-probabilities)",
        ),
    )
    return Recognised("outputs", what, rows, suggestions)


def _maybe(found: Recognised) -> Recognised:
    """Return `found` as records that may be outputs: only the first command applies."""
    return replace(found, kind="records", suggestions=found.suggestions[:1])


def named(kind: str) -> str:
    """Return the name of a kind of file with its article: a DeepSpeed config, training arguments."""
    return kind if kind.endswith("s") else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _count(value: Any) -> str:
    return f"{len(value):,}" if isinstance(value, list) else "not a list"


def _keys(value: Any) -> str:
    return shown(list(value)[:8] if isinstance(value, dict) else type(value).__name__, 76)


_OBJECTS: tuple[Callable[[str, Mapping[str, Any], bool], Recognised | None], ...] = (
    _trace,
    _dump,
    _ours,
    _model_file,
    _training,
    _response,
    _request,
)

"""`prompt diff`: the exact ids that two sides build from the same messages."""

from __future__ import annotations

import json
from typing import Any

from llmdoctor.configs.versions import version_of
from llmdoctor.core.document import Block, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.inputs import Inputs
from llmdoctor.core.report import Report, Verdict
from llmdoctor.labels.builders import build_prompt, json_file
from llmdoctor.labels.built import as_release, release_limits
from llmdoctor.labels.chat import Chat, copies_reasoning
from llmdoctor.labels.options import PromptOptions, SideOptions
from llmdoctor.labels.prompt_causes import PromptCause, causes_of
from llmdoctor.labels.prompts import Prompt
from llmdoctor.labels.results import DifferenceResult, PromptDiffResult, PromptResult
from llmdoctor.labels.tokenizers_diff import tokenizer_causes
from llmdoctor.modeldir.directory import read_model_dir
from llmdoctor.modeldir.template import TemplateWorker

# Keys of a request that change its prompt, with the value that changes nothing.
_CHANGING: dict[str, Any] = {
    "add_generation_prompt": True,
    "add_special_tokens": False,
    "chat_template": None,
    "continue_final_message": False,
    "functions": None,
    "reasoning_effort": None,
    "tool_choice": "auto",
    "truncate_prompt_tokens": None,
}
_CONTEXT = 60  # characters shown on each side of the first difference


def _transformers(model: str) -> str:
    """Return the release of transformers that the repository of the model pins, or the installed one, or the newest."""
    return version_of("transformers", known=("4.57.6", "5.23.0"), near=model).version


def prompt_diff_report(options: PromptOptions) -> Report:
    """Return whether two sides build the same prompt, and why not.

    Without messages, the tokenizer of `model` is compared with that of the right side's directory. Raises QuestionError if a side, a file or
    the messages cannot be read, or a template raises.
    """
    from llmdoctor.labels.live.encoder import FastEncoder

    if options.messages is None:
        return _directories(options)
    directory = read_model_dir(options.model)
    with TemplateWorker() as worker:
        release = as_release(options.transformers or _transformers(options.model))
        chat = Chat(FastEncoder(directory, release), directory.chat_template, worker, copies_reasoning=copies_reasoning(release))
        messages, inputs = read_chat(options.messages)
        sides = (options.left, options.right)
        left, right = (build_prompt(chat, side.name, messages, {**inputs.used, **_kwargs(side)}, worker) for side in sides)
        return _report(options, chat, left, right, inputs=inputs, has_system=any(message["role"] == "system" for message in messages))


def read_chat(path: str) -> tuple[list[dict[str, Any]], Inputs]:
    """Return the messages of a file and what else a request holds: the template's variables are used, for both sides.

    The file is a list of messages, or an object with `messages` (a request, a row of a dataset). Raises QuestionError for anything else, and for a
    key that changes the prompt in a way that is not modelled.
    """
    value = json_file(path)
    request = value if isinstance(value, dict) else {"messages": value}
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) and "role" in one for one in messages):
        raise QuestionError(f'{path}: expected a list of messages, such as [{{"role": "user", "content": "Hi"}}]')
    for key, harmless in _CHANGING.items():
        if request.get(key) not in (None, harmless):
            raise QuestionError(f"{path}: {key} changes the prompt and is not modelled here; remove it from the file to answer without it")
    more = request.get("chat_template_kwargs") or {}
    if not isinstance(more, dict):
        raise QuestionError(f"{path}: chat_template_kwargs: expected an object, found {type(more).__name__}")
    used = {**{key: request[key] for key in ("tools", "documents") if request.get(key) is not None}, **more}
    ignored = [key for key in request if key not in ("messages", "tools", "documents", "chat_template_kwargs")]
    return messages, Inputs(used=used, ignored=dict.fromkeys(ignored, "no part of the prompt"))


def _kwargs(side: SideOptions) -> dict[str, Any]:
    if side.kwargs is None:
        return {}
    try:
        value = json.loads(side.kwargs)
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"kwargs of {side.name}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise QuestionError(f"kwargs of {side.name}: expected a JSON object")
    return value


def first_difference(left: Prompt, right: Prompt) -> DifferenceResult | None:
    """Return the first position at which the ids part, with the text around it; None if they are equal."""
    shared = next((at for at, (a, b) in enumerate(zip(left.ids, right.ids, strict=False)) if a != b), min(len(left.ids), len(right.ids)))
    if shared == len(left.ids) == len(right.ids):
        return None
    return {
        "index": shared,
        "left": left.decode(shared)[:_CONTEXT],
        "right": right.decode(shared)[:_CONTEXT],
        "before": left.decode(0, shared)[-_CONTEXT:],
    }


def _report(options: PromptOptions, chat: Chat, left: Prompt, right: Prompt, *, inputs: Inputs, has_system: bool) -> Report:
    causes, place = causes_of(chat, left, right, has_system), first_difference(left, right)
    result: PromptDiffResult = {
        "same": place is None,
        "left": _side(left),
        "right": _side(right),
        "first_difference": place,
        "causes": [{"name": cause.name, "evidence": cause.evidence, "fix": cause.fix} for cause in causes],
        "inputs": inputs.result(),
    }
    limits = "".join(f" ({limit})" for limit in dict.fromkeys((*release_limits(chat.encoder), *left.limits, *right.limits)))
    if place is None:
        verdict = Verdict(f"{left.name} and {right.name} build the same prompt: {len(left.ids)} equal ids{limits}.", "ok")
    else:
        verdict = Verdict(
            f"{left.name} and {right.name} build different prompts from token {place['index']} on: {causes[0].name}{limits}.", "problem"
        )
    document = (*_document(left, right, place, causes), *_input_notes(inputs))
    return Report("prompt diff", _subject(options), dict(result), document=document, verdict=verdict, differs=place is not None)


def _side(prompt: Prompt) -> PromptResult:
    return {"name": prompt.name, "ids": prompt.ids, "text": prompt.text}


def _document(left: Prompt, right: Prompt, place: DifferenceResult | None, causes: list[PromptCause]) -> tuple[Block, ...]:
    blocks: list[Block] = [Table(("side", "tokens", "text"), tuple((one.name, str(len(one.ids)), repr(one.text)) for one in (left, right)))]
    if place is not None:
        rows = ((left.name, repr(place["left"])), (right.name, repr(place["right"])))
        blocks += [
            Note("Evidence", f"equal up to token {place['index']}: ...{place['before']!r}, then"),
            Table(("side", "goes on with"), rows),
        ]
    return (*blocks, *cause_notes(causes))


def _input_notes(inputs: Inputs) -> list[Block]:
    notes: list[Block] = []
    if inputs.used:
        notes.append(Note("Used", ", ".join(inputs.used), "dim"))
    if inputs.ignored:
        notes.append(Note("Ignored", f"{', '.join(inputs.ignored)} (no part of the prompt)", "dim"))
    return notes


def cause_notes(causes: list[PromptCause]) -> list[Block]:
    """Return the causes, each with its fix, as notes."""
    notes: list[Block] = []
    for cause in causes:
        notes.append(Note("Cause", f"{cause.name}: {cause.evidence}"))
        if cause.fix is not None:
            notes.append(Note("Fix", cause.fix, "good"))
    return notes


def _directories(options: PromptOptions) -> Report:
    kind, _, folder = options.right.name.partition(":")
    if kind != "model" or not folder:
        raise QuestionError("without --messages two directories are compared: expected --right model:DIR")
    causes = tokenizer_causes(read_model_dir(options.model), read_model_dir(folder))
    result: PromptDiffResult = {
        "same": not causes,
        "left": None,
        "right": None,
        "first_difference": None,
        "causes": [{"name": cause.name, "evidence": cause.evidence, "fix": cause.fix} for cause in causes],
        "inputs": Inputs().result(),
    }
    if causes:
        verdict = Verdict(f"The tokenizers of {options.model} and {folder} differ: {', '.join(cause.name for cause in causes)}.", "problem")
    else:
        verdict = Verdict(f"The tokenizers of {options.model} and {folder} are the same in everything that changes ids.", "ok")
    document = tuple(cause_notes(causes))
    return Report("prompt diff", _subject(options), dict(result), document=document, verdict=verdict, differs=bool(causes))


def _subject(options: PromptOptions) -> dict[str, Any]:
    return {"path": options.model, "messages": options.messages, "left": options.left.name, "right": options.right.name}

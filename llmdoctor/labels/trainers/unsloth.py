"""unsloth's train_on_responses_only: from after a response marker to the next instruction marker (unsloth_zoo 2026.10.9 dataset_utils.py).

The behaviour is described by what the released function does to ids; none of its code is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.chat import Chat
from llmdoctor.labels.trainers.base import Task, Trainer, apply_processing_class
from llmdoctor.labels.trainers.trl_common import column, from_value, to_chatml
from llmdoctor.labels.types import Sequence, TrainerError, sequence_of

NAME = "train_on_responses_only"
_ARGUMENTS = frozenset({"instruction_part", "response_part", "force_match", "last_response_only"})
_EDGES = ("\\", "{", "a", "A", "1", "(", ".", "<", "}", ">")  # what may touch a marker in a text


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker as ids: `core` must be there, the tokens of `left` and `right` belong to it if they are."""

    core: list[int]
    left: list[int]
    right: list[int]

    def at(self, ids: list[int], place: int) -> bool:
        """Return whether the core begins at `place`."""
        return ids[place : place + len(self.core)] == self.core

    def reach(self, ids: list[int], place: int) -> tuple[int, int]:
        """Return [start, stop) of the marker at `place`, with the optional tokens that are there."""
        start, stop = place, place + len(self.core)
        for token in reversed(self.left):
            if start < 1 or ids[start - 1] != token:
                break
            start -= 1
        for token in self.right:
            if stop >= len(ids) or ids[stop] != token:
                break
            stop += 1
        return start, stop


def build(task: Task) -> list[Sequence]:
    """Return the sequences of a chat dataset with everything but the responses ignored."""
    apply_processing_class(task)
    arguments = task.get(NAME, {})
    for key in arguments:
        if key not in _ARGUMENTS:
            raise QuestionError(f"{NAME}.{key}: this argument is not modelled, expected one of {', '.join(sorted(_ARGUMENTS))}")
    instruction, response = markers_of(task.chat, arguments)
    length = task.get("max_length")
    out = []
    for row in task.rows:
        columns = to_chatml(row.columns) if from_value(row.columns) else row.columns
        whole = task.chat.tokenized(column(columns, "messages"))
        one = sequence_of(whole.ids, row.number, roles=whole.roles).part(0, length or len(whole.ids))
        spans = responses(one.ids, instruction, response, task.chat)
        keep = [0] * len(one.ids)
        for start, stop in spans[-1:] if arguments.get("last_response_only") else spans:
            keep[start:stop] = [1] * (stop - start)
        one.keep(keep, NAME if spans else f"{NAME}: response_part was not found")
        out.append(one)
    return out


def markers_of(chat: Chat, arguments: Mapping[str, Any]) -> tuple[Marker, Marker]:
    """Return the instruction and response markers. Raises TrainerError as the function does."""
    instruction, response = arguments.get("instruction_part"), arguments.get("response_part")
    if (instruction is None) != (response is None):
        raise TrainerError(
            "ValueError", "give both instruction_part and response_part, or neither to detect them", "unsloth_zoo dataset_utils.py:826"
        )
    if instruction is None or response is None:
        instruction, response = detected(chat)
    exact = arguments.get("force_match", True)
    left, right = _marker(chat, instruction, exact), _marker(chat, response, exact)
    if not left.core or not right.core:
        raise TrainerError("ValueError", "a marker could not be resolved to a stable token sequence", "unsloth_zoo dataset_utils.py:850")
    return _distinct(left, right), _distinct(right, left)


def _distinct(marker: Marker, other: Marker) -> Marker:
    """Return a marker that is more than the opening that both share."""
    if marker.right and marker.core == other.core[: len(marker.core)]:
        return Marker(marker.core + marker.right, marker.left, [])
    return marker


def _marker(chat: Chat, text: str, exact: bool) -> Marker:
    """Return a marker's ids. Without force_match, the part that all spellings with more or fewer blanks around share."""
    original = _ids(chat, text)
    core = original if exact else _common(_spellings(chat, text))
    where = next((at for at in range(len(original)) if core and original[at : at + len(core)] == core), None)
    if where is None:
        return Marker([], [], [])
    start, stop = _stable(chat, text, original)
    start, stop = max(start, where), min(stop, where + len(core))
    if stop <= start or not any(chat.encoder.is_special(token) for token in original[start:stop]):
        start, stop = where, where + len(core)
    return Marker(original[start:stop], original[:start], original[stop:])


def _ids(chat: Chat, text: str) -> list[int]:
    return chat.encoder.encode(text, special=False).ids


def _spellings(chat: Chat, text: str) -> list[list[int]]:
    left = text[0] if text[:1] in (" ", "\n") else ""
    right = text[-1] if text[-1:] in (" ", "\n") else ""
    words = text.strip()
    pairs = [(a, b) for a in range(3) for b in range(3)]
    return [_ids(chat, before * a + words + after * b) for a, b in pairs for before, after in ((left, right), ("\n", "\n"))]


def _common(spellings: list[list[int]]) -> list[int]:
    """Return the longest run of ids that all spellings hold."""
    for length in range(min(map(len, spellings)), 0, -1):
        runs = [spellings[0][at : at + length] for at in range(len(spellings[0]) - length + 1)]
        for run in runs:
            if all(any(ids[at : at + length] == run for at in range(len(ids) - length + 1)) for ids in spellings[1:]):
                return run
    return []


def _stable(chat: Chat, text: str, original: list[int]) -> tuple[int, int]:
    """Return [start, stop) of the ids that stay the same whatever text touches the marker."""
    start, stop = 0, len(original)
    for edge in _EDGES:
        behind, before = _ids(chat, text + edge), _ids(chat, edge + text)
        stop = min(stop, _same(behind, original))
        start = max(start, len(original) - _same(before[::-1], original[::-1]))
    return start, stop


def _same(left: list[int], right: list[int]) -> int:
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count


def detected(chat: Chat) -> tuple[str, str]:
    """Return (instruction_part, response_part) from the chat template, as `train_on_responses_only()` without markers finds them."""
    user_text, answer = "USERPROBE7q", "ASSTPROBE4z"
    talk = [{"role": "user", "content": user_text}, {"role": "assistant", "content": answer}] * 3
    try:
        full = chat.render(talk).text or ""
        prompt, plain = (chat.render(talk[:-1], generation_prompt=flag).text or "" for flag in (True, False))
    except TrainerError as error:
        raise TrainerError("ValueError", f"the markers cannot be detected: {error.message}", "unsloth_zoo dataset_utils.py:307") from None
    to_user = full.split(answer)[1].partition(user_text)[0] if full.count(answer) > 1 else ""
    to_answer = full.split(user_text)[1].partition(answer)[0] if full.count(user_text) else ""
    header = prompt[len(plain) :] if prompt.startswith(plain) else ""
    if header and to_answer.endswith(header) and len(header) < len(to_answer):
        response, instruction = header, _without_lead(to_user, to_answer[: -len(header)])
    else:
        names = chat.encoder.names
        ends = (" ", "\t", names["eos_token"] or "", names["bos_token"] or "")
        response, instruction = _without_lead(to_answer, *ends), _without_lead(to_user, *ends)
    response, instruction = response.strip(" \t"), instruction.strip(" \t")
    if not response or not instruction:
        raise TrainerError("ValueError", "the markers cannot be detected: one of them would be empty", "unsloth_zoo dataset_utils.py")
    return instruction, response


def _without_lead(text: str, *leads: str) -> str:
    while (lead := next((one for one in leads if one and text.startswith(one)), None)) is not None:
        text = text[len(lead) :]
    return text


def responses(ids: list[int], instruction: Marker, response: Marker, chat: Chat) -> list[tuple[int, int]]:
    """Return [start, stop) of each response: up to the first eos (included), the next message, or the end."""
    opening = _shared_opening(instruction, response, chat)
    spans, place = [], 0
    while place < len(ids):
        if not response.at(ids, place):
            place += 1
            continue
        start = response.reach(ids, place)[1]
        stop, place = _end_of(ids, start, instruction=instruction, response=response, opening=opening, chat=chat)
        if stop is not None:
            spans.append((start, stop))
    return spans


def _end_of(ids: list[int], start: int, instruction: Marker, response: Marker, opening: list[int], chat: Chat) -> tuple[int | None, int]:
    """Return where the response that begins at `start` ends, and where to go on; None if it holds nothing."""
    for place in range(start, len(ids)):
        if ids[place] == chat.encoder.eos_id:
            return place + 1, place + 1
        opens = opening and ids[place : place + len(opening)] == opening
        if ids[place] == chat.encoder.bos_id or opens or response.at(ids, place):
            return place, place
        if instruction.at(ids, place):
            first, behind = instruction.reach(ids, place)
            return (first, behind) if first != len(ids) - 1 else (len(ids), len(ids))
        if place == len(ids) - 1:
            return len(ids), len(ids)
    return None, len(ids)


def _shared_opening(instruction: Marker, response: Marker, chat: Chat) -> list[int]:
    """Return the special tokens with which every message begins; none if the markers share no special token that is more than blanks."""
    shared = instruction.core[: _same(instruction.core, response.core)]
    special = all(chat.encoder.is_special(token) for token in shared)
    return shared if special and any(chat.encoder.text_of(token).strip() for token in shared) else []


TRAINER = Trainer(
    name="unsloth",
    library="unsloth_zoo",
    versions=("2026.10.9",),
    build=build,
    keys=frozenset({NAME, "max_length", "processing_class"}),
    source="unsloth_zoo/dataset_utils.py",
    fixes={
        f"{NAME}: response_part was not found": "train_on_responses_only(trainer)   # detects both markers from the chat template",
    },
)

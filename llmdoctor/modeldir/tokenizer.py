"""Token ids as the files give them: tokenizer.json, tokenizer_config.json, special_tokens_map.json, added_tokens.json.

tokenizer.json is 10-30 MB; msgspec decodes only the added tokens and steps over the rest, while it checks the syntax of all of it; the
UTF-8 of what it steps over is checked here. A vocabulary entry is looked up in its bytes, on demand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmdoctor.core.finding import Finding, Location
from llmdoctor.core.rule import Rule
from llmdoctor.core.text import is_id
from llmdoctor.files.jsonfile import CONFIG_LIMIT, JsonFile, parse, read_optional, refused
from llmdoctor.files.opening import Refusal, read_bytes, shown_path
from llmdoctor.files.rules import BEYOND_LIMITS, UNREADABLE

TOKENIZER_LIMIT = 256 * 2**20
_PIECE = 2**20
_NUMBER = re.compile(rb"\s*:\s*([0-9]{1,10})\s*[,}]")
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A named special token, its id if a file gives it, and the file and pointer that name it."""

    name: str
    token: str
    id: int | None
    file: JsonFile
    pointer: str


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token outside the model's vocabulary, or marked special in it."""

    id: int
    token: str
    special: bool


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """What the files give about token ids. `vocabulary` is the raw JSON of model.vocab or vocab.json, looked into on demand."""

    added: Mapping[str, AddedToken]
    named: Mapping[str, SpecialToken]
    vocabulary: bytes = b""
    problems: tuple[Finding, ...] = ()

    def id_of(self, token: str) -> int | None:
        """Return the id of `token`; None if no file has it."""
        added = self.added.get(token)
        return added.id if added is not None else _look_up(self.vocabulary, token)

    def token_of(self, token_id: int) -> str | None:
        """The added or special token with this id."""
        return next((added.token for added in self.added.values() if added.id == token_id), None)

    def text_of(self, token_id: int) -> str | None:
        """Return the text of any token, as the vocabulary writes it ("Ġthe" for " the"); None if no file gives it."""
        found = self.token_of(token_id)
        return found if found is not None else _text_at(self.vocabulary, token_id)

    def texts_of(self, token_ids: Iterable[int]) -> dict[int, str]:
        """Return the texts of many tokens, as text_of() gives them, in one pass over the vocabulary; ids that no file gives are left out."""
        wanted = set(token_ids)
        found = {added.id: added.token for added in self.added.values() if added.id in wanted}
        return {**_texts_at(self.vocabulary, wanted), **found} if wanted - set(found) else found

    def special(self, name: str) -> SpecialToken | None:
        """The special token of a name such as "eos_token"; None if no file names it, or names the empty string."""
        found = self.named.get(name)
        return found if found is not None and found.token else None

    def special_ids(self) -> dict[str, int | None]:
        """Every special token with its id, None if the files do not give it."""
        ids: dict[str, int | None] = {added.token: added.id for added in self.added.values() if added.special}
        for found in self.named.values():
            if found.token:
                ids.setdefault(found.token, found.id)
        return ids


def read_tokenizer(folder: str, config: JsonFile | None, special_map: JsonFile | None, added_file: JsonFile | None) -> Tokenizer:
    """Everything that the files in `folder` give; never raises."""
    content, problems = _tokenizer_json(folder)
    added = {token.token: token for token in (*_from_added_file(added_file), *_from_decoder(config), *_from_tokenizer_json(content))}
    vocabulary = content.get("vocab", b"")
    named: dict[str, SpecialToken] = {}
    # transformers reads special_tokens_map.json only if tokenizer_config.json has no added_tokens_decoder, and then it wins
    # (5.23.0, tokenization_utils_base.py:1879-1914).
    weaker, stronger = (special_map, config) if _get(config, "added_tokens_decoder") is not None else (config, special_map)
    for file in (weaker, stronger):
        for name in NAMED:
            value = _get(file, name)
            if value is None and file is stronger and _has(file, name):
                named.pop(name, None)  # null, and not left out: there is no such token
            token = token_text(value)
            if token is None or file is None:
                continue
            known = added.get(token)
            found = known.id if known is not None else _look_up(vocabulary, token) if token else None
            named[name] = SpecialToken(name, token, found, file, f"/{name}")
    return Tokenizer(added, named, vocabulary, problems)


def token_text(value: Any) -> str | None:
    """A token given as text, or as a serialised AddedToken ({"content": ...})."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _tokenizer_json(folder: str) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    """{"added_tokens": [...], "vocab": raw bytes}; tokenizer.trimmed.json, which has no vocabulary, is read in its place if it is alone."""
    for name in ("tokenizer.json", "tokenizer.trimmed.json"):
        path = f"{folder}/{name}"
        data = read_bytes(path, TOKENIZER_LIMIT, folder)
        if data is None:
            continue
        shown = shown_path(path)
        if isinstance(data, Refusal):
            return {}, refused(data, path, shown).problems
        return _decode(data, path, shown)
    return _vocab_json(folder)


def _vocab_json(folder: str) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    """The vocabulary of a tokenizer that has no tokenizer.json (GPT-2's files)."""
    file = read_optional(f"{folder}/vocab.json", folder)
    if file is None:
        return {}, ()
    return {"vocab": file.text.encode("utf-8", "surrogatepass")} if isinstance(file.value, dict) else {}, file.problems


def _decode(data: bytes, path: str, shown: str) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    import msgspec

    try:
        _check_utf8(data)
        value = msgspec.json.decode(data, type=_shape())
        added = value.get("added_tokens", b"[]")
        if len(added) > CONFIG_LIMIT:
            return {}, (_problem(BEYOND_LIMITS, shown, f"added_tokens has {len(added)} bytes, at most {CONFIG_LIMIT} are read", 1),)
        value["added_tokens"] = msgspec.json.decode(added)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        return _decode_slowly(data, path, shown) if len(data) <= CONFIG_LIMIT else ({}, (_explain(data, shown, error),))
    model = value.get("model")
    raw = bytes(model["vocab"]) if isinstance(model, dict) and "vocab" in model else b""
    return {**value, "vocab": raw or json.dumps(value.get("special_ids") or {}).encode()}, ()


def _check_utf8(data: bytes) -> None:
    """Raise UnicodeDecodeError with the offset in `data` if it is not UTF-8; decode in pieces, because text takes up to four times the memory."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data) + 1, _PIECE):
        held = len(decoder.getstate()[0])
        try:
            decoder.decode(data[start : start + _PIECE], start + _PIECE > len(data))
        except UnicodeDecodeError as error:
            at = start - held + error.start
            raise UnicodeDecodeError("utf-8", data, at, at + 1, error.reason) from None


def _explain(data: bytes, shown: str, error: Exception) -> Finding:
    """Return the fault of a file that is too large to walk, in the decoder's own words."""
    if isinstance(error, RecursionError):
        return _problem(BEYOND_LIMITS, shown, "nested too deeply", 1)
    if isinstance(error, UnicodeDecodeError):
        return _problem(UNREADABLE, shown, f"byte {error.start} is not UTF-8 ({error.reason})", data.count(b"\n", 0, error.start) + 1)
    place = re.search(r"\(byte ([0-9]+)\)", str(error))
    return _problem(UNREADABLE, shown, f"not a tokenizer's JSON: {error}", data.count(b"\n", 0, int(place[1]) if place else len(data)) + 1)


def _problem(rule: Rule, shown: str, message: str, line: int) -> Finding:
    return rule.at(Location(shown, None, line), f"{shown}: {message}")


def _decode_slowly(data: bytes, path: str, shown: str) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    """A file that is not JSON, not of the shape, or JSON only to Python (NaN)."""
    file = parse(data, path, shown)
    if not isinstance(file.value, dict):
        problems = file.problems or (_problem(UNREADABLE, shown, "expected a JSON object", 1),)
        return {}, problems
    model = file.value.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    return {**file.value, "vocab": json.dumps(vocabulary or file.value.get("special_ids") or {}, ensure_ascii=True).encode()}, file.problems


def _shape() -> Any:
    """The parts of tokenizer.json that are decoded; all else is stepped over."""
    from typing import TypedDict

    import msgspec

    # The class syntax would need msgspec's name outside this function.
    model = TypedDict("model", {"vocab": msgspec.Raw}, total=False)  # noqa: UP013
    return TypedDict("tokenizer", {"added_tokens": msgspec.Raw, "special_ids": Any, "model": model | None}, total=False)  # type: ignore[operator]


def _from_tokenizer_json(content: Mapping[str, Any]) -> Iterator[AddedToken]:
    tokens = content.get("added_tokens")
    for entry in tokens if isinstance(tokens, list) else ():
        if isinstance(entry, dict) and _fits(entry.get("id")) and isinstance(entry.get("content"), str):
            yield AddedToken(entry["id"], entry["content"], entry.get("special") is True)


def _fits(value: Any) -> bool:
    """Return whether `value` can be the id of a token. Recorded ids have 32 bits, so a larger number names no token."""
    return is_id(value) and 0 <= value < 2**31


def _from_decoder(config: JsonFile | None) -> Iterator[AddedToken]:
    decoder = _get(config, "added_tokens_decoder")
    for key, entry in decoder.items() if isinstance(decoder, dict) else ():
        if (
            key.isascii()
            and key.isdigit()
            and len(key) < 11
            and _fits(int(key))
            and isinstance(entry, dict)
            and isinstance(entry.get("content"), str)
        ):
            yield AddedToken(int(key), entry["content"], entry.get("special") is True)


def _from_added_file(file: JsonFile | None) -> Iterator[AddedToken]:
    value = file.value if file is not None else None
    for token, token_id in value.items() if isinstance(value, dict) else ():
        if _fits(token_id):
            yield AddedToken(token_id, token, False)


def _has(file: JsonFile | None, name: str) -> bool:
    return file is not None and isinstance(file.value, dict) and name in file.value


def _get(file: JsonFile | None, name: str) -> Any:
    return file.value.get(name) if file is not None and isinstance(file.value, dict) else None


def _look_up(vocabulary: bytes, token: str) -> int | None:
    """The id of `token` in the raw JSON of a vocabulary: an object of ids, or (Unigram) an array of [token, score]."""
    # As writers write it, with and without escapes; dict.fromkeys keeps the order and drops the second of two alike.
    keys = dict.fromkeys(json.dumps(token, ensure_ascii=plain).encode("utf-8", "surrogatepass") for plain in (False, True))
    if not any(key in vocabulary for key in keys):
        return None
    if vocabulary.lstrip()[:1] == b"[":
        return _position(vocabulary, token)
    return next((found for key in keys if (found := _value(vocabulary, key)) is not None), None)


def _value(vocabulary: bytes, key: bytes) -> int | None:
    """The number behind the last `key` that is one. A quote is a string's first or last unless a backslash is before it."""
    at = vocabulary.rfind(key)
    while at >= 0:
        match = _NUMBER.match(vocabulary, at + len(key))
        if match is not None and vocabulary[at - 1 : at] != b"\\":
            return int(match.group(1)) if _fits(int(match.group(1))) else None
        at = vocabulary.rfind(key, 0, at + len(key) - 1)
    return None


def _text_at(vocabulary: bytes, token_id: int) -> str | None:
    """Return the token with an id in the raw JSON of a vocabulary."""
    import msgspec

    if vocabulary.lstrip()[:1] == b"[":
        try:
            entries = msgspec.json.decode(vocabulary, type=list[tuple[str, float]])
        except (msgspec.MsgspecError, RecursionError):
            return None
        return entries[token_id][0] if 0 <= token_id < len(entries) else None
    found = re.search(rb":\s*%d\s*[,}]" % token_id, vocabulary)
    end = -1 if found is None else vocabulary.rfind(b'"', 0, found.start())
    start = _opening_quote(vocabulary, end)
    try:
        return None if start < 0 else str(json.loads(vocabulary[start : end + 1]))
    except ValueError:
        return None


def _texts_at(vocabulary: bytes, wanted: set[int]) -> dict[int, str]:
    """Return the tokens with the wanted ids in the raw JSON of a vocabulary; nothing if it is not one."""
    import msgspec

    try:
        if vocabulary.lstrip()[:1] == b"[":
            entries = msgspec.json.decode(vocabulary, type=list[tuple[str, float]])
            return {at: entries[at][0] for at in wanted if 0 <= at < len(entries)}
        ids = msgspec.json.decode(vocabulary, type=dict[str, int]) if vocabulary else {}
    except (msgspec.MsgspecError, RecursionError):
        return {}
    return {token_id: token for token, token_id in ids.items() if token_id in wanted}


def _opening_quote(data: bytes, end: int) -> int:
    """Return where the JSON text begins whose closing quote is at `end`; -1 if there is none."""
    start = data.rfind(b'"', 0, max(end, 0))
    while start > 0 and _backslashes(data[max(0, start - 64) : start]) % 2:
        start = data.rfind(b'"', 0, start)
    return start


def _backslashes(data: bytes) -> int:
    return len(data) - len(data.rstrip(b"\\"))


def _position(vocabulary: bytes, token: str) -> int | None:
    import msgspec

    try:
        entries = msgspec.json.decode(vocabulary, type=list[tuple[str, float]])
    except (msgspec.MsgspecError, RecursionError):
        return None
    return next((index for index, (entry, _) in enumerate(entries) if entry == token), None)

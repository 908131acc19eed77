"""Token ids as the files give them: tokenizer.json, tokenizer_config.json, special_tokens_map.json, added_tokens.json.

tokenizer.json is 10-30 MB; msgspec decodes only the added tokens and steps over the rest (0.1 of orjson's time on 12 MB), while it
checks the syntax of all of it. A vocabulary entry is looked up in its bytes, on demand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmdoctor.core.diagnostic import Diagnostic, Location, Severity
from llmdoctor.modeldir.files import Refusal, read_bytes, shown_path
from llmdoctor.modeldir.jsonfile import JsonFile, parse, refused

TOKENIZER_LIMIT = 256 * 2**20
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A named special token, its id where a file gives it, and the file and pointer that name it."""

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
    """What the files say of token ids. `vocabulary` is the raw JSON of model.vocab, looked into on demand."""

    added: Mapping[str, AddedToken]
    named: Mapping[str, SpecialToken]
    vocabulary: bytes = b""
    problems: tuple[Diagnostic, ...] = ()

    def id_of(self, token: str) -> int | None:
        """The id of `token`; None where no file tells."""
        added = self.added.get(token)
        return added.id if added is not None else _look_up(self.vocabulary, token)

    def token_of(self, token_id: int) -> str | None:
        """The added or special token with this id."""
        return next((added.token for added in self.added.values() if added.id == token_id), None)

    def special(self, name: str) -> SpecialToken | None:
        """The special token of a name such as "eos_token"; None where no file names it, or names the empty string."""
        found = self.named.get(name)
        return found if found is not None and found.token else None

    def special_ids(self) -> dict[str, int | None]:
        """Every special token with its id, None where the files do not tell it."""
        ids: dict[str, int | None] = {added.token: added.id for added in self.added.values() if added.special}
        for found in self.named.values():
            if found.token:
                ids.setdefault(found.token, found.id)
        return ids


def read_tokenizer(folder: str, config: JsonFile | None, special_map: JsonFile | None, added_file: JsonFile | None) -> Tokenizer:
    """Everything the files in `folder` say; never raises."""
    content, problems = _tokenizer_json(folder)
    added = {token.token: token for token in (*_from_added_file(added_file), *_from_decoder(config), *_from_tokenizer_json(content))}
    vocabulary = content.get("vocab", b"")
    named: dict[str, SpecialToken] = {}
    # transformers reads special_tokens_map.json only where tokenizer_config.json has no added_tokens_decoder, and then it wins
    # (5.23.0, tokenization_utils_base.py:1879-1914).
    weaker, stronger = (special_map, config) if _get(config, "added_tokens_decoder") is not None else (config, special_map)
    for file in (weaker, stronger):
        for name in NAMED:
            token = token_text(_get(file, name))
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


def _tokenizer_json(folder: str) -> tuple[dict[str, Any], tuple[Diagnostic, ...]]:
    """{"added_tokens": [...], "vocab": raw bytes}; tokenizer.trimmed.json, which has no vocabulary, stands in where it is alone."""
    for name in ("tokenizer.json", "tokenizer.trimmed.json"):
        path = f"{folder}/{name}"
        data = read_bytes(path, TOKENIZER_LIMIT, folder)
        if data is None:
            continue
        shown = shown_path(path)
        if isinstance(data, Refusal):
            return {}, refused(data, path, shown).problems
        return _decode(data, path, shown)
    return {}, ()


def _decode(data: bytes, path: str, shown: str) -> tuple[dict[str, Any], tuple[Diagnostic, ...]]:
    import msgspec

    try:
        value = msgspec.json.decode(data, type=_shape())
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return _decode_slowly(data, path, shown)
    model = value.get("model")
    raw = bytes(model["vocab"]) if isinstance(model, dict) and "vocab" in model else b""
    return {**value, "vocab": raw or json.dumps(value.get("special_ids") or {}).encode()}, ()


def _decode_slowly(data: bytes, path: str, shown: str) -> tuple[dict[str, Any], tuple[Diagnostic, ...]]:
    """A file that is not JSON, not of the shape, or JSON only to Python (NaN)."""
    file = parse(data, path, shown)
    if not isinstance(file.value, dict):
        problems = file.problems or (Diagnostic("DIR001", Severity.ERROR, f"{shown}: expected a JSON object", Location(shown, None, 1)),)
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
    return TypedDict("tokenizer", {"added_tokens": Any, "special_ids": Any, "model": model | None}, total=False)  # type: ignore[operator]


def _from_tokenizer_json(content: Mapping[str, Any]) -> Iterator[AddedToken]:
    tokens = content.get("added_tokens")
    for entry in tokens if isinstance(tokens, list) else ():
        if isinstance(entry, dict) and is_id(entry.get("id")) and isinstance(entry.get("content"), str):
            yield AddedToken(entry["id"], entry["content"], entry.get("special") is True)


def _from_decoder(config: JsonFile | None) -> Iterator[AddedToken]:
    decoder = _get(config, "added_tokens_decoder")
    for key, entry in decoder.items() if isinstance(decoder, dict) else ():
        if key.isascii() and key.isdigit() and len(key) < 12 and isinstance(entry, dict) and isinstance(entry.get("content"), str):
            yield AddedToken(int(key), entry["content"], entry.get("special") is True)


def _from_added_file(file: JsonFile | None) -> Iterator[AddedToken]:
    value = file.value if file is not None else None
    for token, token_id in value.items() if isinstance(value, dict) else ():
        if is_id(token_id):
            yield AddedToken(token_id, token, False)


def is_id(value: Any) -> bool:
    """Whether `value` is an int, which True is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _get(file: JsonFile | None, name: str) -> Any:
    return file.value.get(name) if file is not None and isinstance(file.value, dict) else None


def _look_up(vocabulary: bytes, token: str) -> int | None:
    """The id of `token` in the raw JSON of a vocabulary: an object of ids, or (Unigram) an array of [token, score]."""
    if not vocabulary:
        return None
    if vocabulary.lstrip()[:1] == b"[":
        return _position(vocabulary, token)
    for ascii_only in (False, True):
        key = json.dumps(token, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        match = re.search(rb"(?<!\\)" + re.escape(key) + rb"\s*:\s*([0-9]{1,12})\s*[,}]", vocabulary)
        if match is not None:
            return int(match.group(1))
    return None


def _position(vocabulary: bytes, token: str) -> int | None:
    import msgspec

    try:
        entries = msgspec.json.decode(vocabulary, type=list[tuple[str, float]])
    except (msgspec.MsgspecError, RecursionError):
        return None
    return next((index for index, (entry, _) in enumerate(entries) if entry == token), None)

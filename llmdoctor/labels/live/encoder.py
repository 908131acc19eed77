"""A directory's tokenizer through the `tokenizers` package (Rust; no torch), as transformers' fast tokenizers use it."""

from __future__ import annotations

import os
from typing import Any

from llmdoctor.core.errors import MissingExtra, QuestionError
from llmdoctor.files.opening import read_bytes
from llmdoctor.labels.live.converting import converted_files
from llmdoctor.labels.live.loading import adds, class_defaults, further_tokens, loaded_class, named_class, rebuilt
from llmdoctor.labels.types import Encoded
from llmdoctor.modeldir.directory import ModelDir
from llmdoctor.modeldir.tokenizer import TOKENIZER_LIMIT

_SURROGATE = "a text of the rows holds half of a surrogate pair (\\ud800 to \\udfff), which is no Unicode text"
TEXT_LIMIT = 2**21  # characters of one text: the tokenizers package takes about 300 bytes for each
_OTHERS = {"4": (4,), "5.21": (5, 21), "5": (5,)}  # the releases that load tokenizers in different ways, as --transformers takes them
NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


class FastEncoder:
    """tokenizer.json as transformers loads it, or what it makes of other files.

    `encode()` is `tokenizer(text)`, `special=False` is add_special_tokens=False.

    `differing` names the releases, as --transformers takes them, whose ids can be others.
    `bos_id`, `eos_id`, `pad_id` and `unk_id` are the ids of the special tokens that tokenizer_config.json names; they can be changed, as trainers do.
    """

    def __init__(self, directory: ModelDir, release: tuple[int, ...] = (5,)) -> None:
        """Load `directory`'s tokenizer.json as transformers `release` does, (4,) or (5,) for the newest of each.

        Raises QuestionError if it is missing or damaged, MissingExtra without the tokenizers package.
        """
        data = _read(directory)
        converted = data is None
        if data is None:
            data, release = converted_files(directory)
        self.release = release
        self.has_processor = any(
            os.path.exists(f"{directory.path}/{name}") for name in ("preprocessor_config.json", "processor_config.json")
        )
        loaded = data if converted else _loaded(directory, data, release)
        self.differing = () if converted else tuple(name for name, other in _OTHERS.items() if _loaded(directory, data, other) != loaded)
        self._tokenizer = _load(directory, loaded)
        self.names: dict[str, str | None] = {}
        name = loaded_class(directory, data, release) if release >= (5,) else named_class(directory)
        defaults = class_defaults(name, directory)
        _append(self._tokenizer, directory, defaults)
        for token in NAMES:
            found = directory.tokenizer.special(token)
            default = defaults.get(token) if token not in directory.tokenizer.named else None
            self.names[token] = found.token if found is not None else default
        added = None if converted else adds(directory, name, release)
        if added is not None:
            _set_post_processor(
                self._tokenizer, self.names["bos_token"] if added[0] else None, self.names["eos_token"] if added[1] else None
            )
        self._texts: dict[int, str] = {}

    @property
    def bos_id(self) -> int | None:
        """The id of bos_token."""
        return self._named("bos_token")

    @property
    def eos_id(self) -> int | None:
        """The id of eos_token."""
        return self._named("eos_token")

    @property
    def pad_id(self) -> int | None:
        """The id of pad_token."""
        return self._named("pad_token")

    @property
    def unk_id(self) -> int | None:
        """The id of unk_token."""
        return self._named("unk_token")

    def _named(self, name: str) -> int | None:
        token = self.names[name]
        return None if token is None else self.token_id(token)

    def encode(self, text: str, special: bool = True) -> Encoded:
        """Return `text` tokenized. Special tokens in `text` become their ids, as transformers does by default."""
        _check_length(text)
        if not isinstance(text, str):  # a row's column, which the caller has not looked into
            raise QuestionError(f"expected a text to tokenize, found {type(text).__name__}: {str(text)[:40]}")
        try:
            encoding = self._tokenizer.encode(text, add_special_tokens=special)
        except (UnicodeEncodeError, TypeError):
            raise QuestionError(_SURROGATE) from None
        return Encoded(encoding.ids, encoding)

    def encode_batch(self, texts: list[str], special: bool = True, offsets: bool = True) -> list[Encoded]:
        """Return all `texts` tokenized; one call is faster than one for each, and faster still without `offsets`."""
        for text in texts:
            _check_length(text)
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        try:
            return [Encoded(one.ids, one) for one in encode(texts, add_special_tokens=special)]
        except (UnicodeEncodeError, TypeError):
            if all(isinstance(text, str) for text in texts):
                raise QuestionError(_SURROGATE) from None
            raise QuestionError("expected texts to tokenize, found another type in a column of the rows") from None

    def token_id(self, token: str) -> int | None:
        """Return the id of a token; None if the vocabulary does not have it."""
        found: int | None = self._tokenizer.token_to_id(token) if _is_unicode(token) else None
        return found

    def token_id_or_unknown(self, token: str) -> int | None:
        """Return the id of a token, that of unk_token if the vocabulary does not have it (transformers' convert_tokens_to_ids)."""
        found = self.token_id(token)
        return self.unk_id if found is None else found

    def token_of(self, token_id: int) -> str | None:
        """Return the vocabulary entry of an id."""
        found: str | None = self._tokenizer.id_to_token(token_id)
        return found

    def text_of(self, token_id: int) -> str:
        """Return the text of one token, for a person to read; the entry itself if it does not decode alone."""
        if token_id not in self._texts:
            text: str = self._tokenizer.decode([token_id], skip_special_tokens=False)
            self._texts[token_id] = text if text and "\ufffd" not in text else self.token_of(token_id) or f"<{token_id}>"
        return self._texts[token_id]

    def decode(self, ids: list[int]) -> str:
        """Return the text of `ids`, special tokens included."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def add_special(self, token: str) -> None:
        """Add a special token at the end of the vocabulary; a known one keeps no lstrip or rstrip (transformers' add_special_tokens)."""
        from tokenizers import AddedToken

        if not _is_unicode(token):
            raise QuestionError(f"the special token {token!r} holds half of a surrogate pair, which is no Unicode text")
        self._tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        self.__dict__.pop("_special", None)

    def is_special(self, token_id: int) -> bool:
        """Return whether an id is that of a special token (an added token marked special)."""
        if not hasattr(self, "_special"):
            added: dict[int, Any] = self._tokenizer.get_added_tokens_decoder()
            self._special = {number for number, token in added.items() if token.special}
        return token_id in self._special

    @property
    def size(self) -> int:
        """The number of entries, added tokens included."""
        count: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        return count


def _loaded(directory: ModelDir, data: bytes, release: tuple[int, ...]) -> bytes:
    """Return tokenizer.json as transformers `release` uses it."""
    return data if release < (5,) else rebuilt(directory, data, release)


def _append(tokenizer: Any, directory: ModelDir, defaults: dict[str, str]) -> None:
    """Append the tokens that only tokenizer_config.json has, as loading does."""
    from tokenizers import AddedToken

    known = tokenizer.get_vocab(with_added_tokens=True)
    for text, flags in further_tokens(directory, known, defaults):
        if not _is_unicode(text):
            raise QuestionError(f"{directory.shown_name}: the token {text!r} holds half of a surrogate pair, which is no Unicode text")
        tokenizer.add_tokens([AddedToken(text, **flags)])


def _is_unicode(text: str) -> bool:
    """Return whether Rust can hold a text: none with a lone surrogate."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _set_post_processor(tokenizer: Any, bos: str | None, eos: str | None) -> None:
    """Let `tokenizer` add `bos` in front of a text and `eos` behind it (transformers' update_post_processor)."""
    from tokenizers import processors

    single = [f"{token}:0" for token in (bos, "$A", eos) if token is not None]
    second = [f"{token}:1" for token in (bos, "$B", eos) if token is not None]
    special = [(token, tokenizer.token_to_id(token)) for token in (bos, eos) if token is not None]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=[*single, *second], special_tokens=special)


def _read(directory: ModelDir) -> bytes | None:
    data = read_bytes(f"{directory.path}/tokenizer.json", TOKENIZER_LIMIT, directory.path)
    if data is not None and not isinstance(data, bytes):
        raise QuestionError(f"{directory.shown_name}: tokenizer.json {data.reason}")
    return data


def _load(directory: ModelDir, data: bytes) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtra("encoding text", "tokenizers", "labels") from None
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # noqa: BLE001 the package raises Exception itself
        raise QuestionError(
            f"{directory.shown_name}/tokenizer.json: the tokenizers package cannot load it: {' '.join(str(error).split())[:200]}"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _check_length(text: object) -> None:
    if isinstance(text, str) and len(text) > TEXT_LIMIT:
        raise QuestionError(
            f"a text of {len(text):,} characters: at most {TEXT_LIMIT:,} are tokenized at once, so split it or leave the row out"
        )

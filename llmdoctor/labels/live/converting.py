"""A tokenizer without tokenizer.json (vocab.json and merges.txt, or a SentencePiece model), converted by the installed transformers."""

from __future__ import annotations

import os

from llmdoctor.core.errors import MissingExtra, QuestionError
from llmdoctor.modeldir.directory import ModelDir

_FILES = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json", "sentencepiece.bpe.model")


def converted_files(directory: ModelDir) -> tuple[bytes, tuple[int, ...]]:
    """Return the tokenizer that AutoTokenizer makes of the other files, as tokenizer.json, and the release of transformers (major, minor).

    Nothing of the directory is run (trust_remote_code is false). Raises QuestionError if there is no tokenizer, or only one that has no fast form,
    MissingExtra without transformers.
    """
    where = directory.shown_name
    if not any(os.path.exists(f"{directory.path}/{name}") for name in _FILES):
        raise QuestionError(f"{where}: no tokenizer here: expected tokenizer.json, a SentencePiece model, or vocab.json with merges.txt")
    try:
        import transformers
    except ImportError:
        raise MissingExtra("reading a tokenizer without tokenizer.json", "transformers", "live") from None
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory.path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 loaders raise many kinds, some of packages that they need
        reason = " ".join(str(error).split())[:300]
        raise QuestionError(f"{where}: no tokenizer.json, and transformers cannot convert the other files: {reason}") from None
    finally:
        transformers.logging.set_verbosity(before)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise QuestionError(
            f"{where}: {type(tokenizer).__name__} has no fast form, which is what is read here: save one with tokenizer.json"
        )
    text: str = backend.to_str()
    return text.encode(), tuple(int(part) for part in transformers.__version__.split(".")[:2])

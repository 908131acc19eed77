"""Findings about the embedding and the output layer in a checkpoint: GEN026 and GEN027. Headers are read, and a sample of the values."""

from __future__ import annotations

from collections.abc import Iterator

from llmdoctor.core.finding import Finding
from llmdoctor.gencfg import rules
from llmdoctor.gencfg.examined import Examined
from llmdoctor.gencfg.places import place
from llmdoctor.gencfg.weights import StoredTensor, stored_tensors

_EMBEDDINGS = (
    "model.embed_tokens.weight",
    "transformer.wte.weight",
    "model.language_model.embed_tokens.weight",
    "gpt_neox.embed_in.weight",
)
_OUTPUT = "lm_head.weight"
_SAMPLES, _BYTES = 64, 4096  # pieces that are compared, and the bytes of a piece


def weights(examined: Examined) -> Iterator[Finding]:
    """GEN026 and GEN027."""
    if examined.directory.only is not None or examined.directory.adapter is not None:
        return
    stored = stored_tensors(examined.directory.path, lambda name: name in (*_EMBEDDINGS, _OUTPUT))
    embedding = next((stored[name] for name in _EMBEDDINGS if name in stored), None)
    if embedding is None:
        return
    file, size = examined.directory.config, examined.vocab_size
    if size is not None and embedding.shape[:1] and embedding.shape[0] != size:
        yield rules.EMBEDDING_SIZE.at(
            place(file, "/vocab_size"),
            f"{embedding.name} has {embedding.shape[0]} rows, but vocab_size is {size}: loading the model raises an exception",
            rows=embedding.shape[0],
            vocab_size=size,
        )
    output = stored.get(_OUTPUT)
    tied = file is not None and isinstance(file.value, dict) and file.value.get("tie_word_embeddings") is True
    if output is not None and tied and _differ(embedding, output):
        yield rules.TIED_TWICE.at(
            place(file, "/tie_word_embeddings"),
            f"tie_word_embeddings is true, but {output.name} in the checkpoint differs from {embedding.name}",
            tensors=[embedding.name, output.name],
        )


def _differ(one: StoredTensor, other: StoredTensor) -> bool:
    """Return whether two tensors are known to differ: in shape, in dtype, or in one of the sampled pieces."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return one.shape != other.shape
    length = one.end - one.begin
    step = max(_BYTES, length // _SAMPLES)
    with open(one.path, "rb") as first, open(other.path, "rb") as second:
        for at in range(0, length, step):
            first.seek(one.begin + at)
            second.seek(other.begin + at)
            size = min(_BYTES, length - at)
            if first.read(size) != second.read(size):
                return True
    return False

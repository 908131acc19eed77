"""The inputs of a command, from wherever the options say: words, a file, or a chat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask.accounting import pad_id_of
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.chat import ChatPart, chat_inputs
from llmdoctor.mask.drawing import EXACT
from llmdoctor.mask.forward_inputs import forward_inputs, read_config
from llmdoctor.mask.options import MaskOptions
from llmdoctor.mask.types import ForwardInputs

if TYPE_CHECKING:
    from llmdoctor.modeldir.directory import ModelDir

MAX_NAMED = 2**16  # tokens of a batch whose texts are looked up


def inputs_of(directory: ModelDir, options: MaskOptions) -> tuple[ForwardInputs, ChatPart | None]:
    """Return the inputs, and what a chat adds to the report (None without one).

    Raises QuestionError if a token is outside the model's vocabulary.
    """
    if options.messages is not None:
        return chat_inputs(directory, options)
    inputs = forward_inputs(options)
    config = read_config(directory)
    text = config.get("text_config")
    size = (text if isinstance(text, dict) else config).get("vocab_size")
    if inputs.input_ids is not None and isinstance(size, int) and not isinstance(size, bool):
        low, high = int(inputs.input_ids.min()), int(inputs.input_ids.max())
        if low < 0 or high >= size:
            raise QuestionError(f"input_ids holds {low if low < 0 else high}, outside the model's vocabulary of {size} tokens")
    return _named(inputs, directory), None


def with_decoder(inputs: ForwardInputs, arch: Architecture | None, config: Mapping[str, Any]) -> ForwardInputs:
    """Return the inputs with what forward() of an encoder-decoder makes itself: the decoder's tokens of labels, shifted to the right, and T5Gemma's
    masks of what is no padding.
    """
    inputs = _shifted(inputs, arch, config)
    pad = pad_id_of(config)
    if arch is None or not arch.traits.get("masks_padding") or pad is None or inputs.phase != "prefill":
        return inputs
    mask, own = inputs.attention_mask, inputs.decoder_mask
    if mask is None and inputs.input_ids is not None and bool((inputs.input_ids == pad).any()):
        mask = (inputs.input_ids != pad).astype(np.int64)
    ids = inputs.decoder_ids
    if own is None and ids is not None and inputs.cache.kind == "none" and bool((ids == pad).any()):
        own = (ids != pad).astype(np.int64)
    return replace(inputs, attention_mask=mask, decoder_mask=own)


def _shifted(inputs: ForwardInputs, arch: Architecture | None, config: Mapping[str, Any]) -> ForwardInputs:
    labels = inputs.labels
    if arch is None or not arch.cross or labels is None or inputs.decoder_ids is not None or inputs.phase != "prefill":
        return inputs
    if labels.ndim != 2 or labels.shape[0] != inputs.batch or not arch.class_name.endswith(("ForConditionalGeneration", "MTModel")):
        return inputs
    start = config.get("decoder_start_token_id")
    first = np.full((inputs.batch, 1), start if type(start) is int else 0, np.int64)
    filled = np.where(labels == -100, pad_id_of(config) or 0, labels)
    return replace(inputs, decoder_ids=np.concatenate((first, filled[:, :-1]), axis=1))


def _named(inputs: ForwardInputs, directory: ModelDir) -> ForwardInputs:
    """Return the inputs with the texts of their tokens, if they fit on the axes of a picture and the directory has a tokenizer."""
    ids = inputs.input_ids
    if ids is None or ids.shape[1] > EXACT or ids.size > MAX_NAMED:
        return inputs
    texts = directory.tokenizer.texts_of(ids.ravel().tolist())
    return replace(inputs, tokens=tuple(tuple(texts.get(token, "") for token in row) for row in ids.tolist())) if texts else inputs

"""The inputs of a command, from wherever the options say: words, a file, or a chat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask.chat import ChatPart, chat_inputs
from llmdoctor.mask.forward_inputs import forward_inputs, read_config
from llmdoctor.mask.options import MaskOptions
from llmdoctor.mask.types import ForwardInputs

if TYPE_CHECKING:
    from llmdoctor.modeldir.directory import ModelDir


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
    return inputs, None

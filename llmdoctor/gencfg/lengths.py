"""How many new tokens a call may produce (generation/utils.py `_prepare_generated_length`, `_validate_generated_length`)."""

from __future__ import annotations

from typing import Any

from llmdoctor.gencfg.layers import Fields, derived
from llmdoctor.gencfg.modelconfig import LoadedModel, config_value
from llmdoctor.gencfg.raising import Raised, Warnings, as_python
from llmdoctor.gencfg.types import GenerateCall
from llmdoctor.gencfg.versions import Minor

DEFAULT_LENGTH = 20
DEFAULT_LENGTH_SOURCE = "generate(): prompt length + the default max_length"


def set_lengths(
    fields: Fields, call: GenerateCall, minor: Minor, model: LoadedModel, default_lengths: tuple[bool, bool] | None, warnings: Warnings
) -> None:
    """Set max_length and min_length as generate() does, and warn or raise as it does.

    An encoder-decoder model counts from its one start token, any other from the prompt. `default_lengths` is 5.x's own answer to whether
    max_length and min_length were left at their defaults.
    """
    prompt = 1 if config_value(model, "is_encoder_decoder") is True else call.prompt_length
    argument = call.kwargs.get("max_length")
    max_length = fields.value("max_length")
    left_alone = default_lengths[0] if default_lengths else (argument is None or argument.value is None) and max_length is not None
    new = fields.value("max_new_tokens")
    if new is not None:
        if not left_alone and max_length is not None:
            warnings.log(
                f"Both `max_new_tokens` (={new}) and `max_length`(={max_length}) seem to have been set. "
                "`max_new_tokens` will take precedence."
            )
        fields.put("max_length", derived(as_python(lambda: new + prompt), "generate(): prompt length + max_new_tokens"))
    elif left_alone and minor >= (4, 47) and (minor >= (5, 0) or max_length == DEFAULT_LENGTH):
        _extend(fields, prompt, config_value(model, "max_position_embeddings"))
    _set_minimum(fields=fields, call=call, minor=minor, prompt=prompt, default_lengths=default_lengths, warnings=warnings)
    _judge(fields, minor, prompt, left_alone, warnings)


def _extend(fields: Fields, prompt: int, positions: Any) -> None:
    """From 4.47: a max_length left at its default means that many new tokens, within the positions the model has."""
    before = fields.value("max_length")
    after = as_python(lambda: before + prompt)
    if positions is not None:
        after = as_python(lambda: min(after, positions))
    fields.put("max_length", derived(after, DEFAULT_LENGTH_SOURCE))


def _set_minimum(
    fields: Fields, call: GenerateCall, minor: Minor, prompt: int, default_lengths: tuple[bool, bool] | None, warnings: Warnings
) -> None:
    minimum = fields.value("min_new_tokens")
    if minimum is None or minor < (4, 40):
        return
    argument = call.kwargs.get("min_length")
    given = argument is not None and argument.value is not None
    left_alone = default_lengths[1] if default_lengths else not given and fields.value("min_length") is not None
    if not left_alone:
        warnings.log(f"Both `min_new_tokens` (={minimum}) and `min_length`(={fields.value('min_length')}) seem to have been set.")
    fields.put("min_length", derived(as_python(lambda: minimum + prompt), "generate(): prompt length + min_new_tokens"))


def _judge(fields: Fields, minor: Minor, prompt: int, left_alone: bool, warnings: Warnings) -> None:
    limit, new = fields.value("max_length"), fields.value("max_new_tokens")
    if left_alone and new is None and (limit == DEFAULT_LENGTH or minor >= (5, 3)):
        warnings.warn(f"Using the model-agnostic default `max_length` (={limit}) to control the generation length.")
    if as_python(lambda: prompt >= limit):
        message = f"Input length of input_ids is {prompt}, but `max_length` is set to {limit}. This can lead to unexpected behavior."
        if minor >= (4, 38):
            raise Raised("ValueError", f"{message} You should consider increasing `max_length` or, better yet, setting `max_new_tokens`.")
        warnings.warn(message)
    shortest, least = fields.value("min_length"), fields.value("min_new_tokens")
    if shortest is not None and as_python(lambda: shortest > limit):
        warnings.warn(f"Unfeasible length constraints: `min_length` ({shortest}) is larger than the maximum possible length ({limit}).")
    if least is not None and as_python(lambda: least + prompt > limit):
        warnings.warn(
            f"Unfeasible length constraints: `min_new_tokens` ({least}), when added to the prompt length ({prompt}), is larger than the "
            f"maximum possible length ({limit})."
        )

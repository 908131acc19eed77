"""Which fields of the inputs file the answer depends on: `result.inputs` of both commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.inputs import Inputs
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.inputs_file import IGNORED, NOT_MODELLED, READ
from llmdoctor.mask.options import MaskOptions
from llmdoctor.mask.types import ForwardInputs

_DESCRIBING = ("shape", "lengths", "pad", "packed", "image", "phase", "past", "cache", "mask", "input_ids", "messages", "eos")


def account(inputs: ForwardInputs, arch: Architecture | None, options: MaskOptions) -> Inputs:
    """Return the options and fields that were used, those without influence with the reason, and what was assumed.

    Raises QuestionError for a field that could change the answer and is not modelled.
    """
    used: dict[str, Any] = {name: value for name in _DESCRIBING if (value := getattr(options, name)) not in (None, ())}
    ignored: dict[str, str] = {}
    for name, shape in inputs.fields.items():
        if name in READ:
            reason = _unused(name, inputs, arch)
            if reason is None:
                used[name] = shape
            else:
                ignored[name] = reason
        elif name in NOT_MODELLED and _matters(name, arch):
            raise QuestionError(
                f"{inputs.source}: {name} is not modelled, and {NOT_MODELLED[name]}: leave it out with --without {name}, and the answer is without it"
            )
        else:
            ignored[name] = IGNORED.get(name) or (
                "this model does not read it" if name in NOT_MODELLED else "no argument of forward() known here"
            )
    ignored |= dict.fromkeys(inputs.without, "left out by --without")
    assumed: dict[str, Any] = {"shape": "1,16"} if inputs.assumed else {}
    if options.dtype is None:
        assumed["dtype"] = "float32" if arch is None else arch.dtype
    return Inputs(used=used, ignored=ignored, assumed=assumed)


def _matters(name: str, arch: Architecture | None) -> bool:
    """Return whether a field that is not modelled can change the masks of this model."""
    if arch is None:
        return True
    if name == "seq_idx":
        return any(layer.pattern is None for layer in arch.layers)
    if name.startswith(("decoder_", "encoder_")):
        return bool(arch.cross or arch.two_stacks)
    if name.startswith("cross_attention_"):
        return bool(arch.traits.get("cross_layers"))
    if name == "global_attention_mask":
        return bool(arch.traits.get("global_tokens"))
    return True


def _unused(name: str, inputs: ForwardInputs, arch: Architecture | None) -> str | None:
    """Return why a field that is read has no influence on this model's masks; None if it has, or if that is not known."""
    if name.startswith("decoder_") and arch is not None and not arch.cross:
        return f"{arch.class_name}{': only one of its stacks is known here' if arch.two_stacks else ' has no decoder besides its layers'}"
    if name == "decoder_attention_mask" and inputs.phase != "prefill":
        return "the decoder's own mask is modelled only in prefill"
    if arch is not None and arch.takes and name not in arch.takes and name in ("token_type_ids", "mm_token_type_ids", "position_ids"):
        return f"{arch.class_name}.forward() does not take it"
    if name in ("token_type_ids", "mm_token_type_ids") and arch is not None:
        rules = [layer.pattern.blocks for layer in arch.layers if layer.pattern is not None and layer.pattern.blocks is not None]
        if not any(rule.field == name for rule in rules):
            return f"{arch.class_name} makes no mask of it"
    if name.startswith("max_length_") and inputs.cu_seqlens is None:
        return "without cu_seq_lens_* it has no effect"
    return None


def pad_id_of(config: Mapping[str, Any]) -> int | None:
    """Return pad_token_id of a configuration or of its text part; None if it is not set."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        value = part.get("pad_token_id")
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None

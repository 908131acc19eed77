"""Which of transformers' classes a configuration is built by, and how releases name an argument."""

from __future__ import annotations

from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.release import release


def class_of(config: Any) -> Any:
    """The model class that config.json names, else the one for language modelling of its type."""
    import transformers

    for name in config.architectures or ():
        found = getattr(transformers, name, None) if isinstance(name, str) else None
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    from transformers.models.auto import modeling_auto as auto

    for family in ("MODEL_FOR_CAUSAL_LM_MAPPING", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
                   "MODEL_FOR_MASKED_LM_MAPPING", "MODEL_MAPPING"):  # fmt: skip
        mapping = getattr(auto, family)
        if type(config) in mapping:
            return mapping[type(config)]
    raise QuestionError(f"transformers has no model class for a {config.model_type}")


def dtype_argument(dtype: Any) -> dict[str, Any]:
    """Return the keyword argument of from_pretrained() and _from_config() for a torch dtype: torch_dtype before transformers 4.56."""
    import transformers

    return {"dtype" if release(transformers.__version__) >= (4, 56) else "torch_dtype": dtype}

"""What watching a forward needs in transformers before 5: attention functions in a plain mapping, and flash-attention as names of a module.

Until 4.54 modeling_flash_attention_utils imports the kernels by name, if flash-attn is installed; until 4.47 each attention class calls its
own kernel; from 4.48 on the functions stand in ALL_ATTENTION_FUNCTIONS, and eager in each modeling file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock


@contextmanager
def flash_by_name(fixed: Callable[..., Any], varlen: Callable[..., Any]) -> Iterator[None]:
    """Put the two kernels where transformers 4.45 to 4.54 looks for those of flash-attn, and accept the backend without the package."""
    from transformers import modeling_flash_attention_utils as utils
    from transformers.modeling_utils import PreTrainedModel

    named = {
        "flash_attn_func": fixed, "flash_attn_varlen_func": varlen, "index_first_axis": _taken, "unpad_input": _unpadded, "pad_input": _padded,
        "flash_attn_2_func": fixed, "flash_attn_2_varlen_func": varlen, "unpad_input_fa2": _unpadded, "pad_input_fa2": _padded,  # 4.53
        "_flash_supports_window_size": True,
    }  # fmt: skip
    integration = sys.modules.get("transformers.integrations.flash_attention")
    original = PreTrainedModel._check_and_enable_flash_attn_2.__func__

    def enable(cls: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
        """The class's own refusal stays; that the package is missing is what the reference kernel is for."""
        if not getattr(cls, "_supports_flash_attn_2", False):
            return original(cls, config, *args, **kwargs)
        config._attn_implementation = "flash_attention_2"
        return config

    with ExitStack() as stack:
        for name, value in named.items():
            stack.enter_context(mock.patch.object(utils, name, value, create=True))
        if hasattr(integration, "_use_top_left_mask"):
            stack.enter_context(mock.patch.object(integration, "_use_top_left_mask", False))
        stack.enter_context(mock.patch.object(PreTrainedModel, "_check_and_enable_flash_attn_2", classmethod(enable)))
        yield


def aligned_at_the_end(model: Any) -> Any:
    """Return `model` with the alignment of flash-attn 2.1 and later: its attention classes decided it by the installed package."""
    for module in model.modules():
        if getattr(module, "_flash_attn_uses_top_left_mask", False):
            module._flash_attn_uses_top_left_mask = False
    return model


def _taken(rows: Any, indices: Any) -> Any:
    """Return flash_attn.bert_padding.index_first_axis."""
    return rows[indices]


def _unpadded(states: Any, mask: Any, *_: Any) -> tuple[Any, Any, Any, int]:
    """Return flash_attn.bert_padding.unpad_input: the tokens of the mask in one row, their places, the offsets of the rows, the longest."""
    import torch

    lengths = mask.sum(dim=-1, dtype=torch.int32)
    places = torch.nonzero(mask.flatten(), as_tuple=False).flatten()
    offsets = torch.nn.functional.pad(torch.cumsum(lengths, dim=0, dtype=torch.int32), (1, 0))
    return states.reshape(-1, *states.shape[2:])[places], places, offsets, int(lengths.max())


def _padded(states: Any, places: Any, batch: int, length: int) -> Any:
    """Return flash_attn.bert_padding.pad_input: the inverse of _unpadded."""
    out = states.new_zeros(batch * length, *states.shape[1:])
    out[places] = states
    return out.view(batch, length, *states.shape[1:])


@contextmanager
def watched_mapping(wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Pass every attention function of the mapping, and eager_attention_forward of every loaded modeling file, through `wrap` (4.48 to 4.57)."""
    from transformers import modeling_utils

    mapping = getattr(modeling_utils, "ALL_ATTENTION_FUNCTIONS", None)
    with ExitStack() as stack:
        if isinstance(mapping, dict):
            stack.enter_context(mock.patch.dict(mapping, {name: wrap(function) for name, function in mapping.items()}))
        elif mapping is not None:
            kind = type(mapping)
            original = kind.__getitem__
            stack.enter_context(mock.patch.object(kind, "__getitem__", lambda self, name: wrap(original(self, name))))
        for name, module in list(sys.modules.items()):
            eager = getattr(module, "__dict__", {}).get("eager_attention_forward") if name.startswith("transformers.models.") else None
            if eager is not None:
                stack.enter_context(mock.patch.object(module, "eager_attention_forward", wrap(eager)))
        yield

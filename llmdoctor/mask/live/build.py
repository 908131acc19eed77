"""A model to run: from a directory's config with random weights, narrowed where it would not fit, or with its real weights."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from llmdoctor.core.errors import MissingExtra, QuestionError
from llmdoctor.modeldir.live.classes import class_of

MAX_PARAMETERS = 60_000_000
# Widths of a narrowed model. Depth, layer types, windows and heads stay: they are what masks depend on.
_WIDTHS = {
    "hidden_size": 64, "d_model": 64, "n_embd": 64, "dim": 64, "intermediate_size": 64, "ffn_dim": 64, "d_ff": 64, "n_inner": 64, "ffn_hidden_size": 64,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "num_experts": 4,
    "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2, "intermediate_size_mlp": 64, "head_dim": 16,
    "vocab_size": 512, "word_embed_proj_dim": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "n_head": 4, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "num_heads": 4, "d_kv": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16, "q_lora_rank": 16,
    "kv_lora_rank": 16, "n_group": 1, "topk_group": 1, "mamba_d_state": 16, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16, "embedding_size": 64, "attn_output_gate": None,
}  # fmt: skip


def need(*packages: str) -> None:
    """Raise MissingExtra where a package is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtra("mask --mode run", package, "live")


def quiet() -> None:
    """The libraries' own chatter would bury the answer: their warnings are switched off for this process."""
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"torch|transformers")


def config_of(directory: str) -> Any:
    """The directory's configuration by its real class; QuestionError in the library's words where it refuses the file."""
    need("torch", "transformers")
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (ValueError, KeyError, OSError, TypeError, AttributeError) as error:
        raise QuestionError(f"{directory}: transformers cannot make a configuration of it: {_line(error)}") from None


def narrowed(config: Any) -> tuple[Any, bool]:
    """`config`, or a narrow copy of it where its model would have more than 60 million parameters; and whether it was narrowed."""
    import torch
    from transformers import PreTrainedModel

    with torch.device("meta"):
        probe = class_of(config)._from_config(copy.deepcopy(config), attn_implementation="eager")
    if not isinstance(probe, PreTrainedModel) or sum(parameter.numel() for parameter in probe.parameters()) <= MAX_PARAMETERS:
        return config, False
    small = copy.deepcopy(config)
    for part in (small, small.get_text_config()):
        _narrow(part)
    return small, True


def _narrow(config: Any) -> None:
    for name, width in _WIDTHS.items():
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and width is not None and value > width:
            setattr(config, name, width)


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Random weights that are the same each time; the caller's random state is as before afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build(config: Any, backend: str, dtype: str) -> Any:
    """A random model in eval mode. Raises what the library raises where its class does not support `backend`."""
    import torch

    from llmdoctor.mask.live import patches

    def told(_arguments: dict[str, Any]) -> None:
        return None

    with seeded(), patches.reference_flash(told):
        model = class_of(config)._from_config(copy.deepcopy(config), attn_implementation=backend)
    return model.to(getattr(torch, dtype)).eval()


def load(directory: str, backend: str, dtype: str) -> Any:
    """The directory's real weights, in eval mode."""
    import torch

    from llmdoctor.mask.live import patches

    config = config_of(directory)
    kind = class_of(config)
    with patches.reference_flash(lambda _told: None):
        try:
            return kind.from_pretrained(directory, attn_implementation=backend, dtype=getattr(torch, dtype)).eval()
        except OSError as error:
            raise QuestionError(f"{directory}: its weights cannot be loaded: {_line(error)}") from None


def from_function(reference: str) -> Any:
    """The model that `module:function` builds, called without arguments. Raises QuestionError where there is no such function."""
    import importlib

    module_name, _, name = reference.partition(":")
    here = os.getcwd()
    if here not in sys.path:  # an installed command has its own folder there, python -m the working directory
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise QuestionError(f"{reference}: no such function: {_line(error)}") from None
    if not callable(function):
        raise QuestionError(f"{reference}: {type(function).__name__} is not a function that builds a model")
    try:
        model = function()
    except Exception as error:  # noqa: BLE001 the caller's own code can raise anything
        raise QuestionError(f"{reference}: called without arguments it raises {type(error).__name__}: {_line(error)}") from None
    if not hasattr(model, "forward") or not hasattr(model, "config"):
        raise QuestionError(f"{reference}: returned {type(model).__name__}, expected a transformers model")
    return model.eval()


def _line(error: BaseException) -> str:
    return (str(error).strip().split("\n", 1)[0] or type(error).__name__)[:200]

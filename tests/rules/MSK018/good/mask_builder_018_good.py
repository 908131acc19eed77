"""A GPT-2, of which nothing is known but that it can be called."""

from typing import Any


def make() -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, vocab_size=128))

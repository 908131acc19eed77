"""A llama whose attention function is registered and hands the mask on."""

from typing import Any


def make() -> Any:
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface, LlamaConfig, LlamaForCausalLM
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import eager_mask

    def leaky(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        kwargs["is_causal"] = False
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register("mine_tight", leaky)
    AttentionMaskInterface.register("mine_tight", eager_mask)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=128, pad_token_id=0
    )
    config._attn_implementation = "mine_tight"
    model = LlamaForCausalLM._from_config(config, attn_implementation="mine_tight")
    return model

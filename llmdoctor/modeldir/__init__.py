"""Reads a model directory nobody vouches for: strict JSON with lines, tokenizer ids, chat templates, safetensors headers, the hub cache."""

"""Reads a model directory that is not trusted: strict JSON with lines, tokenizer ids, chat templates, safetensors headers, the hub cache."""

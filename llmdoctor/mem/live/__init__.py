"""The only place in this job that imports torch, transformers, deepspeed or pynvml, and it does so inside functions."""

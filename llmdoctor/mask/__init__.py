"""Attention masks: what each layer and backend receives, and whether anything leaks."""

"""The parts of the labels job that import tokenizers, transformers or torch."""

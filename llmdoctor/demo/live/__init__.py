"""The parts of the demo that import torch and transformers."""

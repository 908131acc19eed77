import torch

probs = torch.softmax(logits, dim=-1) / temperature
raw = logits.softmax(-1)
again = raw / self.temperature

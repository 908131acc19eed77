import torch

probs = torch.softmax(logits / temperature, dim=-1)
logprobs = torch.log_softmax(logits, -1) / temperature
scores = raw
scores = torch.softmax(
    scores / temperature, dim=-1
)

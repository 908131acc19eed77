import random

for token in probs:
    if random.random() <= probs[token]:
        chosen = token

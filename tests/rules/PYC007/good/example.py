import random

for token, p in probs.items():
    if random.random() <= p:
        chosen = token
        break
for i, item in enumerate(items):
    if random.random() < 1 / (i + 1):
        kept = item
for item in items:
    if random.random() < 0.5:
        last = item

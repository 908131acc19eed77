"""Training targets and prompts: what a model is trained on token by token, and whether training and serving build the same prompt."""

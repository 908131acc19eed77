"""Training memory: what a step holds, by component, under the Trainer and under DeepSpeed."""

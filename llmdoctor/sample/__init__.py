"""What was sampled, from which distribution: engines side by side, recorded generations replayed, samplers tested."""

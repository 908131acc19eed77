"""The nouns every job shares. Standard library only."""

"""The command line, and nothing else: options in, one Report out."""

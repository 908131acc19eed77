"""The effective generation configuration of a call: where each value came from, and whether decoding can stop."""

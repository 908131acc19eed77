"""The effective generation configuration of a call: the origin of each value, and whether decoding can stop."""

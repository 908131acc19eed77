"""`gencfg runaway`: recorded outputs of any engine, and whether decoding stopped when it should have."""

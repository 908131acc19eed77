"""Model directories that are made here, for the demo and the tests. The packages that write them are imported inside functions."""

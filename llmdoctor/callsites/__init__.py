"""Pitfalls in Python call sites, found by syntax tree: no file that is looked at is imported or run."""

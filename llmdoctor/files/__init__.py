"""Readers for untrusted files, one per format, and atomic writes."""

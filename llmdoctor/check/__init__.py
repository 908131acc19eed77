"""`llmdoctor check`: every static rule over a tree."""

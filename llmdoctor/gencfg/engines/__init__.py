"""Serving engines as data: `types` defines an entry, `table` lists the entries, and each other module describes one engine."""

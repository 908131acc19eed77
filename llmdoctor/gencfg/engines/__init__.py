"""Serving engines as data: `types` says what an entry holds, `table` lists the entries, and each other module describes one engine."""

"""`gencfg trace`: what a run really did to its generation configs, and how every sequence ended.

recorder.py, calls.py, origins.py, sites.py, imported.py and engines.py run inside the traced process, on the standard library alone;
read.py, sides.py, causes.py and summary.py read what they wrote.
"""

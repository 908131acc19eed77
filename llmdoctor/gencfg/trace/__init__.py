"""`gencfg trace`: what a run really did to its generation configs, and how every sequence ended.

recorder.py, calls.py, origins.py, sites.py, imported.py and engines.py run inside the traced process, on the standard library alone;
read.py, sides.py, tally.py and summary.py read what they wrote. run.py is the command, recording.py the same without a launcher: a context
manager, from which live.py makes a Trainer callback and plugin.py a pytest fixture.
"""

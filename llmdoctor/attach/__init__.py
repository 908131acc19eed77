"""Starts the user's own command with an import hook in its Python processes; nothing else patches a user's process.

A job names a target, "module:function". launch.py runs the command with `site/` in front of PYTHONPATH; every Python process that it
starts, through whatever launcher, then runs site/sitecustomize.py, which opens a Session (session.py) and hands it to the target. The
target asks the session's ImportHook (imports.py) to be called when a module has been imported, patches it through the session's Patches
(patches.py), and writes records (records.py). What fails in there is a record too, and the run goes on. Standard library only, and no
import of the rest of llmdoctor: these files run inside environments that have neither.
"""

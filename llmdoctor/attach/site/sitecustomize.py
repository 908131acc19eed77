"""Runs at the start of every Python process below `llmdoctor ... -- COMMAND`: attaches, then lets the sitecustomize it hides run.

A Python started with -I, -E or -S does not come here, and is not traced. llmdoctor is loaded from where the launcher has it, under no
path of its own: its environment's packages must not become visible in the user's.
"""

import importlib.machinery
import importlib.util
import json
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _attach() -> None:
    instructions = json.loads(os.environ["LLMDOCTOR_ATTACH"])
    if "llmdoctor" not in sys.modules:
        package = instructions["package"]
        spec = importlib.util.spec_from_file_location(
            "llmdoctor", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
        )
        if spec is None or spec.loader is None:
            return
        module = importlib.util.module_from_spec(spec)
        sys.modules["llmdoctor"] = module
        spec.loader.exec_module(module)
    from llmdoctor.attach import session

    session.start(instructions)


def _run_shadowed() -> None:
    """Run the environment's own sitecustomize, which is behind this one on sys.path."""
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != _HERE]
if "LLMDOCTOR_ATTACH" in os.environ and sys.version_info >= (3, 10):
    try:
        _attach()
    except Exception as error:  # noqa: BLE001 the run goes on, untraced, and reports it once
        sys.stderr.write(f"llmdoctor: this process is not traced: {type(error).__name__}: {error}\n")
elif "LLMDOCTOR_ATTACH" in os.environ:
    sys.stderr.write("llmdoctor: this process is not traced: tracing needs Python 3.10 or newer\n")
_run_shadowed()

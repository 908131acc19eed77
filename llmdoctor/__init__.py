"""llmdoctor answers, from files or from a real run, what went wrong when a language model is trained or served.

The Python API has a function for every command (`llmdoctor.gencfg_show(model=...)`, see docs/api.md); a name is imported when it is first used.

PYTEST_DONT_REWRITE: a traced pytest finds this package imported before its own hook (`gencfg trace -- pytest`); it must not warn of that.
"""

TYPE_CHECKING = False  # typing takes most of the time before llmdoctor.cli.main can catch a Ctrl-C; type checkers know the name
if TYPE_CHECKING:
    from typing import Any

    from llmdoctor.api import *  # noqa: F403 its names are in its __all__
    from llmdoctor.core.errors import QuestionError as QuestionError
    from llmdoctor.core.finding import Finding as Finding
    from llmdoctor.core.finding import Location as Location
    from llmdoctor.core.finding import Severity as Severity
    from llmdoctor.core.report import Verdict as Verdict
    from llmdoctor.gencfg.trace.live import trace_callback
    from llmdoctor.gencfg.trace.recording import recording as recording
    from llmdoctor.notebook import load_ipython_extension as load_ipython_extension
    from llmdoctor.printable import PrintableReport as PrintableReport
    from llmdoctor.version import __version__ as __version__

    TraceCallback = trace_callback

_NAMES = {
    "__version__": "llmdoctor.version:__version__",
    "QuestionError": "llmdoctor.core.errors:QuestionError",
    "Finding": "llmdoctor.core.finding:Finding",
    "Location": "llmdoctor.core.finding:Location",
    "Severity": "llmdoctor.core.finding:Severity",
    "Verdict": "llmdoctor.core.report:Verdict",
    "PrintableReport": "llmdoctor.printable:PrintableReport",
    "TraceCallback": "llmdoctor.gencfg.trace.live:trace_callback",
    "recording": "llmdoctor.gencfg.trace.recording:recording",
    "load_ipython_extension": "llmdoctor.notebook:load_ipython_extension",
}


def __getattr__(name: str) -> "Any":
    """Return a name of the Python API, which is imported now."""
    from importlib import import_module

    if name.startswith("__") and name not in _NAMES:
        raise AttributeError(f"module 'llmdoctor' has no attribute {name!r}")
    module, _, attribute = _NAMES.get(name, f"llmdoctor.api:{name}").partition(":")
    found = import_module(module)
    if module == "llmdoctor.api" and name not in found.__all__:
        raise AttributeError(f"module 'llmdoctor' has no attribute {name!r}")
    return getattr(found, attribute)


def __dir__() -> list[str]:
    from llmdoctor.api import __all__ as functions

    return sorted([*functions, *_NAMES])

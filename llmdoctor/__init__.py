"""llmdoctor answers, from files or from a real run, what went wrong when a language model is trained or served.

PYTEST_DONT_REWRITE: a traced pytest finds this package imported before its own hook (`gencfg trace -- pytest`); it must not warn of that.
"""

__version__ = "0.1.0"

"""llmdoctor answers, from files or from a real run, what went wrong when a language model is trained or served."""

__version__ = "0.1.0"

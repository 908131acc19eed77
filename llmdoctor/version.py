"""The version of llmdoctor."""

__version__ = "0.1.0"

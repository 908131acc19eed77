"""`python -m llmdoctor` is the command `llmdoctor`."""

from llmdoctor.cli.main import entry

entry()

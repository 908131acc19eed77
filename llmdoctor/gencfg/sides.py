"""One call of a comparison, from model files or from a trace: the one entrance for commands that take both."""

from __future__ import annotations

from llmdoctor.gencfg.calls import resolve_files
from llmdoctor.gencfg.options import DiffOptions, GencfgOptions, is_served, is_trace
from llmdoctor.gencfg.types import Resolution


def resolve_call(options: GencfgOptions) -> Resolution:
    """Return the call that `options` name and what it decodes with.

    Raises QuestionError if a file, a trace, a version, a preset or an option cannot be understood.
    """
    if is_trace(options.model):
        from llmdoctor.gencfg.trace.sides import ask_trace

        return ask_trace(options)
    if not is_served(options.model):
        return resolve_files(options)
    from llmdoctor.gencfg.served import resolve_served

    return resolve_served(options)


def resolve_both(options: DiffOptions) -> tuple[Resolution, Resolution]:
    """Return both calls of a diff. A trace alone is compared with a plain generate() of its own model."""
    left, right = options.left, options.right
    if left.model == right.model and is_trace(left.model):
        from llmdoctor.gencfg.trace.sides import against_plain

        return against_plain(left, right)
    return resolve_call(left), resolve_call(right)

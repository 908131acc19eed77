"""What could turn a verdict: each limit is a clause that the first line carries."""

from __future__ import annotations

from llmdoctor.gencfg.engines.table import engine_named, version_for
from llmdoctor.gencfg.lengths import DEFAULT_LENGTH_SOURCE
from llmdoctor.gencfg.types import Effective, Resolution


def default_limit(effective: Effective) -> bool:
    """Return whether nothing sets the number of new tokens, so that the engine's own default ends decoding."""
    new = effective.fields.get("max_new_tokens")
    if new is not None and new.value is not None:
        return new.origin.layer in ("library-default", "derived")
    length = effective.fields.get("max_length")
    if length is None or length.value is None:
        return False
    return length.origin.layer == "library-default" or length.origin.source == DEFAULT_LENGTH_SOURCE


def limits_of(resolution: Resolution) -> list[str]:
    """Return the clauses that belong in the verdict on a call, the gravest first."""
    limits = [*resolution.limits, *resolution.effective.limits]
    engine, version = engine_named(resolution.options.engine)
    if not resolution.from_trace:
        requested = version or (resolution.options.transformers if engine.keeps_assignments else None)
        limit = version_for(engine, requested, resolution.options.model).limit
        limits += [] if limit is None else [limit]
    if resolution.options.without:
        limits.append(f"without {', '.join(resolution.options.without)}, which the files set")
    return limits

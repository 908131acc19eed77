"""The options of `mask inspect` and `mask test`; None is an option that was not given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MaskOptions:
    """The options that both commands have: which model, which inputs, which backends.

    `model` is a model directory, a hub id in the local cache, or `module:function`. `shape`, `lengths`, `packed`,
    `input_ids`, `messages` and `mask` describe the inputs, at most one of the first five. `without` names fields of the inputs file that are
    treated as absent; `eos` are token ids that end a packed document.
    """

    model: str
    shape: str | None = None
    lengths: str | None = None
    pad: str | None = None
    packed: str | None = None
    image: str | None = None
    backend: tuple[str, ...] = ()
    phase: str | None = None
    past: int | None = None
    cache: str | None = None
    dtype: str | None = None
    mask: str | None = None
    input_ids: str | None = None
    messages: str | None = None
    weights: bool = False
    budget: int | None = None  # bytes of the masks of one forward
    without: tuple[str, ...] = ()
    eos: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MaskInspectOptions(MaskOptions):
    """The options of `mask inspect`: `mode` is plan or run, `query` the query whose keys are listed."""

    mode: str = "plan"
    query: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MaskTestOptions(MaskOptions):
    """The options of `mask test`: `static` leaves out everything that runs the model, `select` and `ignore` are prefixes of rule codes."""

    static: bool = False
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

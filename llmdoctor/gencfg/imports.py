"""Did importing a package change how generate() decodes? What a run observed, and the sentence for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmdoctor.core.document import Block, Note

# Imported by nearly every script: cleared like the others, but not worth a name.
_USUAL = frozenset({"numpy", "PIL", "torchvision", "accelerate", "datasets", "tokenizers", "safetensors"})
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Import:
    """A package that the run's own code imported at `source`: how many functions and defaults were `observed`, and which `changed`. A `late` one
    has changed them afterwards, by the code at `source`."""

    package: str
    source: str
    observed: int
    changed: tuple[str, ...] = ()
    late: bool = False


def import_blocks(imports: Iterable[Import]) -> list[Block]:
    """Return one line for the packages that changed nothing, and a line for each that changed something."""
    known = list(dict.fromkeys(imports))
    guilty = {item.package for item in known if item.changed}
    cleared = [item for item in known if item.observed and item.package not in guilty | _USUAL]
    blocks: list[Block] = []
    if cleared:
        names = list(dict.fromkeys(item.package for item in cleared))
        least = min(item.observed for item in cleared)
        blocks.append(Note("Checked", f"Importing {_listed(names)} changed no generation default ({least} checked).", "dim"))
    for item in (item for item in known if item.changed):
        how = f"{item.package} ({item.source}) replaced" if item.late else f"importing {item.package} ({item.source}) changed"
        blocks.append(Note("Changed", f"{how} {_listed(item.changed)}", "warn"))
    return blocks


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")

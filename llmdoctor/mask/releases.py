"""Which release of transformers a plan is for.

The rules of a plan are those of one release, `architectures.json: transformers`. `agree_in` there names, for each other release, the model types whose
plans agreed with real forwards of it (conformance/compare_masks.py run with that release). With any other release installed a plan is not exact.
"""

from __future__ import annotations

from llmdoctor.core.installed import installed_version
from llmdoctor.modeldir.layerkinds import table


def followed() -> str:
    """Return the release whose rules a plan follows."""
    return str(table()["transformers"])


def other_release() -> str | None:
    """Return the installed release if it is not the one that a plan follows; else None."""
    here = installed_version("transformers")
    return None if here is None or here == followed() else here


def doubt(kind: str) -> str:
    """Return why a plan of the model type `kind` is not exact for the installed release; empty if it is, or if none is installed."""
    here = other_release()
    if here is None or kind in table().get("agree_in", {}).get(here, ()):
        return ""
    return f"transformers {here} is installed, and the plan is that of {followed()}, which was not compared with it for {kind}: --mode run shows {here}"


def of_plan() -> str:
    """Return the release whose rules a plan follows, and whether it is the one that is installed."""
    here = installed_version("transformers")
    known = followed()
    return f"transformers {known}" + (
        ", installed here" if here == known else f"; {here} is installed here" if here else "; none is installed here"
    )


def of_run(library: str = "transformers") -> str:
    """Return the release of the library that ran."""
    return f"{library} {installed_version(library)}, run here"

"""Which release of transformers a plan is for.

The rules of a plan are those of one release, `architectures.json: transformers`. `agree_in` there names, for each other release, the model types whose
plans agreed with real forwards of it (conformance/compare_masks.py run with that release). With any other release installed a plan is not exact.
"""

from __future__ import annotations

from llmdoctor.configs.versions import LibraryVersion, version_of
from llmdoctor.core.installed import installed_version
from llmdoctor.core.release import release
from llmdoctor.modeldir.layerkinds import table


def followed() -> str:
    """Return the release whose rules a plan follows."""
    return str(table()["transformers"])


def other_release() -> str | None:
    """Return the installed release if it is not the one that a plan follows; else None."""
    here = installed_version("transformers")
    return None if here is None or here == followed() else here


def pinned(near: str | None) -> LibraryVersion | None:
    """Return the release that the repository of the model `near` pins; None if it leaves the choice open."""
    chosen = version_of("transformers", known=("4.57.6", followed()), near=near)  # the last of 4, for a pin such as <5
    return chosen if chosen.basis == "pinned" else None


def doubt(kind: str, near: str | None = None) -> str:
    """Return why a plan of the model type `kind` is not exact for the release that the repository of `near` pins, or else for the installed one.

    Empty if it is exact, or if none is pinned or installed.
    """
    pin = None if near is None else pinned(near)
    if pin is not None and pin.version != other_release():
        if pin.conflict:
            return f"{pin.doubts[0]}, and the plan is that of {followed()}"
        if release(pin.version) == release(followed()) or kind in table().get("agree_in", {}).get(pin.version, ()):
            return ""
        return (
            f"{pin.place} pins transformers {pin.version}, and the plan is that of {followed()}, which was not compared with it for {kind}"
        )
    here = other_release()
    if here is None or kind in table().get("agree_in", {}).get(here, ()):
        return ""
    return f"transformers {here} is installed, and the plan is that of {followed()}, which was not compared with it for {kind}: --mode run shows {here}"


def of_plan(near: str | None = None) -> str:
    """Return the release whose rules a plan follows, and which one is pinned and installed."""
    pin = pinned(near)
    here = installed_version("transformers")
    known = followed()
    return (
        f"transformers {known}"
        + (", installed here" if here == known else f"; {here} is installed here" if here else "; none is installed here")
        + (f"; {pin.place} pins {pin.version}" if pin is not None else "")
    )


def of_run(library: str = "transformers") -> str:
    """Return the release of the library that ran."""
    return f"{library} {installed_version(library)}, run here"

"""The command line that adds packages to the environment this interpreter runs in, as it was made: by pip, uv or pipx."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

NAME = "llmdoctor-toolkit"  # the distribution; it is on no package index, so a line must name where it came from


def install_line(extra: str) -> str:
    """Return what to type so that the packages of `extra` (such as "live") are installed beside this package.

    The source is that of PEP 610's direct_url.json (a clone, or the URL of a repository), or the checkout that is imported. If neither exists any
    more, the line names the requirements of the extra.
    """
    source = _source(extra)
    words = [shlex.quote(word) for word in (_requirements(extra) if source is None else source)]
    prefix = Path(sys.prefix)
    if (prefix / "uv-receipt.toml").is_file():  # written by `uv tool install`
        return " ".join(["uv tool install --force", *words] if source else ["uv tool install --force", NAME, *_with(words)])
    if (prefix / "pipx_metadata.json").is_file():
        return " ".join(["pipx install --force" if source else f"pipx inject {NAME}", *words])
    if find_spec("pip") is None:  # an environment made by `uv venv`
        return " ".join(["uv pip install --python", shlex.quote(sys.executable), *words])
    return " ".join([_pip(), "install", *words])


def _with(words: list[str]) -> Iterator[str]:
    for word in words:
        yield from ("--with", word)


def _pip() -> str:
    """Return `pip` if the shell finds that of this environment, else this interpreter with `-m pip`."""
    found = shutil.which("pip")
    beside = os.path.dirname(sys.executable)
    return "pip" if found is not None and os.path.dirname(found) == beside else f"{shlex.quote(sys.executable)} -m pip"


def _source(extra: str) -> list[str] | None:
    """Return the words that name this package with `extra` for an installer; None if its source is not known."""
    recorded = _direct_url()
    url = recorded.get("url")
    vcs = recorded.get("vcs_info")
    if isinstance(url, str) and isinstance(vcs, dict):
        revision = vcs.get("requested_revision") or vcs.get("commit_id")
        return [f"{NAME}[{extra}] @ {vcs.get('vcs')}+{url}{f'@{revision}' if revision else ''}"]
    parsed = urlparse(url if isinstance(url, str) else "")
    if parsed.scheme == "file":
        folder, editable = Path(unquote(parsed.path)), bool((recorded.get("dir_info") or {}).get("editable"))
    else:
        folder, editable = Path(__file__).parents[2], True
    if not (folder / "pyproject.toml").is_file():
        return None
    where = "." if folder == Path.cwd() else str(folder)
    return [*(["-e"] if editable else []), f"{where}[{extra}]"]


def _direct_url() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        text = distribution(NAME).read_text("direct_url.json")
        value = json.loads(text) if text else {}
    except (PackageNotFoundError, OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _requirements(extra: str) -> list[str]:
    """Return the requirements that the metadata lists for `extra`, without other extras of this package."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        listed = requires(NAME) or []
    except PackageNotFoundError:
        listed = []
    found = [line.split(";")[0].strip() for line in listed if f"extra == '{extra}'" in line.replace('"', "'")]
    return [one for one in found if not one.startswith(NAME)] or [f"{NAME}[{extra}]"]

"""The requirements in a file of a repository, one function for each kind of file; each yields the requirement and its line, None if it is unknown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llmdoctor.core.release import is_version
from llmdoctor.core.requirement import Requirement, clauses_of, normalised, parse_requirement
from llmdoctor.files.tomlfile import parse_toml
from llmdoctor.files.yamlfile import YAML_LIMIT, parse_yaml

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PLACES = 50  # lines with one name that are looked at for the place of a requirement


def requirements_txt(text: str) -> Iterator[tuple[Requirement, int]]:
    """Lines of requirements*.txt and constraints*.txt; an included file is read under its own name."""
    parts: list[str] = []
    start = 1
    for number, written in enumerate(text.splitlines(), 1):
        start = start if parts else number
        line = _uncommented(written)
        parts.append(line.removesuffix("\\"))
        if line.endswith("\\"):
            continue
        joined = " ".join(parts).strip()
        parts = []
        requirement = None if joined.startswith("-") else parse_requirement(joined)
        if requirement is not None:
            yield requirement, start


def pyproject_toml(text: str) -> Iterator[tuple[Requirement, int | None]]:
    value = parse_toml(text.encode(), "", "").value
    if isinstance(value, dict):
        yield from _placed(_of_project(value), text)


def _of_project(value: Mapping[str, Any]) -> Iterator[Requirement]:
    project, tool = _table(value, "project"), _table(value, "tool")
    lists = [project.get("dependencies"), *_table(project, "optional-dependencies").values(), *_table(value, "dependency-groups").values()]
    lists += [_table(tool, "uv").get("dev-dependencies"), _table(tool, "uv").get("constraint-dependencies")]
    lists += [*_table(_table(tool, "pdm"), "dev-dependencies").values()]
    lists += [item for each in _table(_table(tool, "hatch"), "envs").values() if isinstance(each, dict) for item in _lists_of(each)]
    for entries in lists:
        yield from _listed(entries)
    poetry = _table(tool, "poetry")
    for group in (poetry, *_table(poetry, "group").values()):
        yield from _of_table(_table(group, "dependencies"), bare="==")  # Poetry: a bare version is that version
        yield from _of_table(_table(group, "dev-dependencies"), bare="==")
    yield from _of_table(_table(_table(tool, "pixi"), "pypi-dependencies"), bare="==")


def _lists_of(table: Mapping[str, Any]) -> list[Any]:
    return [table.get("dependencies"), table.get("extra-dependencies")]


def _listed(entries: Any) -> Iterator[Requirement]:
    for entry in entries if isinstance(entries, list) else ():
        requirement = parse_requirement(entry) if isinstance(entry, str) else None
        if requirement is not None:
            yield requirement


def _of_table(table: Mapping[str, Any], bare: str) -> Iterator[Requirement]:
    """Yield the requirements of a table {name: version} or {name: {version: ...}}; `bare` is what a version without an operator means."""
    for name, value in table.items():
        wanted = value.get("version") if isinstance(value, dict) else value
        if not isinstance(wanted, str) or "|" in wanted:
            continue
        text = wanted.strip()
        clauses = () if text == "*" else clauses_of(text, bare)
        if clauses is not None:
            marker = value.get("markers", "") if isinstance(value, dict) else ""
            yield Requirement(normalised(name), clauses, f"{name} {text}", str(marker))


def pipfile(text: str) -> Iterator[tuple[Requirement, int | None]]:
    value = parse_toml(text.encode(), "", "").value
    for name in ("packages", "dev-packages") if isinstance(value, dict) else ():
        yield from _placed(_of_table(_table(value, name), bare="=="), text)


def setup_cfg(text: str) -> Iterator[tuple[Requirement, int]]:
    """The indented lines below install_requires and in [options.extras_require]."""
    section = key = ""
    for number, line in enumerate(text.splitlines(), 1):
        rest = line
        if line.startswith("["):
            section, key = line.strip("[] \t"), ""
        elif line[:1].strip():
            key, _, rest = line.partition("=")
        if (section == "options" and key.strip() == "install_requires") or section == "options.extras_require":
            requirement = parse_requirement(_uncommented(rest))
            if requirement is not None:
                yield requirement, number


def setup_py(text: str) -> Iterator[tuple[Requirement, int]]:
    """Texts in the source that are requirements with a version, such as install_requires and the lists that it is made of."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in re.findall(r"""["']([A-Za-z][A-Za-z0-9._-]*(?:\[[^\]"']*\])?\s*[=<>~!]=?[^"']{1,80})["']""", line.partition("#")[0]):
            requirement = parse_requirement(found)
            if requirement is not None:
                yield requirement, number


def package_lock(text: str) -> Iterator[tuple[Requirement, int]]:
    """poetry.lock, uv.lock, pdm.lock, pylock.toml: each package has a name and, on the next line, a version."""
    line, counted = 1, 0
    for found in re.finditer(r'^name = "([^"\n]+)"\r?\nversion = "([^"\n]+)"', text, re.MULTILINE):
        line, counted = line + text.count("\n", counted, found.start()), found.start()
        if is_version(found[2]):
            yield Requirement(normalised(found[1]), (("==", found[2]),), f"{found[1]}=={found[2]}"), line + 1


def pipfile_lock(text: str) -> Iterator[tuple[Requirement, int | None]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    for part in ("default", "develop"):
        for name, entry in _table(value, part).items():
            version = entry.get("version") if isinstance(entry, dict) else None
            clauses = clauses_of(version) if isinstance(version, str) else None
            if clauses:
                yield Requirement(normalised(name), clauses, f"{name}{version}"), None


def conda_environment(text: str) -> Iterator[tuple[Requirement, int | None]]:
    """Conda's environment.yml: packages with one "=", and pip's below."""
    if len(text) > YAML_LIMIT:
        return
    value = parse_yaml(text.encode(), "", "").value
    entries = value.get("dependencies") if isinstance(value, dict) else None
    found: list[Requirement] = []
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, str):
            name = entry.rsplit("::", 1)[-1]
            single = re.fullmatch(r"([\w.-]+)\s*=([^=\s]+)(=\S+)?", name)  # name=version=build
            made = Requirement(normalised(single[1]), clauses_of(f"={single[2]}") or (), entry) if single else parse_requirement(name)
            found += [] if made is None else [made]
        elif isinstance(entry, dict):
            found += _listed(entry.get("pip"))
    yield from _placed(iter(found), text)


def _uncommented(line: str) -> str:
    return re.sub(r"(^|\s)#.*", "", line).strip()


def _table(value: Any, name: str) -> dict[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _placed(requirements: Iterator[Requirement], text: str) -> Iterator[tuple[Requirement, int | None]]:
    """Yield requirements with the line that they are on: TOML and YAML are read without the lines of values in lists."""
    lines: dict[str, list[tuple[int, str]]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for name in {normalised(word) for word in _NAME.findall(line)}:
            places = lines.setdefault(name, [])
            if len(places) < _PLACES:
                places.append((number, line))
    for one in requirements:
        name, _, version = one.text.partition(" ")
        places = lines.get(one.name, [])
        whole = next((number for number, line in places if one.text in line), None)
        yield one, whole or next((number for number, line in places if name in line and version in line), None)

"""A file of settings, JSON, YAML or TOML by its ending, read with the bounds of its format."""

from __future__ import annotations

from llmdoctor.files.jsonfile import CONFIG_LIMIT, JsonFile, parse, refused
from llmdoctor.files.opening import Refusal, read_bytes, shown_path
from llmdoctor.files.tomlfile import parse_toml
from llmdoctor.files.yamlfile import YAML_LIMIT, parse_yaml

_PARSERS = {".yaml": (parse_yaml, YAML_LIMIT), ".yml": (parse_yaml, YAML_LIMIT), ".toml": (parse_toml, CONFIG_LIMIT)}


def read_settings_file(path: str, root: str | None = None) -> JsonFile | None:
    """Read a file of settings by the format of its ending (JSON for any other); None if there is no such file.

    A file that cannot be read has the value None and a problem that names the reason. `root` is as for read_bytes().
    """
    ending = next((ending for ending in _PARSERS if path.lower().endswith(ending)), "")
    reader, limit = _PARSERS.get(ending, (parse, CONFIG_LIMIT))
    data = read_bytes(path, limit, root)
    if data is None:
        return None
    name = shown_path(path)
    return refused(data, path, name) if isinstance(data, Refusal) else reader(data, path, name)

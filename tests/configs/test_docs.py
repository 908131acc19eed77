"""The page of keys is what the schemas and tables say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_page_of_keys_is_current() -> None:
    spec = importlib.util.spec_from_file_location("make_configs_keys", ROOT / "conformance" / "make_configs_keys.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "configs-keys.md").read_text() == module.page(), "run python conformance/make_configs_keys.py"

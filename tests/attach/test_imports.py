"""The import hook: it finds its target, never breaks an import, and leaves nothing behind."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmdoctor.attach.imports import ImportHook

Faults = list[tuple[str, str]]


@pytest.fixture
def faults() -> Faults:
    return []


@pytest.fixture
def hook(faults: Faults) -> Iterator[ImportHook]:
    before = list(sys.meta_path)
    hook = ImportHook(lambda where, error: faults.append((where, type(error).__name__)))
    hook.install()
    yield hook
    hook.remove()
    assert sys.meta_path == before


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `hooked` with modules inner and broken, on sys.path for one test."""
    folder = tmp_path / "hooked"
    folder.mkdir()
    (folder / "__init__.py").write_text("VALUE = 1\n")
    (folder / "inner.py").write_text("from hooked import VALUE\nclass Kind: pass\n")
    (folder / "user.py").write_text("from hooked.inner import Kind\nSEEN = getattr(Kind, 'patched', False)\n")
    (folder / "broken.py").write_text("raise RuntimeError('as written')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "hooked"]:
        del sys.modules[name]


def test_an_action_runs_before_the_importer_can_hold_on_to_anything(hook: ImportHook, package: Path) -> None:
    hook.after("hooked.inner", lambda module: setattr(module.Kind, "patched", True))
    assert importlib.import_module("hooked.user").SEEN is True


def test_a_module_that_is_loaded_is_handed_over_at_once(hook: ImportHook, package: Path) -> None:
    module = importlib.import_module("hooked.inner")
    seen: list[object] = []
    hook.after("hooked.inner", seen.append)
    assert seen == [module]


def test_an_action_runs_once(hook: ImportHook, package: Path) -> None:
    seen: list[object] = []
    hook.after("hooked.inner", seen.append)
    module = importlib.import_module("hooked.inner")
    importlib.reload(module)
    assert seen == [module]


def test_what_an_action_raises_is_told_and_the_import_goes_on(hook: ImportHook, package: Path, faults: Faults) -> None:
    hook.after("hooked.inner", lambda module: module.absent)
    assert importlib.import_module("hooked.inner").Kind
    assert faults == [("import of hooked.inner", "AttributeError")]


def test_a_listener_that_raises_is_told_and_the_import_goes_on(hook: ImportHook, package: Path, faults: Faults) -> None:
    hook.around(lambda name: {}[name])
    assert importlib.import_module("hooked").VALUE == 1
    assert faults == [("import of hooked", "KeyError")]


def test_an_import_that_fails_fails_as_it_would_have(hook: ImportHook, package: Path, faults: Faults) -> None:
    hook.after("hooked.broken", lambda module: None)
    hook.after("hooked.absent", lambda module: None)
    with pytest.raises(RuntimeError, match="as written"):
        importlib.import_module("hooked.broken")
    with pytest.raises(ModuleNotFoundError, match=r"hooked\.absent"):
        importlib.import_module("hooked.absent")
    assert faults == []


def test_a_listener_hears_top_level_packages_in_the_order_they_end(hook: ImportHook, package: Path) -> None:
    (package.parent / "outer_package.py").write_text("import hooked\nimport json\n")
    heard: list[str] = []

    def listener(name: str):  # type: ignore[no-untyped-def]
        heard.append(f"{name} starts")
        return lambda: heard.append(f"{name} ends")

    hook.around(listener)
    importlib.import_module("outer_package")
    importlib.import_module("hooked.inner")
    del sys.modules["outer_package"]
    assert heard == ["outer_package starts", "hooked starts", "hooked ends", "outer_package ends"]


def test_the_loaders_own_method_is_back_after_the_import(hook: ImportHook, package: Path) -> None:
    hook.after("hooked.inner", lambda module: None)
    loader = importlib.import_module("hooked.inner").__spec__.loader
    assert loader is not None
    assert "exec_module" not in vars(loader)


def test_a_removed_hook_does_nothing(hook: ImportHook, package: Path) -> None:
    seen: list[object] = []
    hook.after("hooked.inner", seen.append)
    hook.remove()
    importlib.import_module("hooked.inner")
    assert seen == []

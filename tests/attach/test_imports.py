"""The import hook: it finds its target, never breaks an import, and leaves nothing behind."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zipfile
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


def test_a_module_has_its_own_loader(hook: ImportHook, package: Path) -> None:
    from importlib.machinery import SourceFileLoader

    hook.after("hooked.inner", lambda module: None)
    (package / "inner.py").write_text("LOADER = __loader__, __spec__.loader\nclass Kind: pass\n")
    found = importlib.util.find_spec("hooked.inner")
    assert found is not None
    assert isinstance(found.loader, SourceFileLoader)
    assert found.loader.get_filename() == str(package / "inner.py")
    module = importlib.import_module("hooked.inner")
    assert [type(loader) for loader in (*module.LOADER, module.__loader__)] == [SourceFileLoader] * 3


def test_a_loader_that_many_modules_share(hook: ImportHook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """zipimport has one loader a folder; asking for a spec without importing must not count."""
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("hooked/__init__.py", "")
        archive.writestr("hooked/one.py", "VALUE = 1")
        archive.writestr("hooked/two.py", "VALUE = 2")
    monkeypatch.syspath_prepend(str(tmp_path / "packed.zip"))
    seen: list[str] = []
    for name in ("hooked.one", "hooked.two"):
        hook.after(name, lambda module: seen.append(module.__name__))
        assert importlib.util.find_spec(name) is not None
    hook.around(lambda name: lambda: None)
    assert [importlib.import_module(f"hooked.{name}").VALUE for name in ("two", "one")] == [2, 1]
    assert seen == ["hooked.two", "hooked.one"]
    for name in ("hooked", "hooked.one", "hooked.two"):
        del sys.modules[name]


def test_two_hooks_both_hear(hook: ImportHook, package: Path) -> None:
    other = ImportHook(lambda where, error: None)
    other.install()
    seen: list[str] = []
    try:
        hook.after("hooked.inner", lambda module: seen.append("first"))
        other.after("hooked.inner", lambda module: seen.append("second"))
        importlib.import_module("hooked.inner")
    finally:
        other.remove()
    assert sorted(seen) == ["first", "second"]


def test_a_listener_is_told_the_end_of_an_import_that_fails(hook: ImportHook, package: Path) -> None:
    (package.parent / "failing_package.py").write_text("1 / 0")
    heard: list[str] = []
    hook.around(lambda name: lambda: heard.append(name))
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("failing_package")
    assert heard == ["failing_package"]


def test_a_removed_hook_does_nothing(hook: ImportHook, package: Path) -> None:
    seen: list[object] = []
    hook.after("hooked.inner", seen.append)
    hook.remove()
    importlib.import_module("hooked.inner")
    assert seen == []


def test_a_loader_can_be_copied_while_it_listens(hook: ImportHook, package: Path) -> None:
    import copy
    import pickle

    hook.after("hooked.inner", lambda _: None)
    spec = importlib.util.find_spec("hooked.inner")
    assert spec is not None
    for made in (copy.copy(spec.loader), copy.deepcopy(spec.loader), pickle.loads(pickle.dumps(spec.loader))):
        assert type(made).__name__ == "SourceFileLoader"

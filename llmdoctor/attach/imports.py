"""Calls an action right after a module has been executed, before whoever imports it can hold on to anything in it."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Action = Callable[[ModuleType], None]
Around = Callable[[str], Callable[[], None]]


class ImportHook:
    """A finder on sys.meta_path that finds nothing by itself: it lets the others find a module and listens to its loader.

    Only modules asked for with after(), and top-level packages while around() has a listener, are touched, and of those only their spec,
    until they are executed. `on_fault(where, error)` receives what an action raises; the import goes on.
    """

    def __init__(self, on_fault: Callable[[str, Exception], None]) -> None:
        self._on_fault = on_fault
        self._after: dict[str, list[Action]] = {}
        self._around: Around | None = None
        self._busy = threading.local()

    def install(self) -> None:
        """Stand first on sys.meta_path."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Leave sys.meta_path; modules already imported are not touched."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        self._after.clear()
        self._around = None

    def after(self, module: str, action: Action) -> None:
        """Call `action(module)` once `module` has been executed: now if that has happened, else when it does."""
        loaded = sys.modules.get(module)
        if loaded is not None and not getattr(getattr(loaded, "__spec__", None), "_initializing", False):
            self._run(module, lambda: action(loaded))
            return
        self._after.setdefault(module, []).append(action)

    def around(self, listener: Around) -> None:
        """Call `listener(package)` before each top-level package outside the standard library is executed, and what it returns after it."""
        self._around = listener

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The other finders' answer, with a loader that listens."""
        wanted = fullname in self._after or (self._around is not None and "." not in fullname)
        busy = self._busy.__dict__.setdefault("names", set())
        if not wanted or fullname in busy or fullname in sys.stdlib_module_names:
            return None
        busy.add(fullname)
        try:
            spec = self._ask_others(fullname, path, target)
        finally:
            busy.discard(fullname)
        if spec is not None and hasattr(spec.loader, "exec_module") and not isinstance(spec.loader, type):
            listening: Any = Listening(spec.loader, self)
            spec.loader = listening
        return spec

    def _ask_others(self, fullname: str, path: Any, target: Any) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find(fullname, path, target) if find is not None else None
            if spec is not None:
                return spec  # type: ignore[no-any-return]
        return None

    def execute(self, loader: Any, module: ModuleType) -> None:
        """Execute `module` by its own `loader`, with the listener around it and the actions after it."""
        name = module.__name__
        finish = self._start(name)
        try:
            loader.exec_module(module)
            for action in self._after.pop(name, ()):
                self._run(name, lambda action=action: action(sys.modules.get(name, module)))  # type: ignore[misc]
        finally:
            if finish is not None:
                self._run(name, finish)

    def _start(self, fullname: str) -> Callable[[], None] | None:
        listener = self._around
        if listener is None or "." in fullname:
            return None
        try:
            return listener(fullname)
        except Exception as error:  # noqa: BLE001 the import must go on
            self._on_fault(f"import of {fullname}", error)
            return None

    def _run(self, fullname: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 the import must go on
            self._on_fault(f"import of {fullname}", error)


class Listening:
    """Stands for a loader in one spec until its module is executed: what is executed sees its own loader again.

    The loader itself is never touched: zipimport and pytest share one among many modules.
    """

    def __init__(self, loader: Any, hook: ImportHook) -> None:
        self._loader = loader
        self._hook = hook

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """For isinstance(): who asks for a spec without importing expects the loader's own class."""
        return type(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name in ("_loader", "_hook"):  # of a copy that has none yet
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __copy__(self) -> Any:
        return copy.copy(self._loader)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._loader, memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._loader.__reduce_ex__(protocol)

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own loader back, then execute it."""
        spec: Any = module.__spec__
        if spec is not None and spec.loader is self:
            spec.loader = self._loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        self._hook.execute(self._loader, module)

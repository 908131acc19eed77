"""Calls of a generate() that stands in the place of the library's: of a class (remote code, user code), or of one model (an assignment)."""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections.abc import Callable
from typing import Any

from llmdoctor.attach.session import Session
from llmdoctor.gencfg.trace.calls import Active, Calls


class OwnCall:
    """A running generate() of a class or model; `reached` states that it has called the library's."""

    def __init__(self) -> None:
        self.reached = False


class Replaceable:
    """generate() of a class as a data descriptor: `model.generate = function` is kept in the model's __dict__ as ever, and its calls are seen."""

    def __init__(self, function: Any, replaced: Callable[[Any, Any], Any]) -> None:
        self.__func__ = function
        self._replaced = replaced

    def __get__(self, model: Any, owner: Any = None) -> Any:
        if model is None:
            return self.__func__
        own = model.__dict__.get("generate")
        return self.__func__.__get__(model, owner) if own is None else self._replaced(model, own)

    def __set__(self, model: Any, value: Any) -> None:
        model.__dict__["generate"] = value

    def __delete__(self, model: Any) -> None:
        if "generate" not in model.__dict__:
            raise AttributeError("generate")
        del model.__dict__["generate"]


class Overrides:
    """Records the calls of generate() methods that replace the library's and do not reach it. Their loops are not seen."""

    def __init__(self, session: Session, calls: Calls) -> None:
        self._session, self._calls = session, calls
        self._local = threading.local()
        calls.reached.append(self._has_reached)

    def patch_library(self, kind: type[Any]) -> None:
        """Make the generate() of GenerationMixin replaceable on a model."""
        self._session.patches.set(kind, "generate", Replaceable(vars(kind)["generate"], self.of_model))

    def patch_class(self, kind: type[Any], library: type[Any]) -> None:
        """Patch the generate() of `kind` and of its bases that replace the one of `library` (GenerationMixin)."""
        for base in kind.__mro__:
            own = vars(base).get("generate")
            if base is library:
                return
            if inspect.isfunction(own):
                self._session.patches.set(base, "generate", Replaceable(self._of_class(own), self.of_model))

    def of_model(self, model: Any, own: Any) -> Any:
        """Return `own`, which was assigned to one model's `generate`, as a call that is seen."""

        @functools.wraps(own)
        def traced(*args: Any, **kwargs: Any) -> Any:
            return self._watched(model, own, args, kwargs)

        return traced

    def _of_class(self, own: Any) -> Any:
        @functools.wraps(own)
        def traced(model: Any, *args: Any, **kwargs: Any) -> Any:
            return self._watched(model, functools.partial(own, model), args, kwargs)

        return traced

    def _has_reached(self) -> None:
        own = getattr(self._local, "own", None)
        if own is not None:
            own.reached = True

    def _watched(self, model: Any, generate: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call `generate`; if it does not reach the library's, write a record with its arguments, the model's config and the ids that came out."""
        if self._calls.inside() or getattr(self._local, "own", None) is not None:
            return generate(*args, **kwargs)
        own = self._local.own = OwnCall()
        active, result, error, started = Active(model, {}), None, None, time.perf_counter()
        with self._session.guard("start of a generate() of the model's own"):
            active.kwargs = _named(generate, args, kwargs)
            active.user = active.kwargs.get("generation_config")
            active.width = _width(active.kwargs)
            self._calls.begin(active)
        active.tracer_seconds = time.perf_counter() - started
        try:
            result = generate(*args, **kwargs)
            return result
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._local.own = None
            if not own.reached:
                with self._session.guard("end of a generate() of the model's own"):
                    self._calls.finish(active, result, error, started, own=_defined_at(generate))


def _named(generate: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name; those of `**rest` among them, those of `*rest` left out."""
    signature = inspect.signature(generate)
    named: dict[str, Any] = {}
    for name, value in signature.bind_partial(*args, **kwargs).arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            named |= value
        elif kind is not inspect.Parameter.VAR_POSITIONAL:
            named[name] = value
        elif value:  # def generate(*args, **kwargs): the first one is the prompt
            named["inputs"] = value[0]
    return named


def _width(kwargs: dict[str, Any]) -> int | None:
    """Return the length of the ids that a call begins with: its first argument of two dimensions; None without one."""
    ids = next((value for value in kwargs.values() if getattr(value, "ndim", 0) == 2 and hasattr(value, "tolist")), None)
    return None if ids is None else int(ids.shape[1])


def _defined_at(generate: Any) -> str:
    """Return "FILE:LINE" of a function, below decorators such as torch.no_grad()."""
    function = inspect.unwrap(generate.func if isinstance(generate, functools.partial) else generate)
    code = getattr(function, "__code__", None)
    return repr(function)[:80] if code is None else f"{code.co_filename}:{code.co_firstlineno}"

"""generate_batch() and continuous batching: rollouts that transformers does not send through generate().

The config is the one that is passed, as it is, else the model's (generation/continuous_batching/continuous_api.py
`init_continuous_batching`, transformers 5.23.0; one file, continuous_batching.py, in 4.53): a config without eos_token_id never stops, because
nothing is taken from the model.
"""

from __future__ import annotations

import functools
import threading
import time
from types import ModuleType
from typing import Any

from llmdoctor.attach.session import Session
from llmdoctor.gencfg.trace.calls import Active, Calls
from llmdoctor.gencfg.trace.ends import EndConditions, ending
from llmdoctor.gencfg.trace.values import ids_of

MODULES = ("transformers.generation.continuous_batching.continuous_api", "transformers.generation.continuous_batching")


class BatchCalls:
    """Patches ContinuousMixin, and writes a record for each generate_batch() and for each manager that is made without one."""

    def __init__(self, session: Session, calls: Calls) -> None:
        self._session, self._calls = session, calls
        self._local = threading.local()
        for name in MODULES:
            session.hook.after(name, self._patch)

    def _patch(self, module: ModuleType) -> None:
        kind = vars(module).get("ContinuousMixin")
        if kind is None or kind.__module__ != module.__name__:  # the package only hands on what its module has
            return
        self._session.patches.set(kind, "generate_batch", self._traced(kind.generate_batch, whole=True))
        self._session.patches.set(kind, "init_continuous_batching", self._traced(kind.init_continuous_batching, whole=False))

    def _traced(self, function: Any, *, whole: bool) -> Any:
        """Return generate_batch() (`whole`), or what makes a manager, recorded; a manager of generate_batch() is no call of its own."""

        @functools.wraps(function)
        def traced(model: Any, *args: Any, **kwargs: Any) -> Any:
            if getattr(self._local, "running", False):
                return function(model, *args, **kwargs)
            self._local.running = True
            names = ("inputs", "generation_config") if whole else ("generation_config",)
            active, result, error = Active(model, {**dict(zip(names, args)), **kwargs}), None, None  # noqa: B905 the rest is not needed
            started = time.perf_counter()
            fields: dict[str, Any] = {}
            with self._session.guard("start of generate_batch()"):
                prompts = active.kwargs.pop("inputs", None) or [[]]
                active.width = max(len(prompt) for prompt in prompts)
                self._calls.begin(active)
                fields = self._calls.fields(active)  # now: the library writes -1 into a config without eos_token_id
            active.tracer_seconds = time.perf_counter() - started
            try:
                result = function(model, *args, **kwargs)
                return result
            except BaseException as raised:
                error = raised
                raise
            finally:
                self._local.running = False
                with self._session.guard("end of generate_batch()"):
                    rows = _sequences(active, result) if whole else []
                    self._calls.finish(active, None, error, started, **{**fields, "sequences": rows, "batch": True})

        return traced


def _sequences(active: Active, result: Any) -> list[dict[str, Any]]:
    """Return how each request ended. A result has only its new tokens, without padding."""
    limit = active.kwargs.get("max_new_tokens") or active.effective.get("max_new_tokens")
    rules = EndConditions(
        eos=frozenset(ids_of(active.effective.get("eos_token_id"))),
        terminators=frozenset(active.known),
        limit=limit if isinstance(limit, int) else None,
    )
    done = [each for each in result.values() if getattr(each, "error", None) is None] if isinstance(result, dict) else []
    return [{"prompt_tokens": len(each.prompt_ids), **ending(list(each.generated_tokens), rules)} for each in done]

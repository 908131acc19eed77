"""Every generate(): the config it really decoded with, where each field came from, and how each sequence ended."""

from __future__ import annotations

import functools
import inspect
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from llmdoctor.attach.records import plain
from llmdoctor.attach.session import Session
from llmdoctor.gencfg.trace.ends import EndConditions, ending
from llmdoctor.gencfg.trace.origins import Origins, Source, passed
from llmdoctor.gencfg.trace.sites import PLUMBING, Site, caller
from llmdoctor.gencfg.trace.terminators import Terminators
from llmdoctor.gencfg.trace.values import METADATA, ids_of, library_version, name_of, public

_LISTS = ("stopping_criteria", "logits_processor")
_WORKED_OUT = frozenset({"max_length", "min_length"})  # from max_new_tokens, min_new_tokens and the prompt


class Active:
    """A generate() that is running. `kwargs` are its arguments by name, `config` is the library's own final copy, `width` the length of the
    ids it starts with, `number` its number in this process once its beginning has been recorded."""

    def __init__(self, model: Any, kwargs: dict[str, Any]) -> None:
        self.model, self.kwargs = model, kwargs
        self.user = kwargs.get("generation_config")
        self.number: int | None = None
        self.known: dict[int, str | None] = {}
        self.effective: dict[str, Any] = {}
        self.config: Any = None
        self.width: int | None = None
        self.model_fields: dict[str, Any] = {}
        self.user_fields: dict[str, Any] | None = None
        self.site: Site | None = None
        self.stack: list[str] = []
        self.tracer_seconds = 0.0


class Calls:
    """Patches GenerationMixin and writes a record for each outermost generate()."""

    def __init__(self, session: Session, origins: Origins, terminators: Terminators) -> None:
        self._session, self._origins, self._terminators = session, origins, terminators
        self._local = threading.local()
        self._numbers = itertools.count(1)
        self.before: list[Callable[[Any], None]] = []  # called with the model before each generate()
        self.reached: list[Callable[[], None]] = []  # called when the library's own generate() begins

    def inside(self) -> bool:
        """Whether this thread is in a generate()."""
        return self._active() is not None

    def _active(self) -> Active | None:
        return getattr(self._local, "active", None)

    def patch(self, module: ModuleType) -> None:
        """Patch transformers.generation.utils."""
        kind = module.GenerationMixin
        self._session.patches.set(kind, "generate", self._traced(kind.generate))
        self._session.patches.set(kind, "_prepare_generation_config", self._seeing_config(kind._prepare_generation_config))
        self._session.patches.set(kind, "_prepare_generated_length", self._seeing_length(kind._prepare_generated_length))

    def _traced(self, generate: Any) -> Any:
        calls = self
        names = list(inspect.signature(generate).parameters)[1:]

        @functools.wraps(generate)
        def traced(model: Any, *args: Any, **kwargs: Any) -> Any:
            if calls.inside():  # an assistant model, or the library calling itself
                return generate(model, *args, **kwargs)
            for listener in calls.reached:
                listener()
            active, result, error = Active(model, {**dict(zip(names, args)), **kwargs}), None, None  # noqa: B905 names beyond args are defaults
            started = time.perf_counter()
            with calls._session.guard("start of generate()"):
                calls.begin(active)
            calls._local.active = active
            active.tracer_seconds = time.perf_counter() - started
            try:
                result = generate(model, *args, **kwargs)
                return result
            except BaseException as raised:
                error = raised
                raise
            finally:
                calls._local.active = None
                with calls._session.guard("end of generate()"):
                    calls.finish(active, result, error, started)

        return traced

    def _seeing_config(self, prepare: Any) -> Any:
        calls = self

        @functools.wraps(prepare)
        def _prepare_generation_config(model: Any, *args: Any, **kwargs: Any) -> Any:
            prepared = prepare(model, *args, **kwargs)
            active = calls._active()
            if active is not None and active.config is None and active.model is model and isinstance(prepared, tuple):
                active.config = prepared[0]
            return prepared

        return _prepare_generation_config

    def _seeing_length(self, prepare: Any) -> Any:
        calls = self

        @functools.wraps(prepare)
        def _prepare_generated_length(model: Any, *args: Any, **kwargs: Any) -> Any:
            active = calls._active()
            width = kwargs.get("input_ids_length", args[4] if len(args) > 4 else None)
            prepared = prepare(model, *args, **kwargs)
            if active is not None and active.width is None and active.model is model and width is not None:
                active.width = int(width)
                started = time.perf_counter()
                with calls._session.guard("a generate() that has read its config"):
                    calls._configured(active)
                active.tracer_seconds += time.perf_counter() - started
            return prepared

        return _prepare_generated_length

    # --- one call -----------------------------------------------------------------------------------------------------------------

    def begin(self, active: Active) -> None:
        active.site, active.stack = caller(lambda _, package: package in PLUMBING)
        for listener in self.before:
            listener(active.model)
        self._terminators.of_model(active.model)
        config = getattr(active.model, "generation_config", None)
        active.model_fields = {} if config is None else public(config)
        active.user_fields = None if active.user is None else public(active.user)
        if config is not None:
            self._origins.notice(config, active.model_fields)

    def _configured(self, active: Active) -> None:
        """The config is final, decoding begins: what is known now is written now, for the process may not live to the end of it."""
        active.number = next(self._numbers)
        self._session.write("start", number=active.number, **self.fields(active))

    def finish(self, active: Active, result: Any, error: BaseException | None, started: float, **more: Any) -> None:
        """Write the end of a call, or all of it if its beginning was not written; `more` are fields of the record."""
        ended = time.perf_counter()
        fields = self.fields(active) if active.number is None else {}
        failure = None if error is None else {"type": type(error).__name__, "message": str(error)[:1000]}
        fields |= {"sequences": self._sequences(active, result), "error": failure, "seconds": ended - started - active.tracer_seconds}
        fields |= more
        if "own" in more or "batch" in more:  # the library puts no config together for them
            fields["effective"] = {**fields["effective"], **fields["kwargs"]}
        kind = "generate" if active.number is None else "end"
        self._session.write(kind, number=active.number, **fields, tracer_seconds=active.tracer_seconds + time.perf_counter() - ended)

    def fields(self, active: Active) -> dict[str, Any]:
        """All of a call but its outcome."""
        model, site = active.model, active.site
        held = getattr(model, "generation_config", None)
        config = next((found for found in (active.config, active.user, held) if found is not None), None)
        active.effective = effective = {} if config is None else public(config)
        named = {name: plain(value) for name, value in active.kwargs.items() if config is not None and name in config.__dict__}
        active.known = self._known(active)
        return {
            "model": name_of(model),
            "class": type(model).__name__,
            "transformers": library_version(),
            **({} if site is None else {**site.fields(), "source": site.source}),
            "stack": active.stack,
            "effective": effective,
            "provenance": self._provenance(active, effective, named),
            "kwargs": named,
            "user_config": active.user_fields,
            "model_config": active.model_fields,
            "model_provenance": self._model_provenance(active),
            "model_seen": held is not None and self._origins.knows(held),
            "eos_token_id": ids_of(effective.get("eos_token_id")),
            "prompt_length": active.width,
            "vocab_size": _vocabulary(model),
            "wrapper": _wrapped(model),
            "custom": {name: [type(each).__name__ for each in active.kwargs[name]] for name in _LISTS if active.kwargs.get(name)},
            "terminators": {str(token): text for token, text in active.known.items()},
        }

    def _known(self, active: Active) -> dict[int, str | None]:
        """The terminators of the model, and whatever its eos_token_id was before somebody changed it."""
        config = getattr(active.model, "generation_config", None)
        history = [] if config is None else self._origins.of(config).get("eos_token_id", [])
        known = dict.fromkeys(token for source in history for token in ids_of(source.value))
        return {**known, **self._terminators.known(active.model)}

    def _sequences(self, active: Active, result: Any) -> list[dict[str, Any]]:
        rows = getattr(result, "sequences", result)
        if rows is None or not hasattr(rows, "tolist") or getattr(rows, "ndim", 0) != 2 or active.width is None:
            return []
        effective = active.effective
        tokenizer, strings, longest = active.kwargs.get("tokenizer"), effective.get("stop_strings"), effective.get("max_length")
        rules = EndConditions(
            eos=frozenset(ids_of(effective.get("eos_token_id"))),
            terminators=frozenset(active.known),
            limit=None if not isinstance(longest, int) else longest - active.width,
            pad=next(iter(ids_of(effective.get("pad_token_id"))), None),
            stop_strings=[strings] if isinstance(strings, str) else strings or (),
            decode=None if tokenizer is None else tokenizer.decode,
            custom=bool(active.kwargs.get("stopping_criteria")),
        )
        listed = rows[:, active.width :].tolist()
        prompts = self._prompts(active, len(listed))
        return [{"prompt_tokens": prompt, **ending(row, rules)} for prompt, row in zip(prompts, listed)]  # noqa: B905 equal by construction

    def _prompts(self, active: Active, rows: int) -> list[int]:
        """The prompt's tokens of each row, padding left out; a prompt may have several rows (beams, return sequences)."""
        mask = active.kwargs.get("attention_mask")
        if mask is None or getattr(mask, "ndim", 0) != 2 or not len(mask) or rows % len(mask):
            return [active.width or 0] * rows
        each = rows // len(mask)
        return [int(count) for count in mask.sum(-1).tolist() for _ in range(each)]

    def _model_provenance(self, active: Active) -> dict[str, Any]:
        config = getattr(active.model, "generation_config", None)
        if config is None:
            return {}
        names = dict.fromkeys((*active.model_fields, *self._origins.of(config)))
        return {name: entries for name in names if (entries := self._history(config, name)) is not None}

    def _history(self, config: Any, name: str) -> dict[str, Any] | None:
        history = self._origins.of(config).get(name)
        if not history:
            return None
        return {**history[-1].fields(name), "overrides": _overrides(name, history[:-1])}

    def _provenance(self, active: Active, effective: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
        """For each field the strongest layer whose value the call ended up with; a value that no layer has was derived by the library."""
        config = getattr(active.model, "generation_config", None)
        entries = [] if config is None else self._origins.of(config)
        user = self._user_sources(active)
        names = dict.fromkeys((*effective, *named, *user, *entries))
        provenance = {}
        for name in names:
            if name not in METADATA:
                layers = list(self._layers(active, name, named, user))
                provenance[name] = _settle(name, effective.get(name), layers)
        return provenance

    def _user_sources(self, active: Active) -> dict[str, Source]:
        """What the GenerationConfig passed sets, by its own history; of one whose making was not seen, what differs from the defaults."""
        if active.user is None:
            return {}
        history = self._origins.of(active.user)
        if history:
            return {name: passed(sources[-1]) for name, sources in history.items()}
        default = public(type(active.user)())
        fields = active.user_fields or {}
        return {name: Source("user-config", value, site=active.site) for name, value in fields.items() if default.get(name) != value}

    def _layers(self, active: Active, name: str, named: dict[str, Any], user: dict[str, Source]) -> Iterator[Source]:
        """The field's sources, the strongest first: argument, passed config, then the model's own config back to what was loaded."""
        if name in named:
            yield Source("kwargs", named[name], site=active.site)
        if name in user:
            yield user[name]
        config = getattr(active.model, "generation_config", None)
        if config is not None:
            yield from reversed(self._origins.of(config).get(name, []))


def _wrapped(model: Any) -> dict[str, Any] | None:
    """Return the class of a model that is no PreTrainedModel, and the eos ids of the model inside it; None for a PreTrainedModel.

    trl's GeometricMixtureWrapper (Nash-MD) is one: it generates with the generation_config that it was given.
    """
    if any(base.__name__ == "PreTrainedModel" for base in type(model).__mro__):
        return None
    inner = [*(model.children() if hasattr(model, "children") else ()), *vars(model).values()]
    ids = (ids_of(getattr(getattr(each, "generation_config", None), "eos_token_id", None)) for each in inner)
    return {"class": type(model).__name__, "eos_token_id": next((found for found in ids if found), [])}


def _settle(name: str, value: Any, layers: list[Source]) -> dict[str, Any]:
    chosen = next((source for source in layers if _same(plain(source.value), value)), None)
    if chosen is None:
        version = library_version()
        # A value that neither an argument nor a config has was worked out by generate(), or is the library's default.
        derived = bool(layers) or name in _WORKED_OUT
        layer, text = ("derived", f"transformers {version} generate()") if derived else ("library-default", f"transformers {version}")
        return {"layer": layer, "source": text, "file": None, "pointer": None, "line": None, "overrides": _overrides(name, layers[::-1])}
    weaker = [source for source in layers[layers.index(chosen) + 1 :] if source.value is not None]
    return {**chosen.fields(name), "overrides": _overrides(name, weaker[::-1])}


def _overrides(name: str, earlier: list[Source]) -> list[dict[str, Any]]:
    """What was there before, the latest first."""
    entries = []
    for source in reversed(earlier):
        fields = source.fields(name)
        entries.append({"layer": fields["layer"], "value": plain(source.value), "source": fields["source"]})
    return entries


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or (other is not None and ids_of(one) == ids_of(other) != [])


def _vocabulary(model: Any) -> int | None:
    config = getattr(model, "config", None)
    text_config = getattr(config, "get_text_config", None)
    size = getattr(config if text_config is None else text_config(), "vocab_size", None)
    return size if isinstance(size, int) else None

"""Records, inside a run: loads, every change to a generation config, imports, and every generate() (calls.py).

Everything is patched on transformers' classes right after their module is executed, through attach.Session, and undone by its detach().
The library is never imported here: the import hook hands its modules over. Names are those of transformers 4.45 to 5.24
(generation/configuration_utils.py, generation/utils.py, modeling_utils.py, tokenization_utils_base.py).
"""

from __future__ import annotations

import copy
import functools
import os
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from llmdoctor.attach.session import Session
from llmdoctor.gencfg.trace.batches import BatchCalls
from llmdoctor.gencfg.trace.calls import Calls
from llmdoctor.gencfg.trace.engines import watch_engines
from llmdoctor.gencfg.trace.imported import Imported
from llmdoctor.gencfg.trace.origins import Origins, Source
from llmdoctor.gencfg.trace.own import Overrides
from llmdoctor.gencfg.trace.sites import PLUMBING, caller, calling_file, watch_threads
from llmdoctor.gencfg.trace.terminators import Terminators
from llmdoctor.gencfg.trace.values import METADATA, library_version, name_of, public

CONFIG = "transformers.generation.configuration_utils"
GENERATE = "transformers.generation.utils"
MODELS = "transformers.modeling_utils"
TOKENIZERS = "transformers.tokenization_utils_base"
REPEATS = 20


def attach(session: Session) -> Recorder:
    """Record in this process from now on; what is imported already is patched at once."""
    return Recorder(session)


class Recorder:
    """One process's recorder. `origins` knows where every config's fields came from, `terminators` which ids end a turn."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.origins = Origins()
        self.terminators = Terminators()
        self._context = threading.local()
        self._holders: dict[int, weakref.ref[Any]] = {}
        self._said: dict[tuple[Any, ...], int] = {}
        self.calls = Calls(session, self.origins, self.terminators)
        hook = session.hook
        hook.after(CONFIG, self._patch_config)
        self.overrides = Overrides(session, self.calls)
        BatchCalls(session, self.calls)
        hook.after(GENERATE, self._patch_generate)
        hook.after(MODELS, self._patch_models)
        hook.after(TOKENIZERS, self._patch_tokenizers)
        self.calls.before.append(self._hold)
        watch_engines(session)
        watch_threads(session)
        imported = Imported(session)
        self.calls.before.append(lambda _: imported.look())

    def _patch_generate(self, module: ModuleType) -> None:
        self.calls.patch(module)
        self.overrides.patch_library(module.GenerationMixin)

    # --- the config class ---------------------------------------------------------------------------------------------------------

    def _patch_config(self, module: ModuleType) -> None:
        kind = module.GenerationConfig
        self._patch_assignment(kind)
        self._patch_init(kind)
        self._patch_copy(kind)
        self._patch_reading(kind)

    def _patch_assignment(self, kind: type[Any]) -> None:
        recorder, assign = self, kind.__setattr__

        def __setattr__(config: Any, name: str, value: Any) -> None:
            before = config.__dict__.get(name)
            assign(config, name, value)  # type: ignore[call-arg]
            # Inside generate() the library completes a copy of its own, a hundred assignments a call; only a live model's config is looked at.
            if name.startswith("_") or recorder._quiet() or (recorder.calls.inside() and recorder.holder(config) is None):
                return
            with recorder.session.guard("assignment on a generation config"):
                recorder._assigned(config, name, before, value)

        self.session.patches.set(kind, "__setattr__", __setattr__)

    def _assigned(self, config: Any, name: str, before: Any, after: Any) -> None:
        if self.calls.inside() and _in_library(calling_file(_passing_on)):
            return  # generate() completing its own copy
        site, stack = caller(_passing_on)
        self.origins.add(config, name, Source("mutation", after, site=site))
        model = self.holder(config)
        target = "generation_config" if model is None else "model.generation_config"
        self._mutation(target, model, field=name, before=before, after=after, site=site, stack=stack)

    def _mutation(self, target: str, model: Any, field: str, before: Any, after: Any, site: Any, stack: list[str]) -> None:
        key = (target, field, site.file, site.line, repr(before)[:200], repr(after)[:200])
        self._said[key] = self._said.get(key, 0) + 1
        if self._said[key] > REPEATS:
            return
        named = None if model is None else type(model).__name__
        self.session.write(
            "mutation",
            target=target,
            model=named,
            field=field,
            before=before,
            after=after,
            **site.fields(),
            source=site.source,
            stack=stack,
        )

    def _patch_init(self, kind: type[Any]) -> None:
        recorder, init = self, kind.__init__

        @functools.wraps(init)
        def __init__(config: Any, *args: Any, **kwargs: Any) -> None:
            if recorder.calls.inside():
                init(config, *args, **kwargs)
                return
            with recorder._quietly():
                init(config, *args, **kwargs)
            if not recorder._quiet():
                with recorder.session.guard("construction of a generation config"):
                    site, _ = caller(_passing_on)
                    recorder.origins.made(config)
                    for name in kwargs:
                        if not name.startswith("_"):
                            recorder.origins.add(config, name, Source("user-config", config.__dict__.get(name), site=site))

        self.session.patches.set(kind, "__init__", __init__)

    def _patch_copy(self, kind: type[Any]) -> None:
        """copy.deepcopy() as for any plain object (copyreg.__reduce_ex__ 4: __new__, then __dict__), but the copy's origins are known."""
        if "__deepcopy__" in vars(kind) or "__getstate__" in vars(kind):
            return
        recorder = self

        def __deepcopy__(config: Any, memo: dict[int, Any]) -> Any:
            new: Any = object.__new__(type(config))
            memo[id(config)] = new
            new.__dict__.update(copy.deepcopy(config.__dict__, memo))
            with recorder.session.guard("copy of a generation config"):
                recorder.origins.copy(config, new)
            return new

        self.session.patches.set(kind, "__deepcopy__", __deepcopy__)

    def _patch_reading(self, kind: type[Any]) -> None:
        """from_pretrained and from_model_config say which file a config came from."""
        recorder = self
        read, from_pretrained, from_model = (
            vars(kind)[name].__func__ for name in ("_dict_from_json_file", "from_pretrained", "from_model_config")
        )

        @functools.wraps(read)
        def _dict_from_json_file(cls: Any, json_file: Any, *args: Any, **kwargs: Any) -> Any:
            found = read(cls, json_file, *args, **kwargs)
            recorder._context.file = os.path.abspath(json_file), found
            return found

        @functools.wraps(from_pretrained)
        def wrapped_from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
            recorder._context.file = None, {}
            with recorder._quietly():
                result = from_pretrained(cls, *args, **kwargs)
            with recorder.session.guard("GenerationConfig.from_pretrained"):
                config = result[0] if isinstance(result, tuple) else result
                path, held = recorder._context.file
                recorder._came_from("generation_config.json", config, {name: config.__dict__.get(name) for name in held}, path)
                site, _ = caller(_passing_on)
                for name in kwargs.keys() & config.__dict__.keys():
                    recorder.origins.add(config, name, Source("user-config", config.__dict__[name], site=site))
            return result

        @functools.wraps(from_model)
        def wrapped_from_model_config(cls: Any, model_config: Any, *args: Any, **kwargs: Any) -> Any:
            with recorder._quietly():
                config = from_model(cls, model_config, *args, **kwargs)
            with recorder.session.guard("GenerationConfig.from_model_config"):
                folder = str(getattr(model_config, "_name_or_path", "") or "")
                path = os.path.abspath(os.path.join(folder, "config.json"))
                default = type(config)().__dict__
                changed = {name: value for name, value in config.__dict__.items() if name not in default or default[name] != value}
                recorder._came_from("config.json", config, changed, path if folder and os.path.isfile(path) else None)
            return config

        patches = self.session.patches
        patches.set(kind, "_dict_from_json_file", classmethod(_dict_from_json_file))
        patches.set(kind, "from_pretrained", classmethod(wrapped_from_pretrained))
        patches.set(kind, "from_model_config", classmethod(wrapped_from_model_config))

    def _came_from(self, layer: str, config: Any, fields: Mapping[str, Any], path: str | None) -> None:
        self.origins.made(config)
        for name, value in fields.items():
            if not name.startswith("_") and value is not None and name not in METADATA:
                self.origins.add(config, name, Source(layer, value, path))

    # --- models and tokenizers ----------------------------------------------------------------------------------------------------

    def _patch_models(self, module: ModuleType) -> None:
        kind, patches = module.PreTrainedModel, self.session.patches
        self._patch_making(kind)
        if "generation_config" not in vars(kind):
            patches.set(kind, "generation_config", Held(self))
        load, recorder = vars(kind)["from_pretrained"].__func__, self

        @functools.wraps(load)
        def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
            with recorder._quietly():
                result = load(cls, *args, **kwargs)
            with recorder.session.guard("from_pretrained"):
                recorder._loaded(result[0] if isinstance(result, tuple) else result)
            return result

        patches.set(kind, "from_pretrained", classmethod(from_pretrained))

    def _patch_making(self, kind: type[Any]) -> None:
        """See each class of model as it is made: it may have a generate() of its own, which nothing else would show."""
        recorder, init = self, kind.__init__

        @functools.wraps(init)
        def __init__(model: Any, *args: Any, **kwargs: Any) -> None:
            with recorder.session.guard("construction of a model"):
                library = getattr(sys.modules.get(GENERATE), "GenerationMixin", None)
                if library is not None:
                    recorder.overrides.patch_class(type(model), library)
            init(model, *args, **kwargs)

        self.session.patches.set(kind, "__init__", __init__)

    def _loaded(self, model: Any) -> None:
        config = getattr(model, "generation_config", None)
        if config is None or self._quiet():
            return
        site, stack = caller(lambda _, package: package in PLUMBING)
        self.terminators.of_model(model)
        fields = public(config)
        sources = {name: self.origins.latest(config, name) for name in fields}
        self.session.write(
            "load",
            **{"class": type(model).__name__},
            model=name_of(model),
            generation_config=fields,
            provenance={name: source.fields(name) for name, source in sources.items() if source is not None},
            **site.fields(),
            source=site.source,
            stack=stack,
            transformers=library_version(),
        )

    def replaced(self, model: Any, before: Any, after: Any) -> None:
        """model.generation_config = after."""
        self._holders[id(after)] = weakref.ref(model)
        if before is None or after is None or before is after or self._quiet():
            return
        with self.session.guard("assignment of model.generation_config"):
            site, stack = caller(_passing_on)
            if self.calls.inside() and _in_library(site.file):
                return
            old, new = public(before), public(after)
            changed = [name for name in dict.fromkeys((*old, *new)) if old.get(name) != new.get(name) and name not in METADATA]
            for name in changed:
                history = self.origins.of(after).setdefault(name, [])
                earlier = self.origins.of(before).get(name, [])
                history[:0] = earlier if history[: len(earlier)] != earlier else []
                history.append(Source("mutation", new.get(name), site=site))
            self._mutation(
                "model",
                model,
                field="generation_config",
                before={name: old.get(name) for name in changed},
                after={name: new.get(name) for name in changed},
                site=site,
                stack=stack,
            )

    def _hold(self, model: Any) -> None:
        """A model may have come by its config without an assignment: as a copy of another one."""
        config = getattr(model, "generation_config", None)
        if config is not None and id(config) not in self._holders:
            self._holders[id(config)] = weakref.ref(model)

    def holder(self, config: Any) -> Any:
        """The live model whose generation config `config` is, or None."""
        held = self._holders.get(id(config))
        model = None if held is None else held()
        return model if model is not None and model.__dict__.get("generation_config") is config else None

    def _patch_tokenizers(self, module: ModuleType) -> None:
        kind = module.PreTrainedTokenizerBase
        load, recorder = vars(kind)["from_pretrained"].__func__, self

        @functools.wraps(load)
        def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
            tokenizer = load(cls, *args, **kwargs)
            with recorder.session.guard("a tokenizer's from_pretrained"):
                recorder.terminators.of_tokenizer(tokenizer)
            return tokenizer

        self.session.patches.set(kind, "from_pretrained", classmethod(from_pretrained))

    # --- what is not to be recorded -----------------------------------------------------------------------------------------------

    def _quiet(self) -> bool:
        return getattr(self._context, "quiet", 0) > 0

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """While the library loads or constructs, its assignments are no mutations."""
        self._context.quiet = getattr(self._context, "quiet", 0) + 1
        try:
            yield
        finally:
            self._context.quiet -= 1


class Held:
    """`PreTrainedModel.generation_config` as a data descriptor: nn.Module keeps the value in the instance's __dict__ as ever, and an
    assignment is seen. No other attribute of a module pays for it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __get__(self, model: Any, owner: Any = None) -> Any:
        try:
            return model.__dict__["generation_config"]
        except (KeyError, AttributeError):
            raise AttributeError(f"{getattr(owner, '__name__', 'model')!r} object has no attribute 'generation_config'") from None

    def __set__(self, model: Any, value: Any) -> None:
        before = model.__dict__.get("generation_config")
        model.__dict__["generation_config"] = value
        self._recorder.replaced(model, before, value)

    def __delete__(self, model: Any) -> None:
        model.__dict__.pop("generation_config", None)


def _passing_on(file: str, _package: str | None) -> bool:
    """GenerationConfig.update(), nn.Module.__setattr__ and their like are not who wanted a change."""
    return file.endswith(("generation/configuration_utils.py", "torch/nn/modules/module.py", "/contextlib.py"))


def _in_library(file: str) -> bool:
    return "/transformers/generation/" in file

"""How transformers puts a call's generation config together, by version.

The families, read in generation/utils.py `_prepare_generation_config` (`generate` up to 4.37) and compared with real runs:

- up to 4.40: the user's config or the model's, never merged; arguments update it; the decode loop falls back to the model's eos and pad.
- 4.41: the same without the fallback.
- 4.42: special tokens that are still None come from the model while their tensors are made (`_prepare_special_tokens`).
- 4.43 to 4.49: special tokens that are still None after the arguments come from the model.
- 4.50 to 4.57: with the gate open, each value equal to the library's default comes from the model; arguments last.
- 5.x: None fields come from the model, then from the defaults; arguments last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llmdoctor.core.text import is_id
from llmdoctor.gencfg.arguments import unmodelled_arguments, unused_arguments
from llmdoctor.gencfg.layers import Fields, bare, derived
from llmdoctor.gencfg.lengths import set_lengths
from llmdoctor.gencfg.model_types import check_model_type
from llmdoctor.gencfg.modelconfig import LoadedModel, config_value, load, vocabulary_of
from llmdoctor.gencfg.modes import check_modes
from llmdoctor.gencfg.processors import check_processors
from llmdoctor.gencfg.raising import Raised, Warnings
from llmdoctor.gencfg.stop import stop_of
from llmdoctor.gencfg.types import Effective, GenerateCall, LibraryError, Origin, Resolved, SourcedValue
from llmdoctor.gencfg.validate import check_config, check_special_tokens
from llmdoctor.gencfg.versions import Minor, field_defaults, late_defaults, rules_for

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def resolve(call: GenerateCall, version: str) -> Effective:
    """Return the effective config of `call` under `version` of transformers.

    An exception that the library would raise is part of the answer; `fields` are then as far as it got. Raises QuestionError for a version
    that cannot be understood.
    """
    minor, rules = rules_for(version)
    state = _State(call, version, rules, minor)
    try:
        state.run()
    except Raised as raised:
        state.error = LibraryError(raised.type, str(raised), state.stage)
    return state.effective()


class _State:
    """One resolution in progress: what is known so far survives an exception."""

    def __init__(self, call: GenerateCall, version: str, rules: str, minor: Minor) -> None:
        self.call, self.version, self.rules, self.minor = call, version, rules, minor
        self.stage = "load"
        self.error: LibraryError | None = None
        self.warnings = Warnings()
        self.model = LoadedModel(bare(field_defaults(minor), version), None, False, {})
        self.fields = self.model.fields.copied()

    def run(self) -> None:
        """Load, build the user's config, generate."""
        call, minor = self.call, self.minor
        check_model_type(call.config, minor)
        self.model = load(call, minor, self.version)
        self.fields = self.model.fields.copied()
        check_config(self.model.fields, minor, self.warnings, loading=True)
        for name, setting in call.mutations:
            if name == "transformers_version":
                self.model.stamp = setting.value
            else:
                self.model.fields.put(name, setting)
        self.fields = self.model.fields.copied()
        self._config_setters()
        user = self._user_config()
        self.stage = "generate"
        arguments = dict(call.kwargs)
        gate = arguments.pop("use_model_defaults", None) if (4, 50) <= minor < (5, 0) else None
        default_lengths = self._default_lengths(user, arguments)
        self.fields = self._prepare(user, gate)
        rest = self._update(arguments, user)
        check_config(self.fields, minor, self.warnings)
        unused_arguments(rest, minor)
        if minor == (4, 42):
            self._inherit_special(self.fields)  # _prepare_special_tokens falls back to the model's, token by token (4.42.4 utils.py:1456)
        check_special_tokens(self.fields, minor, self.warnings, self.model)
        self._loop_fallback()
        set_lengths(
            fields=self.fields, call=self.call, minor=minor, model=self.model, default_lengths=default_lengths, warnings=self.warnings
        )
        check_processors(self.fields, self.call, minor, self.model)
        check_modes(self.fields, self.call, minor, self.model)

    def _config_setters(self) -> None:
        """model.config refuses output_attentions beside sdpa, the default attention, from 4.53 (configuration_utils.py, a setter)."""
        eager = config_value(self.model, "_attn_implementation") == "eager" or config_value(self.model, "attn_implementation") == "eager"
        requested = any(name == "output_attentions" and setting.value for name, setting in self.call.config_mutations)
        if requested and not eager and self.minor >= (4, 53):
            message = "The `output_attentions` attribute is not supported when using the `attn_implementation` set to sdpa."
            raise Raised("ValueError", message)

    def _user_config(self) -> Fields | None:
        """GenerationConfig(**user): the defaults with the user's values over them."""
        if self.call.user_config is None:
            return None
        self.stage = "user_config"
        user = bare(field_defaults(self.minor), self.version)
        from_model = self.call.user_config.get("_from_model_config")
        only_known = from_model is not None and bool(from_model.value)  # such a config loses its custom entries (GenerationConfig.__init__)
        for name, setting in self.call.user_config.items():
            if not name.startswith("_") and name != "transformers_version" and (name in user or not only_known):
                user.put(name, setting)
        check_config(user, self.minor, self.warnings, loading=True)
        return user

    def _prepare(self, user: Fields | None, gate: SourcedValue | None) -> Fields:
        """The base configuration, before the arguments where they come last."""
        if self.minor >= (5, 0):
            return self._fill(user)
        if user is None:
            base = self._legacy_base()
            if self.minor >= (4, 51) and base.value("cache_implementation") == "hybrid" and self.minor >= (4, 56):
                base.put("cache_implementation", derived(None, "generate() unsets a default hybrid cache"))
            return base
        return self._gated(user, gate) if self.minor >= (4, 50) else user

    def _fill(self, user: Fields | None) -> Fields:
        """5.x: None is filled from the model, then from the defaults; custom entries are carried over."""
        if user is None:
            self._refuse_config_parameters()
        fields = bare(field_defaults(self.minor), self.version) if user is None else user
        for name, other in self.model.fields.items():
            worth_taking = other.value is not None or name not in fields or other.origin.layer != "library-default"
            if fields.value(name) is None and worth_taking:
                fields.inherit(name, other)
        origin = Origin("library-default", f"transformers {self.version}")
        for name, value in late_defaults(self.minor).items():
            found = fields.get(name)
            if found is None or found.value is None:
                kept = () if found is None else found.overrides
                if found is not None and found.origin.layer != "library-default":
                    kept = (SourcedValue(found.value, found.origin), *kept)
                fields[name] = Resolved(value, origin, kept)
        return fields

    def _refuse_config_parameters(self) -> None:
        """5.x refuses generation fields on model.config where no GenerationConfig is passed (_get_generation_parameters)."""
        known = late_defaults(self.minor)
        set_here = {
            name: setting.value
            for name, setting in self.call.config_mutations
            if name in known and name != "use_cache" and setting.value is not None
        }
        if set_here:
            raise Raised(
                "ValueError",
                "You have modified the pretrained model configuration to control generation We detected the following values set - "
                f"{set_here}. This strategy to control generation is not supported anymore.",
            )

    def _legacy_base(self) -> Fields:
        """4.x, no GenerationConfig passed: the model's; rebuilt from model.config where that alone was edited."""
        model = self.model
        if model.from_config and not self.call.mutations and model.legacy_edits(self.call.config_mutations, self.minor):
            rebuilt = model.rebuilt(self.call.config_mutations)
            if {name: field.value for name, field in rebuilt.items()} != {name: field.value for name, field in model.fields.items()}:
                self.warnings.warn(
                    "You have modified the pretrained model configuration to control generation. This is a deprecated strategy"
                )
                model.fields = rebuilt
        return model.fields.copied()

    def _gated(self, user: Fields, gate: SourcedValue | None) -> Fields:
        """4.50 to 4.57: the model's values for the user's defaults, or (gate shut) only its special tokens."""
        model = self.model
        wanted = None if gate is None else gate.value
        if wanted is True or (wanted is None and self._gate_open()):
            defaults = field_defaults(self.minor)
            modified = {}
            names = list(model.fields) if self.minor >= (4, 52) else list(defaults)
            for name in names:
                other = model.fields.get(name)
                if other is None or (name == "cache_implementation" and other.value == "hybrid" and self.minor >= (4, 56)):
                    continue
                default = defaults.get(name)
                if _equal(user.value(name), default) and not _equal(other.value, default):
                    modified[name] = other.value
                    user.inherit(name, other)
            if self.minor >= (4, 54) and _equal(user.value("temperature"), 0.0):
                user.put("do_sample", derived(False, "generate(): temperature 0.0 means greedy"))
            if modified and wanted is None:
                self.warnings.log(
                    f"`generation_config` default values have been modified to match model-specific defaults: {modified}. "
                    "If this is not desired, please set these values explicitly."
                )
        else:
            self._inherit_special(user)
        return user

    def _gate_open(self) -> bool:
        """model.generation_config.transformers_version >= 4.50; a missing stamp counts as the running version."""
        stamp = self.model.stamp
        match = _PEP440.fullmatch(stamp) if isinstance(stamp, str) else None
        if match is None:
            raise Raised("InvalidVersion", f"Invalid version: '{stamp}'")
        epoch, major, minor = (int(part or 0) for part in match.groups())
        return (epoch, major, minor) >= (0, 4, 50)

    def _inherit_special(self, fields: Fields) -> None:
        for name in SPECIAL:
            other = self.model.fields.get(name)
            if fields.value(name) is None and other is not None and (other.value is not None or other.origin.layer != "library-default"):
                fields.inherit(name, other)

    def _update(self, arguments: Mapping[str, SourcedValue], user: Fields | None) -> dict[str, SourcedValue]:
        """GenerationConfig.update(**kwargs): what it knows it takes; the rest are model arguments."""
        rest = {}
        for name, setting in arguments.items():
            if name in self.fields:
                self.fields.put(name, setting)
            elif name not in ("generation_config", "transformers_version", "_from_model_config"):
                rest[name] = setting
        if (4, 43) <= self.minor < (4, 50) and user is not None:
            self._inherit_special(self.fields)
        if self.minor >= (5, 0):
            if self.fields.value("cache_implementation") == "hybrid":
                self.fields.put("cache_implementation", derived(None, "generate() unsets a hybrid cache"))
            taken = [name for name in arguments if name not in rest]
            if user is not None and taken:
                self.warnings.log(f"Passing `generation_config` together with generation-related arguments=({set(taken)}) is deprecated")
        return rest

    def _loop_fallback(self) -> None:
        """Up to 4.40 the decode loop takes the model's eos and pad where the config has none (greedy_search, sample: 4.37.2, utils.py)."""
        if self.minor > (4, 40):
            return
        own = self.fields.value("eos_token_id")
        if own is not None and self.fields.value("pad_token_id") is None:
            pad = own[0] if isinstance(own, list) else own
            self.fields.put("pad_token_id", derived(pad, "generate(): the first eos id is used as the pad token"))
        for name in ("eos_token_id", "pad_token_id"):
            other = self.model.fields.get(name)
            if self.fields.value(name) is None and other is not None and other.value is not None:
                self.fields.inherit(name, other)
        if own is None and self.fields.value("eos_token_id") is not None and self.fields.value("pad_token_id") is None:
            raise Raised("ValueError", "If `eos_token_id` is defined, make sure that `pad_token_id` is defined.")

    def _default_lengths(self, user: Fields | None, arguments: Mapping[str, SourcedValue]) -> tuple[bool, bool] | None:
        """5.x decides before the defaults are filled in whether max_length and min_length were left alone; None before 5.x."""
        if self.minor < (5, 0):
            return None
        chosen = []
        for name in ("max_length", "min_length"):
            given = name in arguments and arguments[name].value is not None
            by_user = user is not None and user.value(name) is not None
            by_model = self.minor >= (5, 3) and self.model.fields.value(name) is not None
            chosen.append(not given and not by_user and not by_model)
        return chosen[0], chosen[1]

    def effective(self) -> Effective:
        """What is known in the end."""
        fields = self.fields
        stop = stop_of(fields, self.call, self.minor, self.model)
        if stop.pad_token_id is not None and fields.value("pad_token_id") is None and "pad_token_id" in fields and self.error is None:
            fields.put("pad_token_id", derived(stop.pad_token_id, "generate(): the first eos id is used as the pad token"))
        return Effective(
            transformers=self.version,
            rules=self.rules,
            fields=fields,
            model_fields=self.model.fields,
            stop=stop,
            error=self.error,
            warnings=tuple(self.warnings.messages),
            limits=tuple(self._limits()),
        )

    def _limits(self) -> list[str]:
        """Return what is not modelled of the call, as clauses for the verdict."""
        limits = unmodelled_arguments(self.call.kwargs)
        forced, size = self.fields.value("forced_bos_token_id"), vocabulary_of(self.model)
        if self.error is None and size is not None and is_id(forced) and forced >= size:
            limits.append(f"a prompt of one token raises IndexError: forced_bos_token_id {forced} is outside the vocabulary of {size}")
        return limits


# What packaging.version.parse takes: (epoch, major, minor).
_PEP440 = re.compile(
    r"\s*v?(?:(\d+)!)?(\d+)(?:\.(\d+))?(?:\.\d+)*"
    r"(?:[-_.]?(?:alpha|beta|preview|pre|a|b|c|rc)[-_.]?\d*)?(?:-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?(?:[-_.]?dev[-_.]?\d*)?"
    r"(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?\s*",
    re.IGNORECASE,
)


def _equal(left: Any, right: Any) -> bool:
    return bool(left == right)

"""The kind of every layer, from config.json alone: what the configuration classes of transformers 5.23 make of it.

Each function repeats the __post_init__ (or the property layer_types) of the classes it is listed for (models/*/configuration_*.py);
tests/mask/test_layers.py holds them against the real classes. A list that config.json gives itself comes first everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from llmdoctor.core.errors import QuestionError

ModelConfig = Mapping[str, Any]
FULL, SLIDING, CHUNKED, LINEAR, CONV, HYBRID = (
    "full_attention", "sliding_attention", "chunked_attention", "linear_attention", "conv", "hybrid",
)  # fmt: skip
_LEGACY = {"mamba": LINEAR, "attention": FULL, "deepseek_sparse_attention": "indexed_attention"}  # configuration_utils.py
INDEXED = "indexed_attention"  # a top-k indexer keeps index_topk keys
MAX_LAYERS = 10_000
MAX_WINDOW = 2**40  # tokens


@cache
def table() -> dict[str, Any]:
    """architectures.json, made from the installed library by conformance/make_mask_architectures.py."""
    value: dict[str, Any] = json.loads(Path(__file__).with_name("architectures.json").read_bytes())
    return value


@cache
def _all_traits() -> dict[str, dict[str, Any]]:
    value: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("traits.json").read_bytes())["types"]
    return value


def traits(kind: str) -> Mapping[str, Any]:
    """Return what the masks of a model type depend on besides table(); traits.json lists the names and their meaning."""
    return _all_traits().get(kind, {})


def layer_rule(kind: str) -> str | None:
    """Return the name of the rule by which the class derives layer_types; None if it has none."""
    rule: str | None = traits(kind).get("layers")
    return rule


def ruled_types() -> tuple[str, ...]:
    """Return the model types that have a rule."""
    return tuple(kind for kind, each in _all_traits().items() if "layers" in each)


def filled(text: ModelConfig, kind: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that layers depend on, under their usual names, with the class's defaults; `entry` is the type's in table().

    If config.json has a field under both of its names, the usual one counts: the class sets its attribute_map names last.
    """
    names = entry.get("names", {})
    out = {**entry["defaults"], **{name: value for name, value in text.items() if name not in names}}
    for name, real in names.items():
        if name in text and name != "layer_types":
            out[name] = out[real] = text[name]
        elif real in text:
            out[name] = text[real]
    out["_gated_window"] = bool(traits(kind).get("gated_window"))
    return out


def layer_types(kind: str, config: ModelConfig, rule: str) -> tuple[str, ...] | None:
    """The kind of each layer; None if the rule by which the class derives them is not one of those known here.

    `config` has the class's defaults filled in. Raises QuestionError if the number of layers or their list makes no sense.
    """
    given = config.get("layer_types") or config.get("layers_block_type")
    if isinstance(given, list) and given and rule not in _PROPERTIES:
        names = [name for name in given if isinstance(name, str)]
        if len(names) != len(given) or len(given) > MAX_LAYERS:
            raise QuestionError(f"config.json: layer_types of {kind} is not a list of at most {MAX_LAYERS} names")
        found = tuple(_LEGACY.get(name, name) for name in names)
        return (*found[:-1], FULL) if traits(kind).get("last_full") else found
    derive = _RULES.get(rule)
    return None if derive is None else tuple(derive(config, 0 if rule in _OWN_COUNT else layer_count(config)))


def layer_count(config: ModelConfig) -> int:
    """num_hidden_layers, under whatever name the class has for it."""
    count = config.get("num_hidden_layers")
    if isinstance(count, bool) or not isinstance(count, int) or not 0 < count <= MAX_LAYERS:
        raise QuestionError(f"config.json: the number of layers is {count!r}, expected an integer from 1 to {MAX_LAYERS}")
    return count


def window_of(config: ModelConfig) -> int | None:
    """sliding_window as the class leaves it: Qwen2's is taken away unless use_sliding_window is true."""
    if config.get("use_sliding_window") is False and config.get("_gated_window"):
        return None
    if config.get("local_attention") is not None:  # ModernBERT: the window's two halves together (configuration_modernbert.py:160)
        return _whole(config, "local_attention", 128, 2) // 2
    size = config.get("sliding_window")
    if size is None or size is False:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= MAX_WINDOW:
        raise QuestionError(f"config.json: sliding_window is {size!r}, expected an integer from 1 to {MAX_WINDOW}, or null")
    return size


def _whole(config: ModelConfig, name: str, default: int, least: int = 1) -> int:
    """A whole number of config.json; QuestionError if something else is there."""
    value = config.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_WINDOW:
        raise QuestionError(f"config.json: {name} is {value!r}, expected an integer from {least} to {MAX_WINDOW}")
    return value


def _listed(config: ModelConfig, name: str) -> list[Any] | None:
    """A list of config.json; QuestionError if something else is there."""
    value = config.get(name)
    if value is not None and not isinstance(value, list):
        raise QuestionError(f"config.json: {name} is {value!r}, expected a list")
    return value


def _all(name: str) -> Callable[[ModelConfig, int], list[str]]:
    return lambda _, count: [name] * count


def _window_if_set(config: ModelConfig, count: int) -> list[str]:
    return [FULL if window_of(config) is None else SLIDING] * count


def _from_layer(config: ModelConfig, count: int) -> list[str]:
    """Qwen2, Qwen2-VL, Qwen3: the layers from max_window_layers on."""
    first, window = _whole(config, "max_window_layers", count, 0), window_of(config)
    return [SLIDING if window is not None and layer >= first else FULL for layer in range(count)]


def _qwen2_moe(config: ModelConfig, count: int) -> list[str]:
    on, last = config.get("use_sliding_window"), _whole(config, "max_window_layers", count, 0)
    return [SLIDING if (layer + 1) % 2 and layer < last and on else FULL for layer in range(count)]


def _every(names: tuple[str, ...], default: int, other: str = SLIDING) -> Callable[[ModelConfig, int], list[str]]:
    """Every Nth layer is full, the others are `other`; N is the value of one of `names`."""

    def derive(config: ModelConfig, count: int) -> list[str]:
        step = next((_whole(config, name, default, 0) or default for name in names if config.get(name)), default)
        return [other if (layer + 1) % step else FULL for layer in range(count)]

    return derive


def _last_full(derive: Callable[[ModelConfig, int], list[str]]) -> Callable[[ModelConfig, int], list[str]]:
    return lambda config, count: [*derive(config, count)[:-1], FULL]


def _olmo_hybrid(config: ModelConfig, count: int) -> list[str]:
    made = _every((), 4, LINEAR)(config, count)
    return made if FULL in made else [*made[:-1], FULL]


def _first_of(step: int, name: str | None = None) -> Callable[[ModelConfig, int], list[str]]:
    """The first of every N layers is full, the others slide."""

    def derive(config: ModelConfig, count: int) -> list[str]:
        every = step if name is None else _whole(config, name, step)
        return [SLIDING if layer % every else FULL for layer in range(count)]

    return derive


def _rope_flags(config: ModelConfig, count: int) -> list[Any]:
    """no_rope_layers of Llama 4 and SmolLM3: 1 if a layer has rotary positions."""
    given, step = _listed(config, "no_rope_layers"), _whole(config, "no_rope_layer_interval", 4)
    return given or [int((layer + 1) % step != 0) for layer in range(count)]


def _llama4(config: ModelConfig, count: int) -> list[str]:
    return [CHUNKED if flag else FULL for flag in _rope_flags(config, count)]


def _smollm3(config: ModelConfig, count: int) -> list[str]:
    windowed = config.get("use_sliding_window") and config.get("sliding_window") is not None
    return [SLIDING if windowed and not flag else FULL for flag in _rope_flags(config, count)[:count]]


def _jamba(config: ModelConfig, count: int) -> list[str]:
    period, offset = _whole(config, "attn_layer_period", 8), _whole(config, "attn_layer_offset", 4, 0)
    return [FULL if layer % period == offset else LINEAR for layer in range(count)]


def _bamba(config: ModelConfig, count: int) -> list[str]:
    attended = _listed(config, "attn_layer_indices") or []
    return [FULL if layer in attended else LINEAR for layer in range(count)]


def _zamba(config: ModelConfig, count: int) -> list[str]:
    period, offset = _whole(config, "attn_layer_period", 6), _whole(config, "attn_layer_offset", 4, 0)
    return [LINEAR, LINEAR, HYBRID, *(HYBRID if layer % period == offset else LINEAR for layer in range(count - 3))]


def _zamba2(_config: ModelConfig, _count: int) -> list[str]:
    return [LINEAR, *[*[LINEAR] * 5, HYBRID] * 7, *[LINEAR] * 4, HYBRID, *[LINEAR] * 3, HYBRID, LINEAR, LINEAR]


def _lfm2(config: ModelConfig, count: int) -> list[str]:
    full = _listed(config, "full_attn_idxs")
    return [FULL if full is None or layer in full else CONV for layer in range(count)]


def _hybrid_pattern(config: ModelConfig, _count: int) -> list[str]:
    """Nemotron-H: one letter per layer in hybrid_override_pattern (configuration_nemotron_h.py, _pattern_to_list)."""
    pattern = config.get("hybrid_override_pattern")
    if pattern is None:
        return [LINEAR, "moe", FULL, "mlp"]
    names = {"M": LINEAR, "E": "moe", "*": FULL, "-": "mlp"}
    if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_LAYERS or not set(pattern) <= set(names):
        raise QuestionError(f"config.json: hybrid_override_pattern is {pattern!r}, expected the letters {' '.join(names)}")
    return [names[letter] for letter in pattern]


def _alternating(first: str, second: str) -> Callable[[ModelConfig, int], list[str]]:
    return lambda _, count: [first if layer % 2 == 0 else second for layer in range(count)]


_RULES: dict[str, Callable[[ModelConfig, int], list[str]]] = {
    "full": _all(FULL),
    "linear": _all(LINEAR),
    "indexed": _all(INDEXED),
    "hybrid": _all(HYBRID),
    "window_if_set": _window_if_set,
    "from_layer": _from_layer,
    "qwen2_moe": _qwen2_moe,
    "alternating": _alternating(SLIDING, FULL),
    "alternating_full": _alternating(FULL, LINEAR),
    "every_4": _every(("sliding_window_pattern",), 4),
    "every_6": _every(("sliding_window_pattern",), 6),
    "every_5": _every((), 5),
    "fixed_4": _every((), 4),
    "global_4": _every(("global_attn_every_n_layers",), 4),
    "fixed_6_last": _last_full(_every((), 6)),
    "first_of_4": _first_of(4),
    "first_of_3": _first_of(3, "global_attn_every_n_layers"),
    "olmo_hybrid": _olmo_hybrid,
    "linear_4": _every(("full_attention_interval",), 4, LINEAR),
    "rope_flags": _llama4,
    "smollm3": _smollm3,
    "jamba": _jamba,
    "bamba": _bamba,
    "zamba": _zamba,
    "zamba2": _zamba2,
    "lfm2": _lfm2,
    "hybrid_pattern": _hybrid_pattern,
}
_OWN_COUNT = ("hybrid_pattern",)  # rules that do not need num_hidden_layers
_PROPERTIES = ("jamba", "bamba")  # layer_types is a property there: the value in config.json is not read

"""`mem kvcache`: bytes of the key-value cache, layer by layer, and how much of it is used. What a cache holds is in cache_kinds.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from llmdoctor.core.document import Bar, Bars, Block, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report, Verdict
from llmdoctor.core.text import plural
from llmdoctor.mem.cache_kinds import ChosenCache, read_cache
from llmdoctor.mem.model_config import config_of, model_directory, stored_dtype
from llmdoctor.mem.options import KvcacheOptions
from llmdoctor.mem.results import CacheLayerResult, KvcacheResult
from llmdoctor.mem.settings import dtype_of
from llmdoctor.mem.workload import BYTES
from llmdoctor.modeldir import layerkinds

MOST_LAYERS = 10_000
ODD = ("is_encoder_decoder", "add_cross_attention", "num_kv_shared_layers", "global_head_dim", "num_global_key_value_heads", "swa_head_dim",
       "swa_num_key_value_heads", "use_bidirectional_attention")  # fmt: skip
NOT_ATTENTION = ("moe", "mlp")
MIB = 2**20


@cache
def known_types() -> dict[str, Any]:
    """Return the model types whose caches are known (kvcache_types.json)."""
    table: dict[str, Any] = json.loads(Path(__file__).with_name("kvcache_types.json").read_text())
    return table


@dataclass(frozen=True, slots=True)
class CacheShape:
    """A layer's cache: key and value heads, their sizes, the window (None: every token)."""

    heads: int
    key_size: int
    value_size: int
    window: int | None


@dataclass(frozen=True, slots=True)
class CacheLayer:
    """What one layer holds: tokens in its tensors, tokens of them that are used, bytes of both."""

    shape: CacheShape
    tokens: int
    used_tokens: int
    allocated: int
    used: int


def kvcache_report(options: KvcacheOptions) -> Report:
    """Return the key-value cache of `options.batch` sequences of `options.length` tokens.

    Raises QuestionError for a model or a cache that is not understood.
    """
    batch, length = options.batch, options.length
    for name, value in (("--batch", batch), ("--length", length)):
        if value < 1:
            raise QuestionError(f"{name} {value}: expected at least 1")
    directory = model_directory(options.model)
    config = config_of(directory)
    cache = read_cache(options.cache)
    if cache.kind.whole and length > cache.size:
        raise QuestionError(f"--length {length}: does not fit into --cache {options.cache}, which has room for {cache.size} tokens")
    text = text_config(config)
    found = dtype_of(options.dtype, "--dtype") if options.dtype is not None else _model_dtype(config, text) or stored_dtype(directory)
    chosen = found or "bfloat16"
    layers = tuple(layer_of(shape, cache, batch, length, chosen) for shape in layer_shapes(text))
    allocated, used = sum(layer.allocated for layer in layers), sum(layer.used for layer in layers)
    result: KvcacheResult = {
        "kvcache": {
            "allocated_bytes": allocated,
            "used_bytes": used,
            "per_token_bytes": sum(per_token(layer.shape, cache, chosen) for layer in layers),
            "layers": [_plain(number, layer) for number, layer in enumerate(layers)],
            "cache": options.cache,
            "dtype": chosen,
            "mask_bytes": _mask_bytes(cache),
        }
    }
    subject = {"path": options.model, "batch": batch, "length": length, "cache": options.cache, "dtype": chosen}
    document = _document(cache, options, chosen, layers)
    return Report("mem kvcache", subject, {**result}, document=document, verdict=_verdict(options, allocated, used, assumed=found is None))


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the language model's part of a config, under its own model type; a composite config may leave the type out."""
    for key in ("text_config", "thinker_config"):
        inner = config.get(key)
        if isinstance(inner, dict):
            entry = layerkinds.table()["types"].get(str(config.get("model_type")), {})
            return text_config({"model_type": entry.get("text", [key, None])[1], **inner})
    flat = layerkinds.table()["types"].get(str(config.get("model_type")), {}).get("text")
    return {**config, "model_type": flat[1]} if flat and flat[0] not in config else dict(config)


def layer_shapes(text: Mapping[str, Any]) -> tuple[CacheShape, ...]:
    """Return the cache of every layer. Raises QuestionError if the config is incomplete or the caches of its type are not known."""
    kind = str(text.get("model_type"))
    entry = layerkinds.table()["types"].get(kind)
    if entry is None or kind not in known_types()["types"]:
        raise QuestionError(f"config.json: the key-value cache of {kind} was not compared with a real one, so it is not predicted")
    config = layerkinds.filled(text, kind, entry)
    odd = next((name for name in ODD if config.get(name)), None)
    if odd is not None:
        raise QuestionError(f"config.json: {kind} with {odd} {config[odd]!r} has layers of other caches, which are not modelled")
    layers = _number(config, ("num_hidden_layers", "n_layer", "num_layers"))
    if layers > MOST_LAYERS:
        raise QuestionError(f"config.json: {layers} layers, expected at most {MOST_LAYERS}")
    types = _layer_types(kind, config)
    if config.get("kv_lora_rank"):
        # Multi-head latent attention caches the compressed keys and values and the rotary key, for all heads together
        # (transformers 5.23 deepseek_v3/modeling_deepseek_v3.py:445 to :459; before 5 the expanded heads).
        shape = CacheShape(1, _number(config, ("kv_lora_rank",)), _number(config, ("qk_rope_head_dim",)), None)
        return (shape,) * layers
    heads = _number(config, ("num_attention_heads", "n_head", "num_heads"))
    groups = _groups(kind, config, heads)
    size = _number(config, ("head_dim",)) if config.get("head_dim") else _number(config, ("hidden_size", "n_embd", "d_model")) // heads
    shapes = []
    for name in types:
        if name in NOT_ATTENTION:
            continue
        if name == layerkinds.FULL:
            shapes.append(CacheShape(groups, size, size, None))
            continue
        if name not in (layerkinds.SLIDING, layerkinds.CHUNKED):
            raise QuestionError(f"a layer of type {name} keeps a state other than keys and values, which is not modelled")
        window = config.get("attention_chunk_size") if name == layerkinds.CHUNKED else layerkinds.window_of(config)
        if not isinstance(window, int) or isinstance(window, bool) or window < 2:
            raise QuestionError(f"a layer of type {name}, but no sliding_window in the config")
        shapes.append(CacheShape(groups, size, size, window))
    return tuple(shapes)


def _groups(kind: str, config: Mapping[str, Any], heads: int) -> int:
    """Return the heads of the cached keys and values. Some types share one group among all heads, by a flag of the config."""
    flags = known_types()["shared_heads"].get(kind)
    if flags is not None:
        return 1 if config.get(flags["if"], flags["default"]) and not config.get(flags.get("unless", "")) else heads
    known = "num_key_value_heads" in layerkinds.table()["types"][kind]["defaults"]  # else the class does not read the field
    return _number(config, ("num_key_value_heads",)) if known and config.get("num_key_value_heads") else heads


def _layer_types(kind: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the types of the layers as the config class has them; without any, a window makes every layer slide (cache_utils.py:1919)."""
    rule = layerkinds.layer_rule(kind)
    if rule is None:
        rule = "full" if config.get("layer_types") else "window_if_set"
    found = layerkinds.layer_types(kind, config, rule)
    if found is None:
        raise QuestionError(f"config.json: the layer types of {kind} are unknown")
    return found


def layer_of(shape: CacheShape, cache: ChosenCache, batch: int, length: int, dtype: str) -> CacheLayer:
    """Return the tensors of one layer."""
    tokens, used = cache.kind.tokens(shape.window, cache.size, length)
    each = per_token(shape, cache, dtype)
    return CacheLayer(shape, tokens, used, round(batch * tokens * each), round(batch * used * each))


def per_token(shape: CacheShape, cache: ChosenCache, dtype: str) -> float:
    """Return the bytes of one token's keys and values in one layer."""
    return cache.kind.bytes_per_token(shape.heads * (shape.key_size + shape.value_size), BYTES[dtype], cache.size)


def _mask_bytes(cache: ChosenCache) -> int:
    return 0 if cache.kind.mask_bytes is None else cache.kind.mask_bytes(cache.size)


def _number(text: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    for key in keys:
        value = text.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    raise QuestionError(f"config.json: none of {', '.join(keys)} is a positive number, so the cache's shape is not known")


def _model_dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    for source in (text, config):
        for key in ("dtype", "torch_dtype"):
            if isinstance(source.get(key), str) and source[key] in BYTES:
                return str(source[key])
    return None


def _plain(number: int, layer: CacheLayer) -> CacheLayerResult:
    shape = layer.shape
    return {
        "layer": number,
        "type": "sliding" if shape.window is not None else "full",
        "heads": shape.heads,
        "key_size": shape.key_size,
        "value_size": shape.value_size,
        "window": shape.window,
        "tokens": layer.tokens,
        "used_tokens": layer.used_tokens,
        "allocated_bytes": layer.allocated,
        "used_bytes": layer.used,
    }


def _verdict(options: KvcacheOptions, allocated: int, used: int, *, assumed: bool) -> Verdict:
    text = f"The key-value cache takes {allocated / MIB:,.1f} MiB for {options.batch} x {options.length} tokens"
    text += " in bfloat16 (assumed: config.json names no dtype: --dtype)" if assumed else ""
    if used == allocated:
        return Verdict(f"{text}.")
    return Verdict(f"{text}, of which {100 * used / allocated:.0f}% are used ({used / MIB:,.1f} MiB).")


def _document(cache: ChosenCache, options: KvcacheOptions, dtype: str, layers: tuple[CacheLayer, ...]) -> tuple[Block, ...]:
    allocated, used = sum(layer.allocated for layer in layers), sum(layer.used for layer in layers)
    groups: dict[tuple[CacheShape, int, int], list[CacheLayer]] = {}
    for layer in layers:
        groups.setdefault((layer.shape, layer.tokens, layer.used_tokens), []).append(layer)
    rows = []
    for (shape, tokens, used_tokens), same in groups.items():
        what = "full" if shape.window is None else f"window {shape.window}"
        size = f"{shape.heads} x ({shape.key_size} + {shape.value_size})"
        rows.append((str(len(same)), what, size, str(tokens), str(used_tokens), f"{sum(layer.allocated for layer in same) / MIB:,.1f}"))
    table = Table(("layers", "attention", "heads x sizes", "tokens held", "used", "MiB"), tuple(rows))
    notes: list[Block] = [
        Note("Per token", f"{sum(per_token(layer.shape, cache, dtype) for layer in layers):,.0f} bytes in {dtype}, all layers")
    ]
    if cache.kind.mask_bytes is not None:
        notes.append(Note("Also", f"a boolean causal mask of {_mask_bytes(cache) / MIB:,.1f} MiB (setup_caches)"))
    if cache.kind.whole:
        notes.append(Note("Limits", f"{options.cache} is allocated whole at the first token, for any length", "dim"))
    if cache.kind.limit is not None and (not cache.kind.windowed or any(layer.shape.window is not None for layer in layers)):
        notes.append(Note("Limits", cache.kind.limit, "dim"))
    training = "holds no cache: the Trainer sets use_cache to False (transformers trainer.py:646); "
    notes.append(Note("Training", training + "code that calls the model itself with use_cache=True holds a dynamic one", "dim"))
    picture = (_picture(tuple(groups.values())),) if len(groups) > 1 or used < allocated else ()
    return (table, *picture, *notes)


def _picture(groups: tuple[list[CacheLayer], ...]) -> Bars:
    """Return what the layers of each kind hold: used tokens, and room that is not used."""
    bars = []
    for same in groups:
        first, used = same[0], sum(layer.used for layer in same)
        kind = "full" if first.shape.window is None else f"window {first.shape.window}"
        unused = sum(layer.allocated for layer in same) - used
        bars.append(
            Bar(f"{plural(len(same), 'layer')}, {kind}", (used / MIB, unused / MIB), f"{first.used_tokens:,} of {first.tokens:,} tokens")
        )
    return Bars("Held by the layers of each kind", "MiB", ("used", "not used"), tuple(bars))

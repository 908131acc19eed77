"""A model's parameters without torch: from safetensors headers, else from the config of a family whose layout is known here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.adapter_shapes import adapters, quantized
from llmdoctor.mem.trained import check_patterns, is_trained
from llmdoctor.mem.weights import Weight
from llmdoctor.mem.workload import Workload

if TYPE_CHECKING:
    from llmdoctor.modeldir.directory import ModelDir


@dataclass(frozen=True, slots=True)
class DecoderKind:
    """How relatives of Llama differ: biases of q, k and v, norms of q and k, a bias of the output projection with attention_bias."""

    bias: bool = False
    qk_norm: bool = False
    output_bias: bool = False


LLAMA_LIKE = {
    "llama": DecoderKind(output_bias=True),
    "mistral": DecoderKind(),
    "qwen2": DecoderKind(bias=True),
    "qwen3": DecoderKind(qk_norm=True, output_bias=True),
    "qwen2_vl_text": DecoderKind(bias=True),
}
NOT_WEIGHTS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
MOST_LAYERS = 1_000
MOST_SIZE = 2**40
ParameterShape = tuple[str, tuple[int, ...], bool]


def header_shapes(directory: ModelDir) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in the directory's safetensors files by name; empty if there are no such files."""
    from llmdoctor.files.safetensors import read_header

    out: dict[str, tuple[int, ...]] = {}
    for name in sorted(os.listdir(directory.path)):
        if name.endswith(".safetensors") and not name.startswith("adapter"):
            tensors, problems = read_header(os.path.join(directory.path, name), directory.path)
            if problems:
                raise QuestionError(problems[0].message)
            out.update({key: tensor.shape for key, tensor in tensors.items()})
    return {key: shape for key, shape in out.items() if not key.endswith(NOT_WEIGHTS)}


def check_headers(directory: ModelDir, weights: Sequence[Weight]) -> None:
    """Raise QuestionError if the directory's tensors have another number of elements than the config's model.

    A tied output layer may be stored.
    """
    shapes = header_shapes(directory)
    if not shapes or any(".lora_" in name for name in shapes):
        return
    stored = sum(_product(shape) for shape in shapes.values())
    wanted = sum(weight.numel for weight in weights)
    tables = {weight.numel for weight in weights if weight.embedding}
    if stored != wanted and stored - wanted not in tables:
        raise QuestionError(
            f"{directory.shown_name}: the safetensors headers hold {stored:,} parameters, config.json describes {wanted:,}: they are not of one model"
        )


def weights_without_torch(directory: ModelDir, workload: Workload) -> tuple[Weight, ...]:
    """Return the parameters in the dtypes of `workload`.

    Raises QuestionError if the directory has no safetensors files and the layout of its family is unknown.
    """
    file = directory.config
    if file is None:
        raise QuestionError(f"{directory.shown_name}: no config.json")
    config: dict[str, Any] = file.value
    family = config["model_type"]
    if isinstance(family, str) and family in FAMILIES:
        if any(isinstance(config.get(key), int) and config[key] > MOST_LAYERS for key in ("num_hidden_layers", "n_layer")):
            raise QuestionError(f"{file.shown_name}: more than {MOST_LAYERS} layers")
        _check_sizes(file.shown_name, config)
        try:
            shapes = list(FAMILIES[family](config))
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError, OverflowError) as error:
            raise QuestionError(f"{file.shown_name}: a size that {family} models need is missing or no number ({error})") from None
        if not all(isinstance(extent, int) and not isinstance(extent, bool) and extent > 0 for _, shape, _ in shapes for extent in shape):
            raise QuestionError(f"{file.shown_name}: a size that {family} models need is not a positive number")
    else:
        shapes = [(name, shape, "embed" in name) for name, shape in header_shapes(directory).items()]
        if not shapes:
            known = ", ".join(sorted(FAMILIES))
            raise QuestionError(
                f"{directory.shown_name}: without torch {family} is known from safetensors files only, and none are here ({known} need none)"
            )
    check_patterns(workload, [name for name, _, _ in shapes])
    weights = tuple(_weight(name, shape, table, workload) for name, shape, table in shapes)
    return (*quantized(weights, workload), *adapters(weights, str(family), workload))


SIZES = frozenset(
    "hidden_size num_attention_heads num_key_value_heads head_dim intermediate_size vocab_size num_hidden_layers n_embd n_inner n_positions "
    "n_layer n_head embed_dim depth mlp_ratio in_channels in_chans patch_size spatial_merge_size temporal_patch_size".split()
)


def _check_sizes(where: str, config: dict[str, Any]) -> None:
    """Raise QuestionError if a size is set to something other than a number."""
    for key, value in config.items():
        if isinstance(value, dict):
            _check_sizes(f"{where}: {key}", value)
        elif key in SIZES and value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value > MOST_SIZE):
            raise QuestionError(f"{where}: {key}: expected a number of at most {MOST_SIZE:,}, found {repr(value)[:40]}")


def _weight(name: str, shape: tuple[int, ...], table: bool, workload: Workload) -> Weight:
    return Weight(name, shape, workload.dtype, is_trained(name, workload), table)


def _product(shape: Sequence[int]) -> int:
    out = 1
    for extent in shape:
        out *= extent
    return out


def _decoder(config: dict[str, Any], prefix: str = "model", *, tied: bool | None = None) -> Iterator[ParameterShape]:
    """Llama and its relatives (transformers models/llama/modeling_llama.py): projections, gated MLP, two norms a layer."""
    kind = LLAMA_LIKE[config["model_type"]]
    bias = kind.bias or bool(config.get("attention_bias"))
    d_model, heads = config["hidden_size"], config["num_attention_heads"]
    size = config.get("head_dim") or d_model // heads
    groups, inner = config.get("num_key_value_heads") or heads, config["intermediate_size"]
    yield f"{prefix}.embed_tokens.weight", (config["vocab_size"], d_model), True
    for layer in range(config["num_hidden_layers"]):
        at = f"{prefix}.layers.{layer}"
        for name, out in (("q", heads * size), ("k", groups * size), ("v", groups * size)):
            yield f"{at}.self_attn.{name}_proj.weight", (out, d_model), False
            if bias:
                yield f"{at}.self_attn.{name}_proj.bias", (out,), False
        yield f"{at}.self_attn.o_proj.weight", (d_model, heads * size), False
        if config.get("attention_bias") and kind.output_bias:
            yield f"{at}.self_attn.o_proj.bias", (d_model,), False
        for name in ("q_norm", "k_norm") if kind.qk_norm else ():
            yield f"{at}.self_attn.{name}.weight", (size,), False
        for name, shape in (("gate", (inner, d_model)), ("up", (inner, d_model)), ("down", (d_model, inner))):
            yield f"{at}.mlp.{name}_proj.weight", shape, False
            if config.get("mlp_bias"):
                yield f"{at}.mlp.{name}_proj.bias", shape[:1], False
        yield f"{at}.input_layernorm.weight", (d_model,), False
        yield f"{at}.post_attention_layernorm.weight", (d_model,), False
    yield f"{prefix}.norm.weight", (d_model,), False
    if not (config.get("tie_word_embeddings", False) if tied is None else tied):
        yield "lm_head.weight", (config["vocab_size"], d_model), False


def _gpt2(config: dict[str, Any]) -> Iterator[ParameterShape]:
    """transformers models/gpt2/modeling_gpt2.py; the output layer is tied."""
    d_model = config.get("n_embd", 768)
    inner = config.get("n_inner") or 4 * d_model
    yield "transformer.wte.weight", (config.get("vocab_size", 50257), d_model), True
    yield "transformer.wpe.weight", (config.get("n_positions", 1024), d_model), True
    for layer in range(config.get("n_layer", 12)):
        at = f"transformer.h.{layer}"
        for name in ("ln_1", "ln_2"):
            yield f"{at}.{name}.weight", (d_model,), False
            yield f"{at}.{name}.bias", (d_model,), False
        for name, shape in (
            ("attn.c_attn", (d_model, 3 * d_model)),
            ("attn.c_proj", (d_model, d_model)),
            ("mlp.c_fc", (d_model, inner)),
            ("mlp.c_proj", (inner, d_model)),
        ):
            yield f"{at}.{name}.weight", shape, False
            yield f"{at}.{name}.bias", shape[1:], False
    yield "transformer.ln_f.weight", (d_model,), False
    yield "transformer.ln_f.bias", (d_model,), False


def _neox(config: dict[str, Any]) -> Iterator[ParameterShape]:
    """transformers models/gpt_neox/modeling_gpt_neox.py."""
    d_model, inner = config["hidden_size"], config["intermediate_size"]
    yield "gpt_neox.embed_in.weight", (config["vocab_size"], d_model), True
    for layer in range(config["num_hidden_layers"]):
        at = f"gpt_neox.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}.{name}.weight", (d_model,), False
            yield f"{at}.{name}.bias", (d_model,), False
        for name, shape in (
            ("attention.query_key_value", (3 * d_model, d_model)), ("attention.dense", (d_model, d_model)),
            ("mlp.dense_h_to_4h", (inner, d_model)), ("mlp.dense_4h_to_h", (d_model, inner)),
        ):  # fmt: skip
            yield f"{at}.{name}.weight", shape, False
            if name.startswith("mlp") or config.get("attention_bias", True):
                yield f"{at}.{name}.bias", shape[:1], False
    yield "gpt_neox.final_layer_norm.weight", (d_model,), False
    yield "gpt_neox.final_layer_norm.bias", (d_model,), False
    if not config.get("tie_word_embeddings", False):
        yield "lm_head.weight", (config["vocab_size"], d_model), False


def _qwen2_vl(config: dict[str, Any]) -> Iterator[ParameterShape]:
    """transformers models/qwen2_vl/modeling_qwen2_vl.py: the vision tower, then a Qwen2. Published configs are flat, newer ones nested."""
    vision = config["vision_config"]
    width, merge = vision["embed_dim"], vision.get("spatial_merge_size", 2)
    text = {**config, **config.get("text_config", {}), "model_type": "qwen2_vl_text"}
    patch = (
        vision.get("in_channels", vision.get("in_chans", 3)),
        vision.get("temporal_patch_size", 2),
        vision["patch_size"],
        vision["patch_size"],
    )
    inner = int(width * vision.get("mlp_ratio", 4))
    yield "model.visual.patch_embed.proj.weight", (width, *patch), False
    for layer in range(vision["depth"]):
        at = f"model.visual.blocks.{layer}"
        for name in ("norm1", "norm2"):
            yield f"{at}.{name}.weight", (width,), False
            yield f"{at}.{name}.bias", (width,), False
        for name, shape in (
            ("attn.qkv", (3 * width, width)),
            ("attn.proj", (width, width)),
            ("mlp.fc1", (inner, width)),
            ("mlp.fc2", (width, inner)),
        ):
            yield f"{at}.{name}.weight", shape, False
            yield f"{at}.{name}.bias", shape[:1], False
    merged = width * merge**2
    last: tuple[tuple[str, tuple[int, ...]], ...] = (
        ("ln_q", (width,)),
        ("mlp.0", (merged, merged)),
        ("mlp.2", (text["hidden_size"], merged)),
    )
    for name, extents in last:
        yield f"model.visual.merger.{name}.weight", extents, False
        yield f"model.visual.merger.{name}.bias", extents[:1], False
    yield from _decoder(text, "model.language_model", tied=bool(text.get("tie_word_embeddings", False)))


FAMILIES = {
    "llama": _decoder, "mistral": _decoder, "qwen2": _decoder, "qwen3": _decoder, "gpt2": _gpt2, "gpt_neox": _neox, "qwen2_vl": _qwen2_vl,
}  # fmt: skip

"""A small configuration of the same class: widths are cut, depth, layer kinds, windows and the ratios of heads stay.

Sizes that depend on each other are cut together. A cut is accepted only if its model can be built and runs a forward over a few tokens; else
the next one is tried, down to fewer layers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmdoctor.mask.intervals import Ints
from llmdoctor.mask.live.build import words_of
from llmdoctor.modeldir.layerkinds import traits

MAX_PARAMETERS = 60_000_000
VOCABULARY = 1024
_SPECIAL = 64  # ids at the end of the narrow vocabulary that special tokens are moved to
_WIDTH = ("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "word_embed_proj_dim", "emb_dim", "d_embed", "n_embed", "attention_hidden_size",
           "lru_width", "hidden_dim", "embed_dim")  # fmt: skip
_INNER = ("intermediate_size", "ffn_dim", "d_ff", "n_inner", "ffn_hidden_size", "encoder_ffn_dim", "decoder_ffn_dim", "intermediate_size_mlp",
          "shared_intermediate_size", "dense_intermediate_size", "block_ff_dim", "dff", "hidden_size_mlp")  # fmt: skip
_EXPERT = ("moe_intermediate_size", "shared_expert_intermediate_size", "expert_intermediate_size", "expert_ffn_hidden_size",
           "moe_shared_expert_intermediate_size", "moe_shared_intermediate_size", "moe_latent_size")  # fmt: skip
_EXPERTS = (
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "moe_num_experts",
    "num_routed_experts",
    "moe_n_routed_experts",
    "n_experts",
)
_CHOSEN = ("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts", "num_experts_per_token", "experts_per_token", "moe_top_k",
           "moe_num_experts_per_tok", "num_selected_experts")  # fmt: skip
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads", "attention_heads")
_KEYS = ("num_key_value_heads", "num_kv_heads", "num_global_key_value_heads", "multi_query_group_num", "decoder_num_key_value_heads",
         "encoder_num_key_value_heads", "num_swa_key_value_heads", "swa_num_key_value_heads")  # fmt: skip
_HEAD = ("head_dim", "d_kv", "global_head_dim", "attention_head_dim", "swa_head_dim", "head_size", "kv_channels")
_TOWERS = ("vision", "audio", "visual", "speech", "image", "vq", "codec", "qformer", "encoder_config", "backbone")
_FEW = (
    "num_hidden_layers",
    "num_layers",
    "depth",
    "n_layers",
    "n_layer",
    "encoder_layers",
    "decoder_layers",
    "num_decoder_layers",
    "layers",
)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Narrowed:
    """A configuration to build, how it was cut ("" if it was not), and where its special tokens went."""

    config: Any
    cut: str = ""
    moved: Mapping[int, int] = field(default_factory=dict)

    def ids(self, ids: Ints | None) -> Ints | None:
        """Return token ids inside the narrow vocabulary: equal ids stay equal, special tokens stay special and no other token becomes one."""
        if not self.cut or ids is None:
            return ids
        plain = [token for token in range(VOCABULARY - _SPECIAL) if token not in self.moved.values()]
        found, back = np.unique(ids, return_inverse=True)
        new = [self.moved.get(int(token), plain[int(token) % len(plain)] if int(token) not in plain else int(token)) for token in found]
        return np.asarray(new, np.int64)[back].reshape(ids.shape)


class NoCut(Exception):
    """No cut of a large model could be built and run; the message is that of the first."""


def narrowed(config: Any) -> Narrowed:
    """Return `config`, or a small one of its class if its model would have more than 60 million parameters.

    Raises NoCut if no cut of it can be built and run, and what the library raises if the class refuses `config` itself.
    """
    if parameters_of(config) <= MAX_PARAMETERS:
        return Narrowed(config)
    first: Exception | None = None
    for name, cut in _CUTS.items():
        try:
            made = _cut(config, cut, name)
            if parameters_of(made.config) > 20 * MAX_PARAMETERS:
                raise MemoryError(f"the narrow model would have {parameters_of(made.config):,} parameters")
            _try(made.config)
        except Exception as error:  # noqa: BLE001 a cut that does not fit the class can raise anything
            first = first or error
        else:
            return made
    raise NoCut(words_of(first) if first is not None else "no cut was tried")


def parameters_of(config: Any) -> int:
    """Return the parameters of a configuration's model, which is built without memory."""
    import torch

    from llmdoctor.modeldir.live.classes import class_of

    with torch.device("meta"):
        model = class_of(config)._from_config(copy.deepcopy(config), attn_implementation="eager")
    return sum(parameter.numel() for parameter in model.parameters())


def _try(config: Any) -> None:
    """Build the model and run a forward over a few tokens. Raises what the library raises."""
    import torch

    from llmdoctor.mask.live import build, run
    from llmdoctor.mask.types import ForwardInputs

    model = build.build(config, "eager", "float32")
    with torch.no_grad():
        model(**run.prepared(model, ForwardInputs(1, 4)))


def _cut(config: Any, cut: Callable[[dict[str, Any]], None], name: str) -> Narrowed:
    """Return a copy of `config` with every part cut; the class sees the sizes together, as if they stood in config.json."""
    whole = config.to_dict()
    moved = _special_ids(whole)
    for part in _parts(whole):
        _move_ids(part, moved)
        cut(part)
    for key, tower in whole.items():
        if isinstance(tower, dict) and any(word in key for word in _TOWERS):
            _shallow(tower, thin=cut is not _fewer_layers)
        elif isinstance(tower, dict) and isinstance(tower.get("vision_feature_layer"), list):  # an adapter names layers of the tower
            tower["vision_feature_layer"] = [0] * len(tower["vision_feature_layer"])
    made = type(config).from_dict(whole)
    made.architectures = config.architectures
    return Narrowed(made, name, moved)


def _parts(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the configuration and those of the text models inside it."""
    yield whole
    for key, value in whole.items():
        if (
            isinstance(value, dict)
            and key.endswith(("_config", "decoder", "encoder", "generator"))
            and not any(word in key for word in _TOWERS)
        ):
            yield from _parts(value)


def _special_ids(whole: dict[str, Any]) -> dict[int, int]:
    """Return the new id of each special token of the configuration, those inside the narrow vocabulary unchanged."""
    found: set[int] = set()
    for part in _parts(whole):
        for name, value in part.items():
            if name.endswith(("token_id", "token_index", "token_ids")):
                found |= {one for one in (value if isinstance(value, list) else [value]) if type(one) is int and one >= 0}
    limit = VOCABULARY - _SPECIAL
    outside = [one for one in sorted(found) if one >= limit]
    return {one: one for one in found if one < limit} | {one: limit + at % _SPECIAL for at, one in enumerate(outside)}


def _move_ids(part: dict[str, Any], moved: Mapping[int, int]) -> None:
    for name, value in part.items():
        if name.endswith(("token_id", "token_index", "token_ids")):
            if isinstance(value, list):
                part[name] = [moved.get(one, one) if type(one) is int else one for one in value]
            elif type(value) is int:
                part[name] = moved.get(value, value)


def _shallow(tower: dict[str, Any], *, thin: bool) -> None:
    """Cut a vision or audio tower to one layer, and its feed-forward widths if `thin`: text inputs do not run it."""
    if thin:
        _limit(tower, (*_INNER, "projection_intermediate_size"), 64)
    counts = {tower[name] for name in _FEW if type(tower.get(name)) is int and tower[name] > 1}
    for name, value in tower.items():
        if name in _FEW and type(value) is int:
            tower[name] = min(value, 1)
        elif isinstance(value, list) and len(value) in counts:  # one entry per layer
            tower[name] = value[:1]
    if isinstance(tower.get("layer_types"), list):
        tower["layer_types"] = tower["layer_types"][:1]
    _drop_layers(tower, 1)
    for value in tower.values():
        if isinstance(value, dict):
            _shallow(value, thin=thin)


# --- cuts ---------------------------------------------------------------------------------------------------------------------------


def _limit(part: dict[str, Any], names: tuple[str, ...], size: int) -> None:
    """Set the fields that are larger to `size`; a list keeps its length."""
    for name in names:
        value = part.get(name)
        if type(value) is int and value > size:
            part[name] = size
        elif isinstance(value, list):
            part[name] = [min(one, size) if type(one) is int else one for one in value]


def _common(part: dict[str, Any]) -> None:
    """Cut what nothing else depends on: vocabulary, feed-forward widths, experts."""
    for name, value in part.items():
        if "vocab_size" in name and type(value) is int and value > VOCABULARY:
            part[name] = VOCABULARY
    _limit(part, _INNER, 64)
    _limit(part, _EXPERT, 32)
    _limit(part, _EXPERTS, 4)
    _limit(part, _CHOSEN, 2)
    _limit(part, ("n_group", "topk_group", "num_expert_group", "moe_n_group", "num_mem_blocks", "n_shared_experts"), 1)
    _limit(part, ("hidden_size_per_layer_input",), 8)
    _limit(part, ("adapter_rank", "q_lora_rank", "kv_lora_rank", "o_lora_rank"), 16)


def _scale(part: dict[str, Any], head: int | None) -> None:
    """Cut heads and hidden size together: as many queries per key as before, and the head size, or `head` instead of it."""
    _common(part)
    heads_name = next((name for name in _HEADS if type(part.get(name)) is int and part[name] > 0), None)
    width_name = next((name for name in _WIDTH if type(part.get(name)) is int and part[name] > 0), None)
    if width_name is None:
        return
    full_width = part[width_name]
    heads = part[heads_name] if heads_name is not None else 1
    if isinstance(heads, list) or heads <= 0:
        return
    keys = next((part[name] for name in _KEYS if type(part.get(name)) is int and part[name] > 0), heads)
    latent = bool(part.get("kv_lora_rank"))
    few = min(heads, 4) if keys >= heads or latent else min(heads, max(4, heads // keys) if heads // keys <= 8 else heads // keys)
    keep = max(1, few * min(keys, heads) // heads)
    old_head = next((part[name] for name in _HEAD if type(part.get(name)) is int and part[name] > 0), max(full_width // heads, 1))
    own = any(type(part.get(name)) is int for name in _HEAD)
    new_head = old_head if head is None or latent else min(old_head, head)
    for name in _HEADS:
        if type(part.get(name)) is int:
            part[name] = min(part[name], few)
    for name in _KEYS:
        if type(part.get(name)) is int:
            part[name] = few if latent or part[name] >= heads else keep
    for name in _HEAD:
        if type(part.get(name)) is int and not latent:
            part[name] = min(part[name], new_head)
    width = (
        few * new_head
        if not own or full_width == heads * old_head
        else 64
        if head is not None
        else max(64, full_width * few // heads // 64 * 64)
    )
    ratio = width / full_width
    for name in _WIDTH:
        value = part.get(name)
        if type(value) is int and value > width:
            part[name] = width if value == full_width else max(16, int(value * ratio) // 16 * 16)
    _sections(part, old_head, new_head)
    _layers_of_their_own(part, new_head, few, few if latent or keys >= heads else keep)
    _states(part, full_width, width)


def _sections(part: dict[str, Any], old: int, new: int) -> None:
    """Keep rotary sections and dimensions inside the head; a model whose sections are those of its modeling file gets some of its own."""
    if old == new:
        return
    rope = part.get("rope_parameters")
    if traits(str(part.get("model_type"))).get("mrope") and isinstance(rope, dict) and "mrope_section" not in rope:
        whole = int(new * float(rope.get("partial_rotary_factor") or part.get("partial_rotary_factor") or 1)) // 2
        rope["mrope_section"] = [whole - 2 * (whole // 3), whole // 3, whole // 3]
        return
    if type(part.get("rotary_dim")) is int and part["rotary_dim"] > new:
        part["rotary_dim"] = max(2, part["rotary_dim"] * new // old // 2 * 2)
    for name in ("rope_parameters", "rope_scaling"):
        value = part.get(name)
        for each in [value, *value.values()] if isinstance(value, dict) else []:
            sections = each.get("mrope_section") if isinstance(each, dict) else None
            if isinstance(sections, list) and all(type(one) is int for one in sections):
                wanted = max(sum(sections) * new // old, len(sections))
                cut = [max(1, one * new // old) for one in sections]
                cut[-1] += wanted - sum(cut)
                each["mrope_section"] = cut


def _drop_layers(part: dict[str, Any], few: int) -> None:
    """Leave out the sizes of single layers that are cut away."""
    own = part.get("per_layer_config")
    if isinstance(own, dict):
        part["per_layer_config"] = {layer: each for layer, each in own.items() if int(layer) < few}


def _layers_of_their_own(part: dict[str, Any], head: int, heads: int, keys: int) -> None:
    """Cut the sizes that single layers have of their own (transformers' per_layer_config)."""
    own = part.get("per_layer_config")
    for each in own.values() if isinstance(own, dict) else own if isinstance(own, list) else []:
        if isinstance(each, dict):
            _limit(each, _HEAD, head)
            _limit(each, _HEADS, heads)
            _limit(each, _KEYS, keys)
            _limit(each, _INNER, 64)
            _limit(each, _EXPERT, 32)


_STATE_HEADS = (
    ("mamba_n_heads", "mamba_d_head"), ("mamba_num_heads", "mamba_head_dim"), ("n_mamba_heads", "mamba_headdim"), ("num_heads", "head_dim"),
)  # fmt: skip


def _states(part: dict[str, Any], full_width: int, width: int) -> None:
    """Cut state layers: heads x head size stays expand x hidden size if it was that before."""
    _limit(part, ("mamba_d_state", "state_size", "ssm_state_size"), 16)
    _limit(part, ("mamba_n_groups", "mamba_ngroups", "n_groups", "mamba_num_groups"), 1)
    _limit(part, ("linear_num_value_heads",), 4)
    _limit(part, ("linear_num_key_heads",), 2)
    _limit(part, ("linear_key_head_dim", "linear_value_head_dim"), 16)
    _limit(part, ("time_step_rank", "mamba_dt_rank"), 8)
    expand = next((part[name] for name in ("mamba_expand", "expand") if type(part.get(name)) is int), 2)
    for many, size in _STATE_HEADS:
        heads = part.get(many)
        if type(heads) is not int or (many == "num_heads" and "expand" not in part):
            continue
        total = part[size] * heads if type(part.get(size)) is int else None
        inner = (
            expand * width
            if total in (None, expand * full_width) or many == "num_heads"
            else max(16, int(total * width / full_width) // 16 * 16)
        )
        part[many] = 4 if inner % 4 == 0 else 2
        if size in part:
            part[size] = inner // part[many]
        if type(part.get("mamba_d_ssm")) is int:
            part["mamba_d_ssm"] = inner


def _thin(part: dict[str, Any]) -> None:
    _scale(part, 16)


def _ratio(part: dict[str, Any]) -> None:
    _scale(part, None)


def _fewer_layers(part: dict[str, Any]) -> None:
    """Keep all widths; cut the layers to as few as hold every kind, and the experts."""
    _common(part)
    types = part.get("layer_types") or part.get("layers_block_type")
    few = min(len(types), 2 + max((types.index(one) for one in set(types)), default=0)) if isinstance(types, list) else 2
    for name in _FEW:
        if type(part.get(name)) is int and part[name] > few:
            part[name] = few
    for name in ("layer_types", "layers_block_type", "mlp_layer_types", "no_rope_layers"):
        if isinstance(part.get(name), list):
            part[name] = part[name][:few]
    _drop_layers(part, few)


_CUTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "widths narrowed": _thin,
    "widths narrowed, head sizes kept": _ratio,
    "layers cut, widths kept": _fewer_layers,
}

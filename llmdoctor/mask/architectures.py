"""From config.json to the layers of a model and the pattern of each one's mask.

architectures.json is made from the installed library by conformance/make_mask_architectures.py: the backends each class supports, the
configuration defaults, and the mask factories each modeling file calls. `agree` names the model types whose plans were held against real
forwards without a difference (conformance/compare_masks.py); the others' plans are given as not exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask.factory import Pattern
from llmdoctor.modeldir import layerkinds as kinds
from llmdoctor.modeldir.layerkinds import CHUNKED, CONV, FULL, HYBRID, LINEAR, SLIDING, table

_LETTERS = {"sdpa": "s", "flash_attention_2": "f", "flex_attention": "x"}
# The words of transformers 5.23 modeling_utils.py (_sdpa_can_dispatch and its neighbours).
_REFUSALS = {
    "sdpa": "does not support an attention implementation through torch.nn.functional.scaled_dot_product_attention yet",
    "flash_attention_2": "does not support Flash Attention 2 yet",
    "flex_attention": "does not support an attention implementation through torch's flex_attention",
}
# Position ids of three rows (time, height, width); only a fourth, first row of text positions reaches the masks.
MROPE = (
    "qwen2_vl qwen2_vl_text qwen2_5_vl qwen2_5_vl_text qwen3_vl qwen3_vl_text qwen3_vl_moe qwen3_vl_moe_text qwen3_5 qwen3_5_text "
    "qwen3_5_moe qwen3_5_moe_text glm4v glm4v_text glm4v_moe glm4v_moe_text"
).split()
# The model makes blocks of token_type_ids: "window" where the sliding layers' blocks are cut by the window.
IMAGE_BLOCKS = {"gemma3": "window"}
# Measured by conformance/compare_masks.py: position_ids do not reach the flash-attention kernel.
NO_FLASH_PACKS = ("gptj", "gpt_bigcode", "zamba", "gpt_neo", "persimmon", "granitemoehybrid", "ctrl")
MROPE_EXPANDS = ("qwen3_vl_text", "qwen3_vl_moe_text", "qwen3_5_text", "qwen3_5_moe_text")  # [B, S] ids become all four rows
NO_FLASH_WINDOW = ("qwen2_moe", "phimoe")  # sliding layers that hand flash-attention no window
# Attention without the attention interface: what a layer receives is seen at the attention module.
ALIBI = ("bloom", "mpt")
BIDIRECTIONAL_TEXT = ("gemma3_text",)  # use_bidirectional_attention joins a mask of its own to the causal one (modeling_gemma3.py:536)
# Attention that no mask tells: blocks of its own (big_bird), windows kept in a buffer of the module (gpt_neo), by model type.
HIDDEN_PATTERNS = {
    "big_bird": ("attention_type", ("original_full",)), "bigbird_pegasus": ("attention_type", ("original_full",)),
    "gpt_neo": ("attention_types", ()), "nystromformer": ("segment_means_seq_len", ()),
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Layer:
    """One layer: its place, the kind its type is reported as, its mask's pattern (None: linear), and its cache's window."""

    index: int
    type: str
    pattern: Pattern | None
    cache_window: int | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Architecture:
    """A model as its masks see it.

    `layers` are those of the decoder (or of the only stack), `encoder` of the encoder, `cross` of the decoder's cross-attention. `linear`
    is "recurrent" where create_recurrent_attention_mask makes the linear layers' mask, "raw" where they get the caller's own. `doubt` says
    why a plan is not exact; it is empty where plans of such a model were held against real forwards. `two_stacks` says that the
    configuration is an encoder-decoder's, whatever stacks the class runs.
    """

    model_type: str
    class_name: str
    layers: tuple[Layer, ...]
    encoder: tuple[Layer, ...] = ()
    cross: tuple[Layer, ...] = ()
    heads: int = 1
    supports: str = ""
    linear: str = "recurrent"
    alibi: bool = False
    bias: bool = False
    doubt: str = ""
    mrope: bool = False
    expands: bool = False
    two_stacks: bool = False
    dtype: str = "float32"
    not_understood: tuple[int, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether a plan of this model is exact."""
        return not self.doubt

    def refusal(self, backend: str) -> str | None:
        """The error from_pretrained() raises for a backend that the class does not support."""
        if backend not in _LETTERS or _LETTERS[backend] in self.supports:
            return None
        return f"ValueError: {self.class_name} {_REFUSALS[backend]}"


def read(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json.

    Raises QuestionError for a model type that is not in the table, has no attention and no linear layers, or whose layers cannot be told.
    """
    known = table()
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in known["types"]:
        named = f"the model type {kind!r}" if isinstance(kind, str) else "no model_type"
        raise QuestionError(f"config.json names {named}, which is not one of the {len(known['types'])} known here: try --mode run")
    entry = known["types"][kind]
    class_name = _class_name(config, entry, known["classes"])
    text, text_kind, text_entry = _text(config, kind, entry)
    filled = kinds.filled(text, text_kind, text_entry)
    facts = _Facts(kind, text_kind, text_entry["masks"], filled, text_entry)
    supports = known["classes"].get(class_name, "")
    if text_kind != kind:  # both the whole and the text model in it must support a backend
        inner = known["classes"].get(text_entry["class"], supports)
        supports = "".join(letter for letter in supports if letter in inner)
    base: dict[str, Any] = {
        "heads": _count(filled.get("num_attention_heads"), 1), "supports": supports, "mrope": text_kind in MROPE,
        "expands": text_kind in MROPE_EXPANDS,
        "doubt": _doubt(facts, class_name, kind in known["agree"]), "dtype": _dtype(config, text),
    }  # fmt: skip
    if filled.get("is_encoder_decoder"):
        return _encoder_decoder(facts, class_name, base)
    return _single(facts, class_name, base)


def _doubt(facts: _Facts, class_name: str, agrees: bool) -> str:
    """Why the plan is not exact: a type that no run confirmed, or a field or class that none of the runs had."""
    if not agrees:
        return f"{facts.kind} has not been held against a real forward: the plan follows its modeling file"
    field, known = HIDDEN_PATTERNS.get(facts.text_kind, ("", ()))
    if field and facts.config.get(field) not in known:
        return f"{facts.text_kind} with {field} {facts.config.get(field)!r} hides keys by itself, and not by a mask that could be told"
    both = facts.config.get("use_bidirectional_attention")
    if both and both != facts.entry["defaults"].get("use_bidirectional_attention") and facts.kind not in BIDIRECTIONAL_TEXT:
        return f"{facts.kind} with use_bidirectional_attention {both!r} has not been held against a real forward"
    if facts.config.get("is_encoder_decoder") and not class_name.endswith((*_BOTH_STACKS, *_ENCODER, *_DECODER)):
        return f"{class_name} has not been held against a real forward: the plan is that of {facts.entry['class']}"
    return ""


# Heads of encoder-decoders by the stacks that they run.
_BOTH_STACKS, _ENCODER, _DECODER = ("ForConditionalGeneration", "MTModel", "Model"), ("EncoderModel",), ("ForCausalLM",)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Facts:
    kind: str
    text_kind: str
    masks: list[str]
    config: Mapping[str, Any]
    entry: Mapping[str, Any]

    def calls(self, name: str) -> list[str]:
        return [call for call in self.masks if call.startswith(f"{name}(")]


def _class_name(config: Mapping[str, Any], entry: Mapping[str, Any], classes: Mapping[str, str]) -> str:
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    return first if first in classes else str(entry["class"])


def _text(config: Mapping[str, Any], kind: str, entry: Mapping[str, Any]) -> tuple[Mapping[str, Any], str, Mapping[str, Any]]:
    """The text config (get_text_config), its model type and table entry; a composite written flat, as Qwen2-VL once was, is its own."""
    if "text" not in entry:
        return config, kind, entry
    key, text_kind = entry["text"]
    nested = config.get(key)
    text = nested if isinstance(nested, dict) else config
    named = text.get("model_type") if isinstance(nested, dict) else None
    types = table()["types"]
    if isinstance(named, str) and named in types:
        text_kind = named
    if text_kind not in types:
        raise QuestionError(f"config.json: the text model {text_kind!r} of {kind} is not one of those known here: try --mode run")
    return text, text_kind, types[text_kind]


def _count(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    named = next((source[name] for source in (config, text) for name in ("dtype", "torch_dtype") if source.get(name)), "float32")
    return named.removeprefix("torch.") if isinstance(named, str) else "float32"


def _single(facts: _Facts, class_name: str, base: dict[str, Any]) -> Architecture:
    """A decoder, an encoder, or a stack of linear layers."""
    if not facts.masks or facts.masks == ["no interface"]:
        rule = kinds.LAYER_RULES.get(facts.text_kind)
        if rule not in ("linear", "window_if_set"):
            raise QuestionError(f"config.json: a {facts.kind} model has no attention masks of the kind known here")
    causal = [*facts.calls("causal_mask"), *facts.calls("sliding_window_causal_mask"), *facts.calls("recurrent_attention_mask")]
    named = kinds.LAYER_RULES.get(facts.text_kind)
    is_encoder = not named and (not causal or (facts.calls("bidirectional_mask") and facts.config.get("is_decoder") is False))
    is_encoder = is_encoder or (not causal and bool(facts.calls("bidirectional_sliding_window_mask")))
    if is_encoder:
        return Architecture(facts.kind, class_name, (), _encoder_layers(facts), **base)
    types = _types(facts)
    made, unknown = _layers(facts, types)
    linear = "recurrent" if facts.calls("recurrent_attention_mask") else "raw"
    alibi = facts.text_kind in ALIBI or (facts.text_kind == "falcon" and bool(facts.config.get("alibi")))
    return Architecture(facts.kind, class_name, made, linear=linear, alibi=alibi, not_understood=unknown, **base)


def _encoder_layers(facts: _Facts) -> tuple[Layer, ...]:
    """Every layer sees everything, or, where the file makes windows for both sides (ModernBERT), what lies in its window."""
    whole = Pattern("bidirectional", packs=False)
    if not facts.calls("bidirectional_sliding_window_mask"):
        return tuple(Layer(index, "encoder", whole) for index in range(kinds.layer_count(facts.config)))
    size = kinds.window_of(facts.config)
    if size is None:
        raise QuestionError(f"config.json: {facts.text_kind} has windows, and none of a known name")
    window = Pattern("bidirectional", local="window", size=size, packs=False)
    return tuple(Layer(index, "encoder", window if name == SLIDING else whole) for index, name in enumerate(_types(facts)))


def _types(facts: _Facts) -> tuple[str, ...]:
    rule = kinds.LAYER_RULES.get(facts.text_kind)
    if rule is None:
        given = facts.config.get("layer_types")
        rule = "full" if not facts.entry.get("typed") or not given else "given"
        if facts.entry.get("typed") and not given:
            raise QuestionError(
                f"config.json names no layer_types, and the rule by which transformers derives those of {facts.text_kind} is not known here: "
                "save the config with transformers 5, which writes them out, or use --mode run"
            )
    found = kinds.layer_types(facts.text_kind, facts.config, rule)
    if found is None:
        raise QuestionError(f"config.json: the layer types of {facts.text_kind} cannot be told")
    return found


def _layers(facts: _Facts, types: tuple[str, ...]) -> tuple[tuple[Layer, ...], tuple[int, ...]]:
    made: list[Layer] = []
    unknown: list[int] = []
    for index, name in enumerate(types):
        if name in (LINEAR, CONV, HYBRID):
            made.append(Layer(index, "linear", None))
        if name in (FULL, SLIDING, CHUNKED, HYBRID):
            kind = FULL if name == HYBRID else name
            pattern = _pattern(facts, kind)
            made.append(Layer(index, kind, pattern, pattern.width if pattern.local is not None else None))
        elif name not in (LINEAR, CONV, "moe", "mlp"):
            unknown.append(index)
    return tuple(made), tuple(unknown)


def _pattern(facts: _Facts, kind: str) -> Pattern:
    calls = facts.calls("causal_mask") + facts.calls("sliding_window_causal_mask") + facts.calls("chunked_causal_mask")
    told = facts.config.get("is_causal") is not False  # else the factories make a bidirectional mask, which knows of no documents
    joined = facts.kind in BIDIRECTIONAL_TEXT and bool(facts.config.get("use_bidirectional_attention"))
    packs = told and (not calls or any("position_ids" in call for call in calls))
    skips = not joined and not any("allow_is_causal_skip" in call for call in facts.calls("causal_mask"))
    base = "causal" if told and not joined else "bidirectional"
    blocks = IMAGE_BLOCKS.get(facts.kind)
    common: dict[str, Any] = {
        "base": base, "packs": packs, "skips": skips, "blocks": blocks,
        "flash_packs": facts.text_kind not in NO_FLASH_PACKS, "flash_window": facts.text_kind not in NO_FLASH_WINDOW,
    }  # fmt: skip
    if kind == SLIDING:
        size = kinds.window_of(facts.config)
        if size is None:
            raise QuestionError(f"config.json: {facts.text_kind} has sliding layers and no sliding_window")
        # configuration_gemma3.py:103 halves the window; its overlay leaves out the distance of a whole one
        return Pattern(local="window", size=size // 2 if joined else size, **common)
    if kind == CHUNKED:
        size = facts.config.get("attention_chunk_size")
        if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= kinds.MAX_WINDOW:
            raise QuestionError(f"config.json: attention_chunk_size is {size!r}, expected an integer from 1 to {kinds.MAX_WINDOW}")
        return Pattern(local="chunk", size=size, **common)
    return Pattern(**common)


def _encoder_decoder(facts: _Facts, class_name: str, base: dict[str, Any]) -> Architecture:
    """T5, BART and their kin: an encoder, and a decoder with self- and cross-attention, each numbered from 0."""
    config = facts.config
    encoder = _count(config.get("encoder_layers") or config.get("num_hidden_layers"), 0)
    decoder = _count(config.get("decoder_layers") or config.get("num_decoder_layers"), 0) or encoder
    if not 0 < encoder <= kinds.MAX_LAYERS or not 0 < decoder <= kinds.MAX_LAYERS:
        raise QuestionError(f"config.json: the number of layers of {facts.kind} cannot be told")
    both = Pattern("bidirectional", packs=False)
    own = tuple(Layer(index, FULL, Pattern(packs=False)) for index in range(decoder))
    read = tuple(Layer(index, "encoder", both) for index in range(encoder))
    cross = tuple(Layer(index, "cross", both) for index in range(decoder))
    if class_name.endswith(_ENCODER):
        own, cross = (), ()
    elif class_name.endswith(_DECODER):  # without encoder_hidden_states its cross-attention is left out
        read, cross = (), ()
    return Architecture(facts.kind, class_name, own, read, cross, bias="t5" in facts.kind, two_stacks=True, **base)

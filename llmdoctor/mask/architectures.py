"""From config.json to the layers of a model and the pattern of each one's mask.

modeldir/architectures.json is made from the installed library by conformance/make_mask_architectures.py: the backends each class supports, the
defaults of the configuration, and the mask factories each modeling file calls. modeldir/traits.json holds what a modeling file does besides. `agree`
names the model types whose plans agreed with real forwards in all cases (conformance/compare_masks.py); the others' plans are not exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask import releases
from llmdoctor.mask.calls import BlockRule, MaskPattern
from llmdoctor.modeldir import layerkinds as kinds
from llmdoctor.modeldir.layerkinds import CHUNKED, CONV, FULL, HYBRID, INDEXED, LINEAR, SLIDING, table

_LETTERS = {"sdpa": "s", "flash_attention_2": "f", "flex_attention": "x"}
# The words of transformers 5.23 modeling_utils.py (_sdpa_can_dispatch and its neighbours).
_REFUSALS = {
    "sdpa": "does not support an attention implementation through torch.nn.functional.scaled_dot_product_attention yet",
    "flash_attention_2": "does not support Flash Attention 2 yet",
    "flex_attention": "does not support an attention implementation through torch's flex_attention",
}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ModelLayer:
    """One layer: its place, the kind its type is reported as, its mask's pattern (None: linear), and its cache's window."""

    index: int
    type: str
    pattern: MaskPattern | None
    cache_window: int | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Architecture:
    """The layers of a model and what their masks depend on.

    `layers` are those of the decoder (or of the only stack), `encoder` of the encoder, `cross` of the decoder's cross-attention. `linear`
    is "recurrent" if create_recurrent_attention_mask makes the linear layers' mask, "raw" if they receive the caller's own. `doubt` is the
    reason why a plan is not exact, empty if plans of such a model agreed with real forwards. `two_stacks` is True for the configuration of an
    encoder-decoder, whatever stacks the class runs. `takes` are the arguments of the class's forward(), empty if they are not known.
    `refusing` maps the letter of a backend to the class of a vision or audio tower that refuses it, and with it the whole model. `raises` is the error
    of every forward() of such a configuration, empty if there is none. `longest` is the number of learned positions, None if it sets no limit or is not
    known.
    """

    model_type: str
    class_name: str
    layers: tuple[ModelLayer, ...]
    encoder: tuple[ModelLayer, ...] = ()
    cross: tuple[ModelLayer, ...] = ()
    heads: int = 1
    supports: str = ""
    linear: str = "recurrent"
    alibi: bool = False
    bias: bool = False
    doubt: str = ""
    traits: Mapping[str, Any] = field(default_factory=dict)
    two_stacks: bool = False
    dtype: str = "float32"
    not_understood: tuple[int, ...] = ()
    takes: tuple[str, ...] = ()
    refusing: Mapping[str, str] = field(default_factory=dict)
    raises: str = ""
    longest: int | None = None

    @property
    def mrope(self) -> bool:
        """Whether position ids have three rows (time, height, width)."""
        return bool(self.traits.get("mrope"))

    @property
    def verified(self) -> bool:
        """Whether a plan of this model is exact."""
        return not self.doubt

    def refusal(self, backend: str) -> str | None:
        """The error from_pretrained() raises for a backend that the class does not support."""
        if backend not in _LETTERS:
            return None
        if _LETTERS[backend] not in self.supports:
            return f"ValueError: {self.class_name} {_REFUSALS[backend]}"
        tower = self.refusing.get(_LETTERS[backend])
        return None if tower is None else f"ValueError: {tower} {_REFUSALS[backend]}"


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
    for name, value in kinds.traits(kind).get("text_defaults", {}).items():
        filled[name] = value if filled.get(name) is None else filled[name]
    if not filled.get("is_encoder_decoder") and class_name.endswith(_DECODER) and filled.get("decoder_layers"):
        filled["num_hidden_layers"] = filled["decoder_layers"]  # num_hidden_layers of BART and relatives is that of the encoder
    facts = _Facts(kind, text_kind, text_entry["masks"], filled, text_entry)
    supports = known["classes"].get(class_name, "")
    if text_kind != kind:  # both the whole and the text model in it must support a backend
        inner = known["classes"].get(text_entry["class"], supports)
        supports = "".join(letter for letter in supports if letter in inner)
    base: dict[str, Any] = {
        "heads": _count(filled.get("num_attention_heads"), 1), "supports": supports, "traits": facts.traits, "takes": tuple(entry.get("takes", ())),
        "refusing": _refusing_towers(config, known),
        "doubt": _doubt(facts, class_name, kind in known["agree"]), "dtype": _dtype(config, text), "longest": _longest(facts),
    }  # fmt: skip
    if filled.get("is_encoder_decoder"):
        return _encoder_decoder(facts, class_name, base)
    if facts.traits.get("nested_stacks"):
        return _nested_stacks(facts, config.get("encoder"), class_name, base)
    return _single(facts, class_name, {**base, "two_stacks": bool(entry["defaults"].get("is_encoder_decoder"))})


def _longest(facts: _Facts) -> int | None:
    """Return the rows of the table of learned positions that forward() counts from the first column (n_positions of GPT-2 and relatives)."""
    if not facts.text_traits.get("absolute"):
        return None
    return next(
        (value for name in ("n_positions", "max_position_embeddings") if type(value := facts.config.get(name)) is int and value > 0), None
    )


def _refusing_towers(config: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, str]:
    """Return, by the letter of flash_attention_2 and flex_attention, the class of a tower of the configuration that does not support it."""
    found: dict[str, str] = {}
    for key, tower in config.items():
        kind = tower.get("model_type") if key.endswith("_config") and isinstance(tower, dict) else None
        if not isinstance(kind, str) or not any(word in key for word in ("vision", "audio")) or kind not in known["types"]:
            continue
        name = str(known["types"][kind]["class"])
        for letter in ("f", "x"):
            if name in known["classes"] and letter not in known["classes"][name]:
                found.setdefault(letter, name)
    return found


def _doubt(facts: _Facts, class_name: str, agrees: bool) -> str:
    """Why the plan is not exact: a type that no run confirmed, or a field or class that none of the runs had."""
    other = releases.doubt(facts.kind)
    if other:
        return other
    if facts.unread_types:
        return f"the layers of {facts.text_kind} do not follow layer_types, which config.json gives, and its cache does"
    if not agrees:
        return f"{facts.kind} has not been held against a real forward: the plan follows its modeling file"
    own = facts.traits.get("own_pattern")
    if own is not None and facts.config.get(own["field"]) not in own["modelled"]:
        return f"{facts.text_kind} with {own['field']} {facts.config.get(own['field'])!r} hides keys inside the layer, not by a mask"
    both = facts.config.get("use_bidirectional_attention")
    modelled = facts.traits.get("joins_bidirectional") or facts.text_traits.get("flag_field") or "if" in facts.traits.get("blocks", {})
    if both and both != facts.entry["defaults"].get("use_bidirectional_attention") and not modelled:
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

    @property
    def text_traits(self) -> Mapping[str, Any]:
        """Return the traits of the text model alone."""
        return kinds.traits(self.text_kind)

    @property
    def traits(self) -> Mapping[str, Any]:
        """Return the traits of the text model and, before them, of the model around it."""
        return {**kinds.traits(self.text_kind), **kinds.traits(self.kind)}

    @property
    def reads_types(self) -> bool:
        """Return whether the configuration class has a field for the list layer_types, under this name or its own."""
        return bool(self.entry.get("typed")) or "layer_types" in self.entry.get("names", {})

    @property
    def unread_types(self) -> bool:
        """Return whether config.json gives a layer_types that the layers do not follow: DynamicCache and StaticCache do."""
        given = self.config.get("layer_types")
        return isinstance(given, list) and not self.reads_types and any(one != FULL for one in given)

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
        rule = kinds.layer_rule(facts.text_kind)
        if rule not in ("linear", "window_if_set"):
            raise QuestionError(f"config.json: a {facts.kind} model has no attention masks of the kind known here")
    causal = [*facts.calls("causal_mask"), *facts.calls("sliding_window_causal_mask"), *facts.calls("recurrent_attention_mask")]
    named = kinds.layer_rule(facts.text_kind)
    is_encoder = not named and (not causal or (facts.calls("bidirectional_mask") and facts.config.get("is_decoder") is False))
    is_encoder = is_encoder or (not causal and bool(facts.calls("bidirectional_sliding_window_mask")))
    if is_encoder:
        return Architecture(facts.kind, class_name, (), _encoder_layers(facts), **base)
    types = _types(facts)
    made, unknown = _layers(facts, types)
    linear = "recurrent" if facts.calls("recurrent_attention_mask") else "raw"
    switch = facts.text_traits.get("alibi_field")
    alibi = bool(facts.text_traits.get("alibi")) or (switch is not None and bool(facts.config.get(switch)))
    unset = (
        facts.calls("chunked_causal_mask") and facts.config.get("attention_chunk_size") is None
    )  # the mask is made whatever the layers are
    return Architecture(
        facts.kind, class_name, made, linear=linear, alibi=alibi, not_understood=unknown, raises=_UNSET_CHUNK if unset else "", **base
    )


_UNSET_CHUNK = "ValueError: Could not find an `attention_chunk_size` argument in the config, or it is not set"  # masking_utils.py


def _encoder_layers(facts: _Facts) -> tuple[ModelLayer, ...]:
    """Every layer sees everything, or, where the file makes windows for both sides (ModernBERT), what lies in its window."""
    reaches = facts.text_traits.get("flash_packs", True)
    whole = MaskPattern("bidirectional", packs=False, flash_packs=reaches)
    if not facts.calls("bidirectional_sliding_window_mask"):
        return tuple(ModelLayer(index, "encoder", whole) for index in range(kinds.layer_count(facts.config)))
    size = kinds.window_of(facts.config)
    if size is None:
        raise QuestionError(f"config.json: {facts.text_kind} has windows, and none of a known name")
    window = MaskPattern("bidirectional", local="window", size=size, packs=False, flash_packs=reaches)
    return tuple(ModelLayer(index, "encoder", window if name == SLIDING else whole) for index, name in enumerate(_types(facts)))


def _types(facts: _Facts) -> tuple[str, ...]:
    rule = kinds.layer_rule(facts.text_kind)
    if rule is None:
        given = facts.config.get("layer_types")
        rule = "full" if not facts.entry.get("typed") or not given else "given"
        default = facts.entry.get("default_types")
        if (
            facts.entry.get("typed")
            and not given
            and default
            and len(default) == kinds.layer_count({"num_hidden_layers": len(default), **facts.config})
        ):
            return tuple(default)  # as many layers as the class's own default, and its kinds
        if facts.entry.get("typed") and not given:
            raise QuestionError(
                f"config.json names no layer_types, and the rule by which transformers derives those of {facts.text_kind} is not known here: "
                "save the config with transformers 5, which writes them out, or use --mode run"
            )
    config = facts.config if facts.reads_types else {name: value for name, value in facts.config.items() if name != "layer_types"}
    found = kinds.layer_types(facts.text_kind, config, rule)
    if found is None:
        raise QuestionError(f"config.json: the layer types of {facts.text_kind} cannot be told")
    return found


def _layers(facts: _Facts, types: tuple[str, ...]) -> tuple[tuple[ModelLayer, ...], tuple[int, ...]]:
    made: list[ModelLayer] = []
    unknown: list[int] = []
    reads_image = facts.config.get("cross_attention_layers")  # Mllama: such a layer attends to an image alone, and is left out without one
    images = {one for one in reads_image if type(one) is int} if isinstance(reads_image, list) else set()
    for index, name in enumerate(types):
        if index in images:
            unknown.append(index)
            continue
        if name in (LINEAR, CONV, HYBRID):
            made.append(ModelLayer(index, "linear", None))
        if name == INDEXED and _count(facts.config.get("index_topk"), 0):
            made.append(
                ModelLayer(index, name, replace(_pattern(facts, FULL), topk=_count(facts.config.get("index_topk"), 0), skips=False))
            )
        elif name in (FULL, SLIDING, CHUNKED, HYBRID):
            kind = FULL if name == HYBRID else name
            pattern = _pattern(facts, kind)
            made.append(ModelLayer(index, kind, pattern, pattern.width if pattern.local is not None else None))
        elif name not in (LINEAR, CONV, "moe", "mlp"):
            unknown.append(index)
    return tuple(made), tuple(unknown)


def _pattern(facts: _Facts, kind: str) -> MaskPattern:
    calls = facts.calls("causal_mask") + facts.calls("sliding_window_causal_mask") + facts.calls("chunked_causal_mask")
    is_causal = facts.config.get("is_causal") is not False  # else the factories make a bidirectional mask, which knows of no documents
    joined = bool(facts.traits.get("joins_bidirectional")) and bool(facts.config.get("use_bidirectional_attention"))
    packs = is_causal and (not calls or any("position_ids" in call for call in calls))
    skips = not joined and not any("allow_is_causal_skip" in call for call in facts.calls("causal_mask"))
    base = "causal" if is_causal and not joined else "bidirectional"
    common: dict[str, Any] = {
        "base": base, "packs": packs, "skips": skips, "blocks": _blocks(facts, kind), "flag": _flag(facts),
        "flash_packs": facts.text_traits.get("flash_packs", True), "flash_window": facts.text_traits.get("flash_window", True),
    }  # fmt: skip
    if kind == SLIDING:
        size = kinds.window_of(facts.config)
        if size is None:
            raise QuestionError(f"config.json: {facts.text_kind} has sliding layers and no sliding_window")
        # configuration_gemma3.py:103 halves the window; its overlay leaves out the distance of a whole one
        return MaskPattern(local="window", size=size // 2 if joined else size, **common)
    if kind == CHUNKED:
        size = facts.config.get("attention_chunk_size")
        if size is None:
            return MaskPattern(**common)
        if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= kinds.MAX_WINDOW:
            raise QuestionError(f"config.json: attention_chunk_size is {size!r}, expected an integer from 1 to {kinds.MAX_WINDOW}")
        return MaskPattern(local="chunk", size=size, **common)
    return MaskPattern(**common)


def _blocks(facts: _Facts, kind: str) -> BlockRule | None:
    """Return the blocks that layers of this kind make, if the configuration turns them on."""
    marks = facts.traits.get("blocks")
    if marks is None or kind not in marks.get("layers", (kind,)):
        return None
    if "if" in marks and facts.config.get(marks["if"][0]) != marks["if"][1]:
        return None
    return BlockRule(marks["field"], tuple(marks["values"]), marks["each_run"], marks["inside_window"], bool(marks.get("always")))


def _flag(facts: _Facts) -> bool:
    """Return whether the attention modules tell their kernel that they are causal."""
    name = facts.text_traits.get("flag_field")
    return name is None or not facts.config.get(name)


def _encoder_decoder(facts: _Facts, class_name: str, base: dict[str, Any]) -> Architecture:
    """T5, BART and their kin: an encoder, and a decoder with self- and cross-attention, each numbered from 0."""
    config = facts.config
    encoder = _count(config.get("encoder_layers") or config.get("num_hidden_layers"), 0)
    decoder = _count(config.get("decoder_layers") or config.get("num_decoder_layers"), 0) or encoder
    if not 0 < encoder <= kinds.MAX_LAYERS or not 0 < decoder <= kinds.MAX_LAYERS:
        raise QuestionError(f"config.json: the number of layers of {facts.kind} cannot be told")
    both = MaskPattern("bidirectional", packs=False)
    own = tuple(ModelLayer(index, FULL, MaskPattern(packs=False)) for index in range(decoder))
    read = tuple(ModelLayer(index, "encoder", both) for index in range(encoder))
    cross = tuple(ModelLayer(index, "cross", both) for index in range(decoder))
    if class_name.endswith(_ENCODER):
        own, cross = (), ()
    elif class_name.endswith(_DECODER):  # without encoder_hidden_states its cross-attention is left out
        read, cross = (), ()
    return Architecture(facts.kind, class_name, own, read, cross, bias=bool(facts.traits.get("position_bias")), two_stacks=True, **base)


def _nested_stacks(facts: _Facts, nested: Any, class_name: str, base: dict[str, Any]) -> Architecture:
    """T5Gemma: each stack has a configuration of its own, with windows; cross-attention has none (modeling_t5gemma.py)."""
    read = replace(facts, config=kinds.filled(nested if isinstance(nested, dict) else {}, facts.text_kind, facts.entry))
    decoder, _ = _layers(facts, _types(facts))
    both = MaskPattern("bidirectional", packs=False)
    size = kinds.window_of(read.config)
    window = both if size is None else replace(both, local="window", size=size, kernel_size=size)
    encoder = tuple(ModelLayer(index, "encoder", window if name == SLIDING else both) for index, name in enumerate(_types(read)))
    cross = tuple(ModelLayer(layer.index, "cross", both) for layer in decoder)
    if class_name.endswith(_ENCODER):
        decoder, cross = (), ()
    return Architecture(facts.kind, class_name, decoder, encoder, cross, two_stacks=True, **base)

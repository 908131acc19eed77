"""A Qwen2-VL of 0.2 million parameters: a real directory that the real loading code loads, and a model that ends its turn.

The files have the layout of the published Qwen2-VL directories (flat config.json, hub weight names, chat_template.json), so every
transformers from 4.45 on reads them. The weights are random, except that a chain of words is written into the embeddings and the output
layer: after the assistant's header comes a short sentence, then <|im_end|>. As real models do, it goes on if nobody stops it:
<|im_end|> is followed by a new line or <|endoftext|>, and either starts the next sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmdoctor.core.errors import MissingExtra

if TYPE_CHECKING:
    import numpy as np

    Weights = dict[str, np.ndarray[Any, np.dtype[np.float32]]]

# The names and the order of Qwen2-VL's special tokens; the published ids are 151643 to 151656.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
END_OF_TEXT, TURN_START, TURN_END = SPECIAL_TOKENS[:3]

# The answer that the model writes: one word for each position, in order. No word is in two positions.
SENTENCE = (
    ("The",),
    (" picture",),
    (" shows",),
    (" one",),
    (" small", " big", " round"),
    (" red",),
    (" shape",),
    (" on",),
    (" white",),
    (".",),
)
SYSTEM = "You are a helpful assistant."
PROMPT = "Describe this image."

WIDTH, LAYERS, HEADS, KEY_VALUE_HEADS, INTERMEDIATE = 64, 2, 4, 2, 128
VISION = {"depth": 2, "embed_dim": 32, "mlp_ratio": 2, "num_heads": 2, "hidden_size": WIDTH}
PATCH, TEMPORAL_PATCH, MERGE = 14, 2, 2
MIN_PIXELS, MAX_PIXELS = 4 * 28 * 28, 16 * 28 * 28
LENGTH = 2048
# The lead, in nats, that a word of the chain has over everything else: at temperature 1 another one comes once in 10**14 tokens.
LEAD = 40.0

CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Qwen2's pre-tokenizer (transformers/convert_slow_tokenizer.py, Qwen2Converter).
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def build(path: Path, *, seed: int = 0) -> Path:
    """Write the directory at `path` (made where it is not there) and return it: about 1 MB, below a second.

    The same `seed` gives the same bytes. Raises MissingExtra if tokenizers, safetensors or numpy are not installed.
    """
    path.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(path)
    ids = {token: vocabulary[token] for token in SPECIAL_TOKENS}
    size = max(vocabulary.values()) + 1
    _write_json(path / "config.json", _config(ids, size))
    _write_json(path / "generation_config.json", _generation_config(ids))
    _write_json(path / "preprocessor_config.json", _preprocessor_config())
    _write_json(path / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    _write_weights(path / "model.safetensors", _weights(vocabulary, size, seed))
    return path


# --- tokenizer --------------------------------------------------------------------------------------------------------------------


def _write_tokenizer(path: Path) -> dict[str, int]:
    """Train a byte-level BPE on the words that occur here, save it as Qwen2 does, and return its vocabulary."""
    try:
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    except ImportError:
        raise MissingExtra("the tiny Qwen2-VL", "tokenizers", "live") from None
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=512, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.save(str(path / "tokenizer.json"))
    vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    model = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    _write_json(path / "vocab.json", model["vocab"], indent=None)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    _write_json(path / "tokenizer_config.json", _tokenizer_config(vocabulary))
    return vocabulary


def _corpus() -> Iterator[str]:
    """Every word that shall be one token, often enough to be merged."""
    words = [word for place in SENTENCE for word in place]
    roles = ["system", "user", "assistant"]
    for text in [SYSTEM, PROMPT, *roles, *words, "".join(place[0] for place in SENTENCE)]:
        yield from [text] * 20


def _tokenizer_config(vocabulary: Mapping[str, int]) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(vocabulary[token]): {"content": token, **flags} for token in SPECIAL_TOKENS},
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": TURN_END,
        "padding_side": "left",
        "errors": "replace",
        "model_max_length": LENGTH,
        "pad_token": END_OF_TEXT,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


# --- the JSON files ---------------------------------------------------------------------------------------------------------------


def _config(ids: Mapping[str, int], vocab_size: int) -> dict[str, Any]:
    half = WIDTH // HEADS // 2
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": ids[END_OF_TEXT],
        "eos_token_id": ids[TURN_END],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": LENGTH,
        "max_window_layers": LAYERS,
        "model_type": "qwen2_vl",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": LENGTH,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.41.2",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            **VISION,
            "in_chans": 3,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "spatial_patch_size": PATCH,
            "temporal_patch_size": TEMPORAL_PATCH,
        },
        # Time, height and width share the rotary half as 16:24:24 in the published models.
        "rope_scaling": {"type": "mrope", "mrope_section": [half // 4, half * 3 // 8, half * 3 // 8]},
        "vocab_size": vocab_size,
    }


def _generation_config(ids: Mapping[str, int]) -> dict[str, Any]:
    """The published values and order; only the ids are this vocabulary's. eos_token_id starts on line 5."""
    return {
        "bos_token_id": ids[END_OF_TEXT],
        "pad_token_id": ids[END_OF_TEXT],
        "do_sample": True,
        "eos_token_id": [ids[TURN_END], ids[END_OF_TEXT]],
        "repetition_penalty": 1.0,
        "temperature": 0.01,
        "top_p": 0.001,
        "top_k": 1,
        "transformers_version": "4.37.0",
    }


def _preprocessor_config() -> dict[str, Any]:
    return {
        "min_pixels": MIN_PIXELS,
        "max_pixels": MAX_PIXELS,
        "patch_size": PATCH,
        "temporal_patch_size": TEMPORAL_PATCH,
        "merge_size": MERGE,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
    }


def _write_json(path: Path, value: Mapping[str, Any], indent: int | None = 2) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


# --- weights ----------------------------------------------------------------------------------------------------------------------


def _weights(vocabulary: Mapping[str, int], size: int, seed: int) -> Weights:
    """Random weights under the names of the published checkpoints, with the chain of words written into two of them."""
    try:
        import numpy as np
    except ImportError:
        raise MissingExtra("the tiny Qwen2-VL", "numpy", "live") from None
    random = np.random.default_rng(seed)
    weights: Weights = {}
    for name, shape, scale in (*_text_shapes(size), *_vision_shapes()):
        weights[name] = np.ones(shape, np.float32) if scale is None else random.normal(0, scale, shape).astype(np.float32)
        if name.endswith(".bias"):
            weights[name][:] = 0
    _teach(weights["model.embed_tokens.weight"], weights["lm_head.weight"], _chain(vocabulary))
    return weights


def _teach(embedding: Any, head: Any, chain: Mapping[int, Sequence[int]]) -> None:
    """Write `chain`, token -> the tokens that may follow it, into `embedding` and `head`, both [vocabulary, HIDDEN], in place.

    Each token of the chain gets a direction of the hidden space for itself. The layers add little to the residual stream, so the final
    norm makes that direction sqrt(HIDDEN) long; the rows of what follows answer to it with LEAD nats.
    """
    width = len(chain)
    embedding[:, :width] = 0
    head[:, :width] = 0
    for direction, (token, following) in enumerate(chain.items()):
        embedding[token] = 0
        embedding[token, direction] = 1
        head[list(following), direction] = LEAD / WIDTH**0.5


def _chain(vocabulary: Mapping[str, int]) -> dict[int, list[int]]:
    """Which token follows which: new line, the sentence, <|im_end|>, and on from there."""
    places = [[vocabulary[_byte_level(word)] for word in place] for place in SENTENCE]
    line, end, text = vocabulary["Ċ"], vocabulary[TURN_END], vocabulary[END_OF_TEXT]
    steps: list[list[int]] = [[line], *places, [end]]
    chain = {token: following for place, following in pairwise(steps) for token in place}
    return {**chain, end: [line, text], text: [line]}


def _byte_level(word: str) -> str:
    """As a byte-level vocabulary spells it: a space is Ġ."""
    return word.replace(" ", "Ġ")


def _text_shapes(vocab_size: int) -> Iterable[tuple[str, tuple[int, ...], float | None]]:
    """(name, shape, standard deviation; None: ones). The layers' outputs are small: they disturb the chain, they do not drown it."""
    head = WIDTH // HEADS
    yield "model.embed_tokens.weight", (vocab_size, WIDTH), 0.1
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for name, rows in (("q", HEADS * head), ("k", KEY_VALUE_HEADS * head), ("v", KEY_VALUE_HEADS * head)):
            yield f"{prefix}.self_attn.{name}_proj.weight", (rows, WIDTH), 0.02
            yield f"{prefix}.self_attn.{name}_proj.bias", (rows,), 0.02
        yield f"{prefix}.self_attn.o_proj.weight", (WIDTH, HEADS * head), 0.005
        yield f"{prefix}.mlp.gate_proj.weight", (INTERMEDIATE, WIDTH), 0.02
        yield f"{prefix}.mlp.up_proj.weight", (INTERMEDIATE, WIDTH), 0.02
        yield f"{prefix}.mlp.down_proj.weight", (WIDTH, INTERMEDIATE), 0.005
        yield f"{prefix}.input_layernorm.weight", (WIDTH,), None
        yield f"{prefix}.post_attention_layernorm.weight", (WIDTH,), None
    yield "model.norm.weight", (WIDTH,), None
    yield "lm_head.weight", (vocab_size, WIDTH), 0.02


def _vision_shapes() -> Iterable[tuple[str, tuple[int, ...], float | None]]:
    width, merged = VISION["embed_dim"], VISION["embed_dim"] * MERGE**2
    inner = width * VISION["mlp_ratio"]
    yield "visual.patch_embed.proj.weight", (width, 3, TEMPORAL_PATCH, PATCH, PATCH), 0.02
    for block in range(VISION["depth"]):
        prefix = f"visual.blocks.{block}"
        for name, rows, columns in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", inner, width),
            ("mlp.fc2", width, inner),
        ):
            yield f"{prefix}.{name}.weight", (rows, columns), 0.02
            yield f"{prefix}.{name}.bias", (rows,), 0.02
        for norm in ("norm1", "norm2"):
            yield f"{prefix}.{norm}.weight", (width,), None
            yield f"{prefix}.{norm}.bias", (width,), None
    yield "visual.merger.ln_q.weight", (width,), None
    yield "visual.merger.ln_q.bias", (width,), None
    for name, rows, columns in (("0", merged, merged), ("2", WIDTH, merged)):
        yield f"visual.merger.mlp.{name}.weight", (rows, columns), 0.02
        yield f"visual.merger.mlp.{name}.bias", (rows,), 0.02


def _write_weights(path: Path, weights: Weights) -> None:
    try:
        from safetensors.numpy import save_file
    except ImportError:
        raise MissingExtra("the tiny Qwen2-VL", "safetensors", "live") from None
    save_file(weights, str(path), metadata={"format": "pt"})

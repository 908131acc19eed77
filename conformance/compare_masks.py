"""Hold every plan against a real forward: `python conformance/compare_masks.py [TYPE...] [--write]`.

For each model type of llmdoctor/modeldir/architectures.json that has a class for language modelling, a tiny random model is built from its
configuration class, and each case is run under each backend with hooks. A type agrees when every layer's object, bytes, kernel arguments,
keys and visible pairs, and every refusal, are those of the plan. `--write` writes the types that agree into architectures.json.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import logging
import os
import resource
import sys
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
sys.path.insert(0, str(Path(__file__).parent.parent))

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask import architectures
from llmdoctor.mask.forward_inputs import forward_inputs
from llmdoctor.mask.options import MaskOptions
from llmdoctor.mask.plan import plan
from llmdoctor.mask.types import BACKENDS, BackendPlan
from llmdoctor.modeldir import layerkinds

TARGET = Path(__file__).parent.parent / "llmdoctor" / "modeldir" / "architectures.json"
CASES: dict[str, dict[str, Any]] = {
    "plain": {"shape": "2,8"},
    "left": {"lengths": "5,8"},
    "right": {"lengths": "5,8", "pad": "right"},
    "packed": {"packed": "3,5"},
    "packed cache": {"packed": "3,5", "cache": "dynamic"},
    "decode": {"lengths": "5,8", "phase": "decode"},
    "decode plain": {"shape": "2,8", "phase": "decode"},
    "static": {"lengths": "8,8", "cache": "static:16"},
    "static decode": {"lengths": "5,8", "phase": "decode", "cache": "static:16"},
    "static decode plain": {"shape": "2,8", "phase": "decode", "cache": "static:16"},
    "chunk": {"lengths": "3,5", "phase": "chunk:3"},
    # behind every window twice over: windows, chunks and blocks are set to 4 and 8 tokens below
    "long": {"shape": "1,33"},
    "long left": {"lengths": "21,33"},
    "long decode": {"lengths": "21,33", "phase": "decode"},
    # token types 1 at the image: only models that make blocks of them
    "image": {"shape": "1,13", "image": "2:6"},
    "image left": {"lengths": "9,13", "image": "5:4"},
}
SECONDS = int(os.environ.get("MASK_SECONDS", "400"))  # for one model type; a busy machine needs more
SOME = ("left", "static decode plain")  # under flex_attention, which is slow on a CPU
NOT_RUN = {  # what a class cannot do at all is no difference between plan and run
    "encoder": (
        "packed cache",
        "long decode",
        "decode",
        "decode plain",
        "static",
        "static decode",
        "static decode plain",
        "chunk",
    ),
    "encoder-decoder": ("packed", "packed cache", "static", "static decode", "static decode plain", "chunk"),
    "no positions": ("packed", "packed cache"),
}
SMALL = {
    "num_hidden_layers": 4, "num_layers": 4, "n_layer": 4, "n_layers": 4, "encoder_layers": 2, "decoder_layers": 2, "num_decoder_layers": 2,
    "hidden_size": 64, "d_model": 64, "n_embd": 64, "intermediate_size": 64, "ffn_dim": 64, "d_ff": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "vocab_size": 128, "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4, "attention_chunk_size": 4, "moe_intermediate_size": 32, "num_experts": 4,
    "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 32,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16, "n_group": 1, "topk_group": 1,
    "word_embed_proj_dim": 64, "intermediate_size_mlp": 64, "embedding_size": 64, "d_kv": 16, "max_window_layers": 2, "use_sliding_window": True,
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16, "n_positions": 256,
    "rotary_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "ffn_hidden_size": 64, "n_inner": 64, "layer_types": None,
    "mamba_d_state": 16, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_expand": 2, "n_mamba_heads": 8, "mamba_headdim": 16, "mamba_ngroups": 1,
    "mamba_n_groups": 1, "mamba_d_ssm": 128, "num_mem_blocks": 1, "adapter_rank": 8, "attn_layer_period": 2, "attn_layer_offset": 1,
    "decoder_start_token_id": 0,
    "attn_layer_indices": [1], "full_attn_idxs": [1, 3], "first_k_dense_replace": 1, "state_size": 8, "time_step_rank": 4,
    "max_position_embeddings": 256,
    "num_nextn_predict_layers": 0, "local_attention": 8, "window_size": 4, "block_size": 4, "num_random_blocks": 1, "attention_window": 4,
    "num_kv_heads": 2, "num_global_key_value_heads": 2, "global_head_dim": 16, "layers_block_type": None,
}  # fmt: skip
MROPE = (
    "glm_ocr_text cosmos3_edge_text qwen2_vl_text qwen2_5_vl_text qwen3_vl_text qwen3_vl_moe_text glm4v_text paddleocr_vl_text "
    "qwen2_5_omni_text"
).split()
LATENT = (
    "deepseek_v2 deepseek_v3 deepseek_v32 axk1 axk2 youtu mistral4 glm_moe_dsa glm4_moe_lite longcat_flash minicpm3 kimi_linear".split()
)
SPECIAL: dict[str, dict[str, Any]] = {
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"]},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"], "mamba_dt_rank": 4, "n_mamba_heads": 2},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"]},
    "gpt_neox": {"rotary_pct": 0.5},
    "gpt2": {"num_hidden_layers": 2},
    **{kind: {"attention_type": "original_full"} for kind in ("big_bird", "bigbird_pegasus")},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1},
    "phi3": {"pad_token_id": 0},
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1},
    "gemma3": {"image_token_index": 120, "boi_token_index": 121, "eoi_token_index": 122},
    "falcon": {"num_kv_heads": 1},
    **{kind: {"head_dim": 8, "num_key_value_heads": 4} for kind in LATENT},
    **{kind: {"num_key_value_heads": 4} for kind in ("esmc", "dots3_note", "dots3_note_text")},
    "glm4v_moe_text": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}
    },
    "ernie4_5_vl_moe_text": {
        "moe_intermediate_size": [32, 32],
        "hidden_size": 512,
        "moe_k": 2,
    },  # its modeling file has sections for heads of 128
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    **{kind: {"vocabulary_map": {"<image>": 5}} for kind in ("chameleon", "emu3")},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "ernie4_5_moe": {"moe_k": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4},
    "gemma3n_text": {"num_kv_shared_layers": 0, "num_hidden_layers": 5},
    **{kind: {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}} for kind in MROPE},
}
VISION = {
    "hidden_size": 32, "embed_dim": 32, "intermediate_size": 32, "depth": 1, "num_heads": 2, "num_attention_heads": 2, "num_hidden_layers": 1,
    "out_hidden_size": 64,
    "patch_size": 4, "image_size": 16, "fullatt_block_indexes": [0], "vision_output_dim": 64, "projection_dim": 64, "deepstack_visual_indexes": [0],
    "num_position_embeddings": 16,
}  # fmt: skip
AUDIO = {
    "d_model": 32, "hidden_size": 32, "encoder_layers": 1, "num_hidden_layers": 1, "encoder_attention_heads": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 16, "encoder_ffn_dim": 32, "intermediate_size": 32, "output_dim": 64,
}  # fmt: skip


def accepted(config_class: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """Those of `wanted` that the class has a field for."""
    import dataclasses

    fields = {field.name for field in dataclasses.fields(config_class)} if dataclasses.is_dataclass(config_class) else set()
    return {name: value for name, value in wanted.items() if name in fields}


def tiny(kind: str) -> Any:
    """A small configuration of a model type."""
    from transformers import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[kind]
    parts = getattr(config_class, "sub_configs", {})
    arguments = accepted(config_class, {**SMALL, **SPECIAL.get(kind, {})}) | SPECIAL.get(kind, {})
    for name, declared in parts.items():
        sub = declared if getattr(declared, "model_type", "") else type(getattr(config_class(), name, None))
        if name in ("text_config", "decoder", "generator") and hasattr(sub, "model_type"):
            own = {**SMALL, **SPECIAL.get(sub.model_type, {})}
            arguments[name] = accepted(sub, own) | ({"model_type": sub.model_type} if sub.model_type else {})
        elif any(word in name for word in ("vision", "audio", "speech")) and hasattr(sub, "model_type"):
            arguments[name] = accepted(sub, VISION if "vision" in name else AUDIO)
    config = config_class(**arguments)
    config.image_token_id = 120 if getattr(config, "image_token_id", None) is not None else None
    return config


def narrowed(kind: str) -> Any:
    """The class's own defaults, narrowed as `--mode run` narrows a published size, with few layers and windows of 4 tokens."""
    from transformers import CONFIG_MAPPING

    from llmdoctor.mask.live import narrow

    def small(part: dict[str, Any]) -> None:
        for name in ("sliding_window", "attention_chunk_size"):
            if type(part.get(name)) is int:
                part[name] = 4
        narrow._thin(part)
        narrow._fewer_layers(part)

    config = CONFIG_MAPPING[kind]()
    return narrow._cut(config, small, "small").config


def made(kind: str) -> Any:
    """A small configuration that a model can be built from and that runs: the one of SMALL, else the narrowed defaults."""
    from llmdoctor.mask.live import narrow

    first: Exception | None = None
    for make in (tiny, narrowed):
        try:
            config = make(kind)
            config.architectures = [layerkinds.table()["types"][kind]["class"]]
            narrow._try(config)
        except Exception as error:
            first = first or error
        else:
            return config
    raise first or RuntimeError


def cases_of(arch: architectures.Architecture, parameters: Any) -> list[str]:
    """The cases that a class can be asked."""
    left_out: set[str] = set()
    if not arch.layers:
        left_out |= set(NOT_RUN["encoder"])
    if arch.cross or arch.two_stacks:
        left_out |= set(NOT_RUN["encoder-decoder"])
    if "position_ids" not in parameters:
        left_out |= set(NOT_RUN["no positions"])
    if all(layer.pattern is None for layer in arch.layers) and arch.layers:
        left_out |= {"static", "static decode", "static decode plain", "chunk"}
    if not any(layer.pattern is not None and layer.pattern.blocks is not None for layer in arch.layers):
        left_out |= {"image", "image left"}
    wanted = os.environ.get("MASK_CASES")
    return [name for name in CASES if name not in left_out and (not wanted or name in wanted.split(","))]


def differences(expected: BackendPlan, seen: BackendPlan) -> list[str]:
    """What differs between a plan and a run, layer by layer."""
    if (expected.error is None) != (seen.error is None):
        return [f"error {expected.error!r}, ran into {seen.error!r}"[:300]]
    out = []
    left, right = flat(expected), flat(seen)
    unseen = [key for key, given in right.items() if given[-1] is None and key[0] != "linear"]  # a module that no mask and no kernel shows
    for key in unseen:
        left[key], right[key] = left.get(key, (None,))[:-1], right[key][:-1]
    for key in sorted({*left, *right}, key=str):
        if left.get(key) != right.get(key):
            out.append(f"{key}: plan {left.get(key)}, run {right.get(key)}")
    return out


def flat(made: BackendPlan) -> dict[tuple[str, int], Any]:
    out = {}
    for group in made.layers:
        role = group.type if group.type in ("linear", "cross", "encoder") else "self"
        kernel = group.kernel
        for index in group.layers:
            given = group.object
            out[role, index] = (
                given.kind, given.shape, given.dtype, given.logical_bytes, given.storage_bytes, group.kv_len, bool(kernel.is_causal),
                kernel.window, kernel.cu_seqlens, group.count,
            )  # fmt: skip
    return out


def compare(kind: str) -> tuple[str, list[str], int]:
    """(model type, differences, comparisons made)."""
    import inspect

    import torch

    from llmdoctor.mask.live import build, run
    from llmdoctor.modeldir.live.classes import class_of

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    found: list[str] = []
    count = 0
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            config = made(kind)
            with tempfile.TemporaryDirectory() as folder:
                config.save_pretrained(folder)
                read = architectures.read(json.loads((Path(folder) / "config.json").read_text()))
            model_class = class_of(config)
            names = cases_of(read, inspect.signature(model_class.forward).parameters)
            for backend in BACKENDS:
                dtype = "bfloat16" if backend == "flash_attention_2" else "float32"
                try:
                    model = build.build(config, backend, dtype)
                except ValueError as error:
                    count += 1
                    if read.refusal(backend) is None:
                        found.append(f"{backend}: refused: {str(error)[:100]}")
                    continue
                if model.config._attn_implementation != backend:
                    continue  # gpt_oss: the library takes another kernel, from the hub
                if read.refusal(backend) is not None:
                    found.append(f"{backend}: the plan refuses it, the library does not")
                    continue
                for name in names:
                    if backend == "flex_attention" and name not in SOME:
                        continue
                    inputs = forward_inputs(MaskOptions(model="", **CASES[name]))
                    expected, seen = plan(read, inputs, backend, dtype), run.attempt(model, inputs, backend)
                    count += 1
                    found += [f"{backend} {name}: {text}" for text in differences(expected, seen)]
    except QuestionError as error:
        return kind, [f"QUESTION {error}"], count
    except Exception as error:
        return kind, [f"NOT BUILT {type(error).__name__}: {str(error)[:200]}"], count
    return kind, found, count


def limited() -> None:
    """A default configuration can be of any size: what does not fit is not built."""
    resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, 12 * 2**30))


def each(kinds: list[str]) -> Iterator[tuple[str, list[str], int]]:
    """compare() of each type in a process of its own kind, a new one where the last has died."""
    left = list(kinds)
    while left:
        with ProcessPoolExecutor(1, initializer=limited) as pool:
            while left:
                kind = left.pop(0)
                try:
                    yield pool.submit(compare, kind).result(timeout=SECONDS)
                except BrokenProcessPool:
                    yield kind, ["KILLED"], 0
                    break
                except TimeoutError:
                    for worker in list(pool._processes.values()):
                        worker.kill()
                    yield kind, [f"KILLED after {SECONDS} s"], 0
                    break


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--show", type=int, default=4)
    options = parser.parse_args()
    from transformers.models.auto import modeling_auto as auto

    families = ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
                "MODEL_FOR_MASKED_LM_MAPPING_NAMES")  # fmt: skip
    named = {kind for family in families for kind in getattr(auto, family)}
    kinds = options.types or sorted(named & set(layerkinds.table()["types"]))
    results = {}
    tally: collections.Counter[str] = collections.Counter()
    total = 0
    for kind, found, made in each(kinds):
        failed = found[0].split(" ", 1)[0] if found and found[0].startswith(("NOT", "QUESTION", "KILLED")) else ""
        verdict = failed or ("differs" if found or not made else "agrees")
        results[kind] = verdict
        tally[verdict] += 1
        total += made
        print(f"{verdict:8} {kind} ({made})", flush=True)
        for text in found[: options.show]:
            print(f"         {text}", flush=True)
        if options.write and len(results) % 10 == 0:
            write({name for name, each in results.items() if each == "agrees"}, set(results))
    print(", ".join(f"{count} {verdict}" for verdict, count in tally.most_common()) + f"; {total} comparisons")
    if options.write:
        write({kind for kind, verdict in results.items() if verdict == "agrees"}, set(results))
    return 0


def write(agree: set[str], compared: set[str]) -> None:
    """Keep what was known of the types that were not asked about."""
    sys.path.insert(0, str(Path(__file__).parent))
    from make_mask_architectures import dump

    table = json.loads(TARGET.read_text())
    table["agree"] = sorted((set(table["agree"]) - compared) | agree)
    TARGET.write_text(dump(table))


if __name__ == "__main__":
    sys.exit(main())

"""Write llmdoctor/modeldir/architectures.json from the installed transformers: `python conformance/make_mask_architectures.py`.

For every model type with a class for language modelling: the class, the backends its classes say they support, the names and defaults of
the configuration fields that a mask depends on, and how its modeling file makes masks. Nothing is run; conformance/compare_masks.py holds
the plans that follow from it against real forwards, and writes which model types agree.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent.parent / "llmdoctor" / "modeldir" / "architectures.json"
WATCHED = (
    "num_hidden_layers sliding_window use_sliding_window max_window_layers sliding_window_pattern _sliding_window_pattern attention_chunk_size "
    "layer_types is_causal use_bidirectional_attention attn_layer_period attn_layer_offset full_attention_interval no_rope_layers "
    "no_rope_layer_interval alibi encoder_layers decoder_layers num_decoder_layers num_layers is_encoder_decoder is_decoder "
    "layers_block_type global_attn_every_n_layers attn_layer_indices full_attn_idxs num_attention_heads local_attention add_cross_attention "
    "num_key_value_heads head_dim hidden_size num_kv_shared_layers global_head_dim num_global_key_value_heads kv_lora_rank qk_rope_head_dim "
    "index_topk prefix_lm cross_attention_layers"
).split()
FAMILIES = (
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_MAPPING_NAMES",
)


def main() -> int:
    import transformers
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    types: dict[str, Any] = {}
    classes: dict[str, str] = {}
    for kind in sorted(CONFIG_MAPPING_NAMES):
        names = [name for family in FAMILIES if (name := getattr(modeling_auto, family, {}).get(kind)) is not None]
        entry = describe(kind, [name if isinstance(name, str) else name[0] for name in names], CONFIG_MAPPING_NAMES[kind])
        if entry is not None:
            types[kind] = entry
            try:
                classes.update(flags_of(kind))
            except ImportError as error:
                print(f"{kind}: {error}")
    types |= inner_types(types)
    out = {"transformers": transformers.__version__, "classes": dict(sorted(classes.items())), "types": types}
    old = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    out["agree"] = old.get("agree", [])
    TARGET.write_text(dump(out))
    print(f"{len(types)} model types, {len(classes)} classes")
    return 0


def inner_types(types: dict[str, Any]) -> dict[str, Any]:
    """Entries of text models that only exist inside another model, whose modeling file makes their masks."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    out = {}
    for kind, entry in types.items():
        key, inner = entry.get("text", ("", ""))
        if not inner or inner in types:
            continue
        module = importlib.import_module(f"transformers.models.{module_of(kind)}.configuration_{module_of(kind)}")
        config = getattr(module, CONFIG_MAPPING_NAMES[kind]).sub_configs[key]
        out[inner] = {"class": entry["class"], "masks": entry["masks"], "takes": entry.get("takes", []), **fields_of(config)}
    return out


def dump(value: dict[str, Any]) -> str:
    lines = []
    for name, part in value.items():
        if isinstance(part, dict):
            inner = ",\n".join(f"  {json.dumps(key)}: {json.dumps(item)}" for key, item in part.items())
            lines.append(f" {json.dumps(name)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(part)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def module_of(kind: str) -> str:
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    return model_type_to_module_name(kind)


def describe(kind: str, names: list[str], config_name: str) -> dict[str, Any] | None:
    try:
        config = getattr(importlib.import_module(f"transformers.models.{module_of(kind)}.configuration_{module_of(kind)}"), config_name)
        source = modeling_source(kind)
    except (ImportError, AttributeError, OSError):
        return None
    if source is None or not names:
        return None
    fields = {field.name: field for field in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else {}
    if "is_encoder_decoder" in fields and fields["is_encoder_decoder"].default:
        from transformers.models.auto import modeling_auto

        names = [modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.get(kind), *names]
        names = [name for name in names if name]
    if any(getattr(config, "sub_configs", {}).get(nested) for nested in ("text_config", "decoder")):
        names = sorted(names, key=lambda name: not name.endswith(("ForConditionalGeneration", "ForImageTextToText")))
    entry = {"class": names[0], "masks": masks_of(source), **fields_of(config)}
    for nested in ("text_config", "decoder", "generator"):
        sub = getattr(config, "sub_configs", {}).get(nested)
        if sub is not None:
            entry["text"] = [nested, getattr(sub, "model_type", "")]
            break
    entry["takes"] = takes_of(kind, names[0])
    return entry


def fields_of(config: Any) -> dict[str, Any]:
    """The names and defaults of the fields that a mask depends on, and the layer kinds of the default configuration."""
    mapped = dict(getattr(config, "attribute_map", {}))
    fields = {field.name: field for field in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else {}
    defaults = {}
    for name in WATCHED:
        real = mapped.get(name, name)
        if real in fields and fields[real].default is not dataclasses.MISSING:
            value = fields[real].default
            if value is None or isinstance(value, bool | int | str | list):
                defaults[name] = value
    out: dict[str, Any] = {"defaults": defaults}
    renamed = {name: mapped[name] for name in WATCHED if name in mapped}
    if renamed:
        out["names"] = renamed
    if "layer_types" in fields or isinstance(getattr(config, "layer_types", None), property):
        out["typed"] = True
        out |= default_layers(config)
    return out


def default_layers(config: Any) -> dict[str, Any]:
    """The layer kinds of the default configuration, if it can be made, as the list of a config.json without layer_types."""
    try:
        types = config().layer_types
    except Exception as error:
        print(f"{config.__name__}: {type(error).__name__}: {str(error)[:80]}")
        return {}
    return {"default_types": [str(name) for name in types]} if isinstance(types, list | tuple) else {}


def takes_of(kind: str, name: str) -> list[str]:
    """Those of the arguments below that the class's forward() takes."""
    try:
        module = importlib.import_module(f"transformers.models.{module_of(kind)}.modeling_{module_of(kind)}")
        parameters = inspect.signature(getattr(module, name).forward).parameters
    except (ImportError, AttributeError, ValueError):
        return []
    return [each for each in TAKEN if each in parameters]


TAKEN = (
    "input_ids",
    "attention_mask",
    "position_ids",
    "token_type_ids",
    "mm_token_type_ids",
    "decoder_input_ids",
    "decoder_attention_mask",
)


def modeling_source(kind: str) -> str | None:
    folder = Path(inspect.getfile(importlib.import_module("transformers"))).parent / "models" / module_of(kind)
    path = folder / f"modeling_{module_of(kind)}.py"
    return path.read_text() if path.exists() else None


def masks_of(source: str) -> list[str]:
    """The mask factories that a modeling file calls, each with the keyword arguments that change the mask."""
    found = set()
    tree = ast.parse(source)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        literals = dict_literals(function)
        for node in ast.walk(function):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if isinstance(node, ast.Call) and re.fullmatch(r"create_\w*mask\w*", name):
                words = {word.arg for word in node.keywords if word.arg}
                for word in node.keywords:
                    if word.arg is None and isinstance(word.value, ast.Name):
                        words |= literals.get(word.value.id, set())
                found.add(f"{name.removeprefix('create_')}({','.join(sorted(words & CHANGING))})")
    if "sliding_window=" in source:
        found.add("flash window")
    if "ALL_ATTENTION_FUNCTIONS" not in source:
        found.add("no interface")
    return sorted(found)


CHANGING = {"position_ids", "block_sequence_ids", "allow_is_causal_skip", "or_mask_function", "and_mask_function"}


def dict_literals(function: ast.FunctionDef) -> dict[str, set[str]]:
    """The keys of every dictionary that a function writes out or copies, by the name it is given."""
    out: dict[str, set[str]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, node.value
            if isinstance(value, ast.Dict):
                out[name] = {key.value for key in value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
            elif isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and isinstance(value.func.value, ast.Name):
                out[name] = set(out.get(value.func.value.id, set()))
    return out


def flags_of(kind: str) -> dict[str, str]:
    """Class -> its backends as letters: s, f, x (sdpa, flash, flex)."""
    module = importlib.import_module(f"transformers.models.{module_of(kind)}.modeling_{module_of(kind)}")
    out = {}
    for name, value in vars(module).items():
        if inspect.isclass(value) and value.__module__ == module.__name__ and hasattr(value, "_supports_sdpa"):
            flags = (("s", "_supports_sdpa"), ("f", "_supports_flash_attn"), ("x", "_supports_flex_attn"))
            out[name] = "".join(letter for letter, flag in flags if getattr(value, flag, False))
    return out


if __name__ == "__main__":
    sys.exit(main())

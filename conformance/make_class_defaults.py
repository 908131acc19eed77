"""Print, as JSON, what transformers' configuration classes bring to a generation config by themselves.

    PYTHONPATH=ENV4:SITE python conformance/make_class_defaults.py > 4.json
    PYTHONPATH=ENV5:SITE python conformance/make_class_defaults.py > 5.json
    python conformance/make_class_defaults.py 4.json 5.json > llmdoctor/gencfg/class_defaults.json

Run once with a transformers 4.x and once with a 5.x on the path (environment.py makes them), then joined. {"defaults": {model_type: {field: value}},
"declared": {model_type: [generation fields that are the class's own]}, "positions": {model_type: name of max_position_embeddings}}. Only what
differs from the library's own default counts; a composite's language model is listed under "MODEL_TYPE/text".
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_eos_token_id", "forced_bos_token_id")
TEXT = ("decoder", "generator", "text_config")


def main() -> None:
    if len(sys.argv) == 3:
        old, new = (json.loads(Path(name).read_text()) for name in sys.argv[1:])
        print(lines({"defaults": old["defaults"], "declared": new["declared"], "positions": old["positions"] | new["positions"]}))
        return
    from transformers import GenerationConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    base = GenerationConfig().to_dict()
    settable = set(getattr(GenerationConfig, "_get_default_generation_params", dict)()) - {"use_cache"}
    found: dict[str, dict[str, Any]] = {"defaults": {}, "declared": {}, "positions": {}}
    for model_type in sorted(CONFIG_MAPPING):
        try:
            kind = CONFIG_MAPPING[model_type]
            config = kind()
        except Exception as error:
            print(f"{model_type}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        record(found["defaults"], model_type, differing(config.to_dict(), base))
        inner = next((getattr(config, name) for name in TEXT if getattr(config, name, None) is not None), None)
        if inner is not None and hasattr(inner, "to_dict"):
            record(found["defaults"], f"{model_type}/text", differing(inner.to_dict(), base))
        declared = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
        record(found["declared"], model_type, sorted(declared & settable))
        record(found["positions"], model_type, kind.attribute_map.get("max_position_embeddings"))
    print(json.dumps(found))


def record(table: dict[str, Any], name: str, value: Any) -> None:
    if value:
        table[name] = value


def lines(tables: dict[str, dict[str, Any]]) -> str:
    """JSON with a line for each model type."""
    parts = []
    for name, table in tables.items():
        rows = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in table.items())
        parts.append(f"{json.dumps(name)}: {{\n{rows}\n}}")
    return "{\n" + ",\n".join(parts) + "\n}"


def differing(config: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """The generation fields of a configuration that a bare GenerationConfig does not have; whether it is an encoder-decoder."""
    names = (*base, *TOKENS, "is_encoder_decoder")
    return {
        name: config[name]
        for name in dict.fromkeys(names)
        if name in config
        and config[name] is not None
        and config[name] != base.get(name, False if name == "is_encoder_decoder" else None)
        and name != "transformers_version"
        and not name.startswith("_")
    }


if __name__ == "__main__":
    main()

"""Print, as JSON, the generation settings that transformers 4.x's configuration classes have by default: {model_type: {field: value}}.

    PYTHONPATH=OVERLAY python conformance/make_class_defaults.py > llmdoctor/gencfg/class_defaults.json

Run with a transformers 4.x on the path (conformance/README.md). Only what differs from the library's own default counts. A composite's nested
language model is listed under "MODEL_TYPE/text"; a flat encoder-decoder has none.
"""

from __future__ import annotations

import json
import sys
from typing import Any

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_eos_token_id", "forced_bos_token_id")
TEXT = ("decoder", "generator", "text_config")


def main() -> None:
    from transformers import GenerationConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    base = GenerationConfig().to_dict()
    found: dict[str, dict[str, Any]] = {}
    for model_type in sorted(CONFIG_MAPPING):
        try:
            config = CONFIG_MAPPING[model_type]()
        except Exception as error:
            print(f"{model_type}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        inner = next((getattr(config, name) for name in TEXT if getattr(config, name, None) is not None), None)
        for name, each in ((model_type, config), (f"{model_type}/text", inner)):
            own = differing(each.to_dict(), base) if hasattr(each, "to_dict") else {}
            if own:
                found[name] = own
    print("{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items()) + "\n}")


def differing(config: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """The generation fields of a configuration that a bare GenerationConfig does not have."""
    names = (*base, *TOKENS)
    return {
        name: config[name]
        for name in dict.fromkeys(names)
        if name in config
        and config[name] is not None
        and config[name] != base.get(name)
        and name != "transformers_version"
        and not name.startswith("_")
    }


if __name__ == "__main__":
    main()

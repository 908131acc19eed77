"""Print, as JSON, the generation settings that transformers 4.x's configuration classes have by default: {model_type: {field: value}}.

    PYTHONPATH=OVERLAY python conformance/make_class_defaults.py > llmdoctor/gencfg/class_defaults.json

Run with a transformers 4.x on the path (conformance/README.md); no torch is needed. Only what differs from the library's own default counts. A
composite's language model is listed under "MODEL_TYPE/text".
"""

from __future__ import annotations

import json
import sys
from typing import Any

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_eos_token_id", "forced_bos_token_id")


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
        own = differing(config.to_dict(), base)
        if own:
            found[model_type] = own
        inner = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
        if inner is not config:
            text = differing(inner.to_dict(), base)
            if text:
                found[f"{model_type}/text"] = text
    print("{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items()) + "\n}")


def differing(config: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """The generation fields of a configuration that a bare GenerationConfig does not have."""
    return {
        name: config[name]
        for name in (*base, *TOKENS)
        if name in config
        and config[name] is not None
        and config[name] != base.get(name)
        and name != "transformers_version"
        and not name.startswith("_")
    }


if __name__ == "__main__":
    main()

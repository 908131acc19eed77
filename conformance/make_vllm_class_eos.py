#!/usr/bin/env python3
"""The eos ids that a configuration class supplies where a directory names none, as vLLM sees them.

    pip install --target DIR --no-deps transformers==5.20.2 && PYTHONPATH=DIR python conformance/make_vllm_class_eos.py

Without generation_config.json vLLM makes one from the config *object* (transformers_utils/config.py:1299 of vLLM 0.33.0, which runs
on transformers 5.16 to 5.20), so a class's default counts there, unlike in transformers' own from_pretrained of 5.x.
"""

from __future__ import annotations

import json
from pathlib import Path

from transformers import GenerationConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

TARGET = Path(__file__).resolve().parent.parent / "llmdoctor" / "gencfg" / "engines" / "vllm_class_eos.json"


def main() -> None:
    found = {}
    for kind in sorted(CONFIG_MAPPING_NAMES):
        try:
            eos = GenerationConfig.from_model_config(CONFIG_MAPPING[kind]()).eos_token_id
        except Exception as error:
            print(f"{kind}: {type(error).__name__}: {str(error)[:80]}")
            continue
        if eos is not None:
            found[kind] = eos
    TARGET.write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")
    print(f"{TARGET}: {len(found)} of {len(CONFIG_MAPPING_NAMES)} classes have an eos of their own")


if __name__ == "__main__":
    main()

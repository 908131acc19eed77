"""Whether a model directory is one of a model that generates text: classifiers, encoders and image models have no call of generate().

generating.json is made from the installed transformers by conformance/make_generating.py: `other_classes` have no generate(), `types` are the
model types with a class that has one, `other_types` those that have classes and none with one. A class that is not listed there may generate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from llmdoctor.modeldir.directory import FILES, ModelDir, shortened

_GENERATING_ENDINGS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ForSeq2SeqLM", "ForVision2Seq", "ForImageTextToText")
_TEXT_KEYS = frozenset(("vocab_size", "eos_token_id", "bos_token_id", "pad_token_id", "hidden_size", "text_config"))
# peft's TaskType without a head that generates (peft 0.21, utils/peft_types.py).
_OTHER_TASKS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")


class NoGeneration(NamedTuple):
    """Why a directory's model has no generate(): a clause; `certain` is false for a class of its own code, which may have one."""

    reason: str
    certain: bool = True


def no_generation(directory: ModelDir) -> NoGeneration | None:
    """Return why the model of `directory` has no generate(); None if it has one, or if nothing speaks against it.

    generation_config.json proves that it has: save_pretrained writes the file only for a model that can generate (transformers 5.23.0,
    modeling_utils.py).
    """
    if directory.adapter is not None:
        task = _object(directory, "adapter_config.json").get("task_type")
        return NoGeneration(f"adapter_config.json has task_type {task}, which does not generate") if task in _OTHER_TASKS else None
    if directory.json("generation_config.json") is not None:
        return None
    config = _object(directory, "config.json")
    diffused = config.get("_class_name")
    if isinstance(diffused, str) and "_diffusers_version" in config:
        return NoGeneration(f"config.json is that of {shortened(diffused)} of diffusers, which does not generate text")
    if not names_a_model(config) and not _TEXT_KEYS & config.keys() and not _other_files(directory):
        return NoGeneration("config.json names no model: expected architectures, or a model_type of transformers")
    named = config.get("architectures")
    classes = [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
    if classes:
        return None if any(_may_generate(each, config) for each in classes) else _without(classes[0])
    kind = config.get("model_type")
    listed = isinstance(kind, str) and kind in _table()["other_types"]
    return NoGeneration(f"transformers has no class of model type {kind} that generates") if listed else None


def _without(name: str) -> NoGeneration:
    if name in _table()["other_classes"]:
        return NoGeneration(f"config.json names {name}, which does not generate")
    return NoGeneration(f"config.json names {shortened(name)}, whose own code may not generate", certain=False)


def names_a_model(config: Any) -> bool:
    """Return whether the content of a config.json names a model: many programs have a file of that name."""
    if not isinstance(config, dict):
        return False
    if config.get("architectures") or "auto_map" in config:
        return True
    kind = config.get("model_type")
    return isinstance(kind, str) and (kind in _table()["types"] or kind in _table()["other_types"])


def _may_generate(name: str, config: Mapping[str, Any]) -> bool:
    """Return whether the class `name` may generate: its name says so, its own code does (auto_map), or the table does not list it."""
    if name in _table()["other_classes"]:
        return False
    own = config.get("auto_map")
    if name.endswith(_GENERATING_ENDINGS) or not isinstance(own, dict):
        return True
    return any(auto.endswith(_GENERATING_ENDINGS) for auto in own)


def _other_files(directory: ModelDir) -> bool:
    """Return whether the directory holds files of a model beside config.json."""
    return any(directory.has(name) for name in FILES if name != "config.json")


def _object(directory: ModelDir, name: str) -> Mapping[str, Any]:
    file = directory.json(name)
    return file.value if file is not None and isinstance(file.value, dict) else {}


@cache
def _table() -> dict[str, frozenset[str]]:
    read = json.loads(Path(__file__).with_name("generating.json").read_bytes())
    return {name: frozenset(read[name]) for name in ("other_classes", "types", "other_types")}

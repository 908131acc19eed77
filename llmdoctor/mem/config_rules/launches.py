"""Which DeepSpeed configs are read by DeepSpeed itself, so that "auto" is not filled in: found in the code and shell scripts of the same tree."""

from __future__ import annotations

import re

from llmdoctor.configs.view import Config, autos
from llmdoctor.core.finding import Finding
from llmdoctor.files.jsonfile import JsonFile
from llmdoctor.mem.config_rules.deepspeed import FILLED
from llmdoctor.mem.config_rules.rules import AUTO

_NAMED = re.compile(rb"[\"']([\w./-]{1,200}\.json)[\"']")
# DeepSpeed's own argument (deepspeed/__init__.py, add_config_arguments); the Trainer's is --deepspeed, accelerate's --deepspeed_config_file.
_OPTION = re.compile(rb"--deepspeed_config[ =][\"']?([\w./$-]{1,200}\.json)")
_FILLERS = (b"TrainingArguments", b"Trainer(", b"Accelerator(", b"HfDeepSpeedConfig", b"DeepSpeedPlugin")
_BATCH = frozenset({("train_batch_size",), ("train_micro_batch_size_per_gpu",), ("gradient_accumulation_steps",)})


def read_by_deepspeed(data: bytes) -> frozenset[str]:
    """The names, without folders, of the configs that this source or script hands to DeepSpeed itself.

    In Python: the JSON files that a source names which calls deepspeed.initialize() and mentions nothing that fills in "auto". In a shell script:
    what follows --deepspeed_config.
    """
    names = set(_OPTION.findall(data)) if b"--deepspeed_config" in data else set()
    if b"deepspeed.initialize(" in data and not any(word in data for word in _FILLERS):
        names |= set(_NAMED.findall(data))
    return frozenset(name.rpartition(b"/")[2].decode("ascii") for name in names)


def unfilled(file: JsonFile, by: str) -> tuple[Finding, ...]:
    """The one finding of a config with "auto" in it that `by` hands to DeepSpeed itself; none where there is no "auto"."""
    config = Config(file, file.value)
    places = [place for place in autos(config.value) if place in FILLED]
    if not places:
        return ()
    said = [f"{place[0]} raises TypeError" for place in places if place in _BATCH][:1]
    said += [f"{place[0]} is off, which leaves fp32" for place in places if place in (("bf16", "enabled"), ("fp16", "enabled"))][:1]
    others = [".".join(place) for place in places if place not in _BATCH and place[-1] != "enabled"]
    if others:
        said.append(f"{others[0]}{f' and {len(others) - 1} more' if len(others) > 1 else ''} is not what was meant")
    message = f'"auto" in {len(places)} places, and {by} hands this file to DeepSpeed itself, which fills in nothing: {"; ".join(said)}'
    cause = "deepspeed/runtime/config_utils.py:56 drops it inside sections, runtime/config.py:590 compares it with numbers"
    fix = "write the values, or read the file through TrainingArguments(deepspeed=...) or accelerate"
    return (config.found(AUTO, message, *places[0], cause=cause, fix=fix),)

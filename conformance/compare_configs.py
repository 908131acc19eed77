"""Hold the schemas of axolotl, LLaMA-Factory and ms-swift, and the reading of their files, against the frameworks' own classes.

    pip install --no-deps --target LIBS axolotl==0.19.0 llamafactory==0.9.5 ms-swift==4.6.0 peft==0.21.2 omegaconf antlr4-python3-runtime==4.9.3 \\
        modelscope modelscope_hub json_repair addict attrdict cryptography cffi aiohttp aiosignal aiohappyeyeballs frozenlist multidict propcache yarl
    python conformance/compare_configs.py LIBS... [--examples FOLDER]

The packages are imported beside the installed torch and transformers, without their other requirements. Compared are the names and defaults of each
class with the schema; of axolotl and LLaMA-Factory also whether a file is accepted (its pydantic model, HfArgumentParser) and what it sets, for the
files below FOLDER that are of these formats, and for changes of them: a key with a slip, a number as text.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import enum
import importlib
import io
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmdoctor.configs.reading import opened, read_value
from llmdoctor.configs.recognise import recognise
from llmdoctor.configs.schema import fields_of
from llmdoctor.configs.types import Configuration, Refused
from llmdoctor.core.errors import QuestionError

CLASSES = [
    ("axolotl", "axolotl.utils.schemas.config", ("AxolotlInputConfig",)),
    ("llamafactory", "llamafactory.hparams", ("ModelArguments", "DataArguments", "TrainingArguments", "FinetuningArguments", "GeneratingArguments")),
    ("ms_swift", "swift.arguments", ("SftArguments", "RLHFArguments", "PretrainArguments")),
]  # fmt: skip
# Settings whose value the framework's object must have, too: normalised name -> its name there.
VALUES = {
    "axolotl": {"batch": "micro_batch_size", "accumulation": "gradient_accumulation_steps", "sequence_length": "sequence_len", "lora_rank": "lora_r"},
    "llamafactory": {
        "batch": "per_device_train_batch_size", "accumulation": "gradient_accumulation_steps", "sequence_length": "cutoff_len",
        "lora_rank": "lora_rank",
    },
}  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "a slip": {"gradient_acumulation_steps": 2},
    "text": {"gradient_accumulation_steps": "4"},
    "no number": {"gradient_accumulation_steps": "many"},
}


def main() -> None:
    """Print what differs, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="+", type=Path)
    parser.add_argument("--examples", type=Path)
    arguments = parser.parse_args()
    os.environ["DISABLE_VERSION_CHECK"] = "1"  # LLaMA-Factory 0.9.5 accepts transformers up to 5.6.0
    sys.path[:0] = [str(path) for path in arguments.libraries]
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for framework, module, names in CLASSES:
        with contextlib.redirect_stdout(io.StringIO()):
            real = importlib.import_module(module)
        for name in names:
            compare_class(framework, name, getattr(real, name))
    if arguments.examples is not None:
        for framework, count in compare_files(arguments.examples).items():
            print(f"{framework}: {dict(count)}")


def compare_class(framework: str, name: str, real: Any) -> None:
    """Print the names and defaults in which the schema differs from the class."""
    mine, theirs = fields_of(framework, name), dict(defaults(real))
    base = inherited(real)
    missing, more = sorted(set(theirs) - set(mine) - base), sorted(set(mine) - set(theirs) - base)
    known = {key: value for key, (_, value) in mine.items() if not (isinstance(value, dict) and "computed" in value)}
    differ = [key for key in known if key in theirs and key not in base and theirs[key] is not ... and known[key] != theirs[key]]
    print(
        f"{framework} {name}: {len(set(mine) & set(theirs))} settings agree in name; missing {missing}, more {more}, other defaults {differ}"
    )


def defaults(real: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, default) of a dataclass or a pydantic model; an ellipsis for a default that is made when it is needed."""
    if hasattr(real, "model_fields"):
        for name, one in real.model_fields.items():
            yield name, ... if one.default_factory is not None else plain(None if one.is_required() else one.default)
        return
    for one in dataclasses.fields(real):
        if one.init:
            made = one.default_factory is not dataclasses.MISSING
            yield one.name, ... if made else None if one.default is dataclasses.MISSING else plain(one.default)


def plain(value: Any) -> Any:
    """Return the value of a member of an enumeration; a pydantic model as its fields."""
    return value.value if isinstance(value, enum.Enum) else value.model_dump() if hasattr(value, "model_dump") else value


def inherited(real: Any) -> set[str]:
    """Return the fields of transformers' own class: another release of it may be installed than the framework pins."""
    own = [base for base in real.__mro__ if base.__module__.startswith("transformers.") and dataclasses.is_dataclass(base)]
    return {one.name for base in own for one in dataclasses.fields(base)} | {"warmup_ratio", "logging_dir"}


def compare_files(folder: Path) -> dict[str, Counter[str]]:
    """Print each file that one side accepts and the other does not, or that sets another value, and return the counts."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in VALUES}
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".yaml", ".yml"):
            continue
        try:
            value = opened(str(path)).value
        except QuestionError:
            continue
        found = recognise(value)
        if found is None or found.name not in VALUES:
            continue
        for change, more in CHANGES.items():
            changed = {**value, **more}
            mine = read_value(changed, str(path), found)
            theirs = accepted(found.name, changed)
            ours = not mine.rejected and not any(one.effect == "raises" for one in mine.unknown)
            if isinstance(theirs, str):
                ours = ours and not mine.of("memory", Refused)  # what is not modelled is not answered
            counts[found.name][verdict(mine, theirs, ours, f"{path.name}, {change}")] += 1
    return counts


def verdict(mine: Configuration, theirs: Any, ours: bool, what: str) -> str:
    """Return how two readings compare, and print a difference."""
    if isinstance(theirs, str):
        if ours:
            print(f"  {what}: accepted here, refused there: {theirs[:150]!r}")
        return "accepted here only" if ours else "refused by both"
    if not ours:
        reason = {**mine.rejected, **{one.key: "unknown" for one in mine.unknown}}
        print(f"  {what}: refused here, accepted there: {str(reason)[:150]}")
        return "refused here only"
    differ = []
    for name, there in VALUES[mine.format.name].items():
        value, real = mine.normal.get(name), getattr(theirs, there, None)
        if real is not None and value is not None and value != real:
            differ.append(f"{name} {value} here, {real} there")
    if differ:
        print(f"  {what}: {', '.join(differ)}")
    return "accepted by both, another value" if differ else "accepted by both"


def accepted(framework: str, value: dict[str, Any]) -> Any:
    """Return the framework's own object of a file, or the message of its refusal."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return _axolotl(value) if framework == "axolotl" else _llamafactory(value)
    except (Exception, SystemExit) as error:
        return " ".join(str(error).split()) or type(error).__name__


def _axolotl(value: dict[str, Any]) -> Any:
    from axolotl.utils.schemas.config import AxolotlInputConfig  # type: ignore[import-not-found]

    return AxolotlInputConfig(**value)


def _llamafactory(value: dict[str, Any]) -> Any:
    from types import SimpleNamespace

    from llamafactory import hparams  # type: ignore[import-not-found]
    from transformers import HfArgumentParser, Seq2SeqTrainingArguments

    parts = (hparams.ModelArguments, hparams.DataArguments, hparams.FinetuningArguments, hparams.GeneratingArguments)
    known = {one.name for part in parts for one in dataclasses.fields(part) if one.init}
    training = {one.name for one in dataclasses.fields(Seq2SeqTrainingArguments) if one.init} | {"warmup_ratio", "logging_dir"}
    training |= {one.name for one in dataclasses.fields(hparams.TrainingArguments)}
    strangers = value.keys() - known - training
    if strangers:
        raise ValueError(f"Some keys are not used by the HfArgumentParser: {sorted(strangers)}")
    parsed = HfArgumentParser(parts).parse_dict({key: item for key, item in value.items() if key in known})  # type: ignore[arg-type]
    own = {
        key: item
        for key, item in value.items()
        if key in training and key in ("per_device_train_batch_size", "gradient_accumulation_steps", "bf16")
    }
    arguments = Seq2SeqTrainingArguments(
        output_dir="o", use_cpu=True, **{key: int(item) if key != "bf16" else item for key, item in own.items()}
    )
    return SimpleNamespace(**{key: item for part in (*parsed, arguments) for key, item in vars(part).items()})


if __name__ == "__main__":
    main()

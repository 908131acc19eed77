"""Write llmdoctor/configs/schemas/*.json: the settings that each framework's own source declares, with their types and defaults.

    python conformance/make_configs.py [--sources DIR] [NAME ...]

Each framework is read by syntax tree, nothing is imported or executed. Installed packages are read where they are installed; the others, and the
older releases, are fetched with `pip download --no-deps` into DIR (a temporary folder if it is not given). The meaning of each setting is written
by hand in llmdoctor/configs; tests/configs/test_schemas.py compares the names with the installed frameworks' own classes.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent.parent / "llmdoctor" / "configs" / "schemas"


@dataclass(frozen=True)
class Framework:
    """A package, the files that declare its settings, the classes that are written, enumerations of accepted values, and older releases."""

    package: str
    files: tuple[str, ...]
    classes: tuple[str, ...]
    enums: dict[str, str] = field(default_factory=dict)
    older: tuple[str, ...] = ()
    distribution: str = ""
    needs: tuple[str, ...] = ()  # frameworks whose classes are bases here
    pinned: dict[str, str] = field(
        default_factory=dict
    )  # the newest release of such a framework that this one accepts, if it is not the newest
    tables: dict[str, tuple[str, str]] = field(default_factory=dict)  # dictionaries of literals: name here -> (file, name there)
    documents: dict[str, str] = field(default_factory=dict)  # JSON files that a setting can name: name here -> pattern
    recipes: str = ""  # YAML files whose keys are the settings, for a framework without classes of settings


FRAMEWORKS = {
    "transformers": Framework(
        "transformers", ("training_args.py", "training_args_seq2seq.py", "utils/quantization_config.py"),
        ("TrainingArguments", "Seq2SeqTrainingArguments", "BitsAndBytesConfig"), {"optim": "OptimizerNames"}, ("4.57.1", "4.44.2"),
    ),
    "trl": Framework(
        "trl", ("trainer/*_config.py", "scripts/utils.py", "experimental/*/*_config.py"),
        ("ModelConfig", "ScriptArguments", "SFTConfig", "DPOConfig", "GRPOConfig", "RewardConfig", "RLOOConfig", "KTOConfig", "CPOConfig",
         "ORPOConfig", "GKDConfig", "OnlineDPOConfig", "NashMDConfig", "XPOConfig", "PPOConfig", "PRMConfig", "BCOConfig"),
        {}, ("0.24.0", "0.19.1", "0.12.2"), needs=("transformers",),
    ),
    "peft": Framework(
        "peft", ("config.py", "tuners/lora/config.py"), ("LoraConfig",),
        tables={"target_modules": ("utils/constants.py", "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING")},
    ),
    "accelerate": Framework("accelerate", ("commands/config/config_args.py",), ("BaseConfig", "ClusterConfig")),
    "axolotl": Framework(
        "axolotl", ("utils/schemas/*.py", "utils/schemas/internal/*.py", "integrations/*/args.py"),
        ("AxolotlInputConfig", "FSDPConfig", "LigerArgs", "CutCrossEntropyArgs", "DenseMixerArgs", "GrokfastArgs",
         "KDArgs", "KernelsArgs", "LMEvalArgs", "SpectrumArgs", "ExpertParallelArgs", "SwanLabConfig", "LLMCompressorArgs", "DiffusionArgs",
         "HatcheryArgs", "MoraArgs", "NemoGymArgs"),
        {"optimizer": "CustomSupportedOptimizers"},
    ),
    "llamafactory": Framework(
        "llamafactory", ("hparams/*_args.py",),
        ("ModelArguments", "DataArguments", "TrainingArguments", "FinetuningArguments", "GeneratingArguments"), needs=("transformers",),
        pinned={"transformers": "5.6.0"},
    ),
    "ms_swift": Framework(
        "swift", ("arguments/**/*.py", "ray_utils/arguments.py", "trainers/*.py", "rlhf_trainers/*.py", "rlhf_trainers/**/*.py"),
        ("SftArguments", "RLHFArguments", "PretrainArguments"), distribution="ms-swift", needs=("transformers", "trl"),
        documents={"deepspeed": "config/zero*.json"},
    ),
    "torchtune": Framework("torchtune", (), (), recipes="recipes/configs/**/*.yaml"),
}  # fmt: skip


def main() -> None:
    """Write one file per framework that is named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *FRAMEWORKS], default=[])
    parser.add_argument("--sources", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sources = arguments.sources or Path(folder)
        for name in arguments.names or FRAMEWORKS:
            value = schema_of(name, sources)
            text = json.dumps(value, indent=1, ensure_ascii=False)
            (OUT / f"{name}.json").write_text(shortened(text) + "\n")
            print(
                name, value["version"], {key: len(each["fields"]) for key, each in value["classes"].items()}, len(value["older"]), "older"
            )


def shortened(text: str) -> str:
    """Return indented JSON with each [type, default] pair on one line."""
    import re

    return re.sub(r"\[\s+((?:[^\[\]{}]|\[\s*\]|\{\s*\})*?)\s+\]", lambda found: "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]", text)


def schema_of(name: str, sources: Path) -> dict[str, Any]:
    """Return the content of one schema file."""
    framework = FRAMEWORKS[name]
    root, found = installed(framework) or fetched(framework, None, sources)
    if framework.recipes:
        known = {"extends": None, "fields": {key: ["Any", None] for key in sorted(recipe_keys(root, framework.recipes))}}
        return {"library": name, "version": found, "classes": {"recipe": known}, "values": {}, "older": {}, "aliases": {}}
    classes = declared(root, framework.files)
    for other in framework.needs:
        base = FRAMEWORKS[other]
        pinned = framework.pinned.get(other)
        below, _ = (None if pinned else installed(base)) or fetched(base, pinned, sources)
        classes = {**declared(below, base.files), **classes}
        if other == "transformers":  # a framework's class may have the name of the one that it extends
            known = declared(below, base.files)
            classes |= dict.fromkeys(("BaseTrainingArguments", "HfSeq2SeqTrainingArguments"), known["Seq2SeqTrainingArguments"])
            classes |= dict.fromkeys(("_Trainer", "HfTrainingArguments"), known["TrainingArguments"])
    written = {key: fields_of(key, classes) for key in framework.classes if key in classes}
    missing = set(framework.classes) - set(written)
    if missing:
        raise SystemExit(f"{name}: no class {', '.join(sorted(missing))}")
    older: dict[str, str] = {}
    for release in framework.older:  # newest first
        old_root, _ = fetched(framework, release, sources)
        old = declared(old_root, framework.files)
        for other in framework.needs:
            old = {
                **declared((installed(FRAMEWORKS[other]) or fetched(FRAMEWORKS[other], None, sources))[0], FRAMEWORKS[other].files),
                **old,
            }
        known = {key for fields in written.values() for key in fields}
        for key in framework.classes:
            for name_ in fields_of(key, old) if key in old else ():
                if name_ not in known:
                    older.setdefault(name_, release)
    values: dict[str, Any] = {key: members(enum, root, framework.files) for key, enum in framework.enums.items()}
    values |= {key: table(root, *place) for key, place in framework.tables.items()}
    for key, pattern in framework.documents.items():
        values[key] = {path.stem: json.loads(path.read_text()) for path in sorted(root.glob(pattern))}
    extended = {key: extension(fields) if framework.needs else {"extends": None, "fields": fields} for key, fields in written.items()}
    aliases = {} if framework.needs else {alias: key for one in written for alias, key in aliases_of(one, classes).items()}
    described = framework.distribution or framework.package
    return {"library": described, "version": found, "classes": extended, "values": values, "older": older, "aliases": aliases}


def aliases_of(name: str, classes: dict[str, ast.ClassDef]) -> dict[str, str]:
    """Return {alias: field} of a pydantic model and its bases."""
    out: dict[str, str] = {}
    for base in classes[name].bases:
        called = ast.unparse(base)
        out.update(aliases_of(called, classes) if called in classes and called != name else {})
    for item in classes[name].body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and isinstance(item.value, ast.Call):
            out.update(
                {
                    word.value.value: item.target.id
                    for word in item.value.keywords
                    if word.arg == "alias" and isinstance(word.value, ast.Constant)
                }
            )
    return out


def extension(fields: dict[str, list[Any]]) -> dict[str, Any]:
    """Return a class as what it adds to transformers' arguments, if it has all of them; else as it is."""
    base = json.loads((OUT / "transformers.json").read_text())["classes"]
    for name in ("Seq2SeqTrainingArguments", "TrainingArguments"):
        if base[name]["fields"].keys() <= fields.keys():
            return {"extends": name, "fields": {key: value for key, value in fields.items() if base[name]["fields"].get(key) != value}}
    return {"extends": None, "fields": fields}


def installed(framework: Framework) -> tuple[Path, str] | None:
    """Return the folder and version of an installed package; None if it is not installed."""
    spec = importlib.util.find_spec(framework.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))), version(framework.distribution or framework.package)


def fetched(framework: Framework, release: str | None, sources: Path) -> tuple[Path, str]:
    """Return the folder and version of a package that pip downloads (a wheel, unpacked and not installed)."""
    distribution = framework.distribution or framework.package
    folder = sources / f"{distribution}-{release or 'newest'}"
    if not folder.exists():
        wheels = sources / "wheels"
        wanted = distribution if release is None else f"{distribution}=={release}"
        before = set(wheels.glob("*.whl"))
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), wanted], check=True)
        wheel = next(iter({*folder.glob("*.whl")} - before))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    wheel = next(folder.glob("*.whl"))
    return folder / framework.package, wheel.name.split("-")[1]


def declared(root: Path, patterns: Iterable[str]) -> dict[str, ast.ClassDef]:
    """Return the classes of the files that match, by name."""
    return {node.name: node for tree in trees(root, patterns) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def trees(root: Path, patterns: Iterable[str]) -> Iterator[ast.Module]:
    """Yield the syntax tree of each file that matches."""
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            yield ast.parse(path.read_text(encoding="utf-8"))


def fields_of(name: str, classes: dict[str, ast.ClassDef], seen: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    """Return {field: [type, default]} of a class and its bases; a default that is computed is {"computed": source}."""
    node = classes[name]
    out: dict[str, list[Any]] = {}
    for base in reversed(node.bases):
        called = ast.unparse(base).rpartition(".")[2]
        if called == "TrainingArguments" and called in (name, *seen):
            called = "_Trainer"
        if called in classes and called not in seen and called != name:
            out.update(fields_of(called, classes, (*seen, name)))
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith("_"):
            kind = " ".join(ast.unparse(item.annotation).split())
            if kind.startswith(("ClassVar", "InitVar")) or item.target.id == "model_config" or is_computed(item.value):
                continue
            out[item.target.id] = [bare(kind), default_of(item.value)]
    if name == "BitsAndBytesConfig":
        out = parameters_of(node)
    return out


def is_computed(value: ast.expr | None) -> bool:
    """Return whether a field of a dataclass is no argument: field(init=False)."""
    return isinstance(value, ast.Call) and any(
        word.arg == "init" and isinstance(word.value, ast.Constant) and word.value.value is False for word in value.keywords
    )


def bare(kind: str) -> str:
    """Return an annotation without pydantic's Annotated and metadata, at most 120 characters."""
    if kind.startswith("Annotated["):
        kind = kind[len("Annotated[") :].split(",", maxsplit=1)[0]
    return kind[:120]


def parameters_of(node: ast.ClassDef) -> dict[str, list[Any]]:
    """Return the parameters of __init__ as fields, for a class that is no dataclass of its own fields."""
    init = next(item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__")
    names = [argument.arg for argument in init.args.args if argument.arg != "self"]
    defaults = [None] * (len(names) - len(init.args.defaults)) + list(init.args.defaults)
    return {key: ["Any", default_of(value)] for key, value in zip(names, defaults, strict=True)}


def default_of(value: ast.expr | None) -> Any:
    """Return a default as JSON; {"computed": source} for one that is not a literal."""
    if value is None:
        return None
    if isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] in ("field", "Field"):
        given = {word.arg: word.value for word in value.keywords}
        if "default" in given:
            return default_of(given["default"])
        if "default_factory" in given:
            made = ast.unparse(given["default_factory"])
            return [] if made == "list" else {} if made == "dict" else {"computed": made[:80]}
        return default_of(value.args[0]) if value.args else None
    try:
        literal = ast.literal_eval(value)
    except ValueError:
        return {"computed": ast.unparse(value)[:80]}
    try:
        json.dumps(literal)
    except TypeError:
        return {"computed": ast.unparse(value)[:80]}
    return literal


def recipe_keys(root: Path, pattern: str) -> set[str]:
    """Return the keys of all YAML files that match, with dots."""
    import yaml

    def flat(value: Any, prefix: str) -> Iterator[str]:
        for key, item in value.items():
            if isinstance(item, dict):
                yield from flat(item, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}"

    return {key for path in root.parent.glob(pattern) for key in flat(yaml.safe_load(path.read_text()), "")}


def table(root: Path, file: str, name: str) -> Any:
    """Return a dictionary of literals that a file assigns to `name`."""
    for node in next(trees(root, (file,))).body:
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == name for target in node.targets):
            return ast.literal_eval(node.value)
    raise SystemExit(f"{file} has no {name}")


def members(name: str, root: Path, patterns: Iterable[str]) -> list[str]:
    """Return the values of an enumeration."""
    node = declared(root, patterns)[name]
    values = [item.value for item in node.body if isinstance(item, ast.Assign)]
    return [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Read what trainers do to a model's generation config out of their released sources, and write it down as data.

    python conformance/make_presets.py --trl 1.17.0            # add one release (downloads the wheel, imports nothing of it)
    python conformance/make_presets.py --transformers 5.24.0
    python conformance/make_presets.py --trl-source DIR --transformers-source DIR    # DIR/<version>/trl/..., all of them at once

The result is llmdoctor/gencfg/presets.json: for every trainer the assignments on model.generation_config and the fields of the
GenerationConfig that the trainer itself passes to generate(), each with its value, its condition, its file and its line in each
version. Everything is found by syntax tree. Where an expression is of a kind that this script does not know, its source text is kept.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
import tempfile
import types
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "llmdoctor" / "gencfg" / "presets.json"
# Trainers that are presets even where they assign nothing of their own: what they inherit from transformers' Trainer still applies.
ALWAYS = ("SFTTrainer", "DPOTrainer", "RewardTrainer", "KTOTrainer", "GRPOTrainer", "RLOOTrainer", "PPOTrainer", "OnlineDPOTrainer")
FUNCTIONS = {"trl-clone-chat-template": "clone_chat_template", "trl-setup-chat-format": "setup_chat_format"}
# PPOv2Trainer became PPOTrainer in 0.12; the PPOTrainer before that is another one, which touches no config.
SAME_TRAINER = {"PPOv2Trainer": "PPOTrainer"}
TOKENIZERS = ("tokenizer", "processing_class", "self._tokenizer", "self.processing_class", "self.tokenizer")
OWN_EVALUATION = ("generate_completions",)

Record = dict[str, Any]


@dataclass(frozen=True)
class Tree:
    """The classes and functions of one library version: name -> (file, node). Of several of one name the longest counts."""

    version: str
    classes: dict[str, tuple[str, ast.ClassDef]]
    functions: dict[str, tuple[str, ast.FunctionDef]]

    def chain(self, name: str) -> list[tuple[str, ast.ClassDef]]:
        """The class and its bases as far as the library defines them, nearest first."""
        found: list[tuple[str, ast.ClassDef]] = []
        queue = [name]
        while queue:
            current = queue.pop(0)
            entry = self.classes.get(current) or self.classes.get(current.lstrip("_"))
            if entry is None or entry in found:
                continue
            found.append(entry)
            queue += [ast.unparse(base).rsplit(".", 1)[-1] for base in entry[1].bases]
        return found

    def defaults(self, name: str) -> dict[str, Any]:
        """The literal defaults of a config class, inherited ones included."""
        out: dict[str, Any] = {}
        for _, node in reversed(self.chain(name)):
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value is not None:
                    value = item.value
                    if isinstance(value, ast.Call):
                        value = next((keyword.value for keyword in value.keywords if keyword.arg == "default"), value)
                    try:
                        out[item.target.id] = ast.literal_eval(value)
                    except ValueError:
                        out.pop(item.target.id, None)
        return out


def read_tree(root: Path, version: str, package: str) -> Tree:
    """Parse every file of an unpacked wheel that can matter."""
    classes: dict[str, tuple[str, ast.ClassDef]] = {}
    functions: dict[str, tuple[str, ast.FunctionDef]] = {}
    for path in sorted((root / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if not re.search(r"generation_config|GenerationConfig|class \w*(Trainer|Config)\b", text):
            continue
        name = path.relative_to(root).as_posix()
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                known = classes.get(node.name)
                if known is None or _length(known[1]) < _length(node):
                    classes[node.name] = (name, node)
            elif isinstance(node, ast.FunctionDef):
                functions[node.name] = (name, node)
    return Tree(version, classes, functions)


def _length(node: ast.ClassDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno


def walk(node: ast.AST, conditions: tuple[str, ...] = ()) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    """Every node under `node` with the tests of the `if`s around it."""
    for child in ast.iter_child_nodes(node):
        yield child, conditions
        if isinstance(child, ast.If):
            test = ast.unparse(child.test)
            yield from _walk_all(child.body, (*conditions, test))
            yield from _walk_all(child.orelse, (*conditions, f"not ({test})"))
        else:
            yield from walk(child, conditions)


def _walk_all(nodes: Iterable[ast.AST], conditions: tuple[str, ...]) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    for node in nodes:
        yield from walk(ast.Expression(body=node), conditions)  # type: ignore[arg-type]


class Owner:
    """A trainer class (or function) of one version, and what the expressions in it stand for."""

    def __init__(self, tree: Tree, name: str) -> None:
        self.tree, self.name = tree, name
        self.chain = tree.chain(name) if name in tree.classes else []
        self.defaults = tree.defaults(name.removesuffix("Trainer") + "Config")
        if name in tree.functions and not self.chain:
            self.methods = [tree.functions[name]]
        else:
            self.methods = [(file, item) for file, node in self.chain for item in node.body if isinstance(item, ast.FunctionDef)]
        self.attributes = dict(self._self_attributes())

    def _self_attributes(self) -> Iterator[tuple[str, str]]:
        """self.X -> the source of what __init__ assigns to it, where that is the only assignment."""
        seen: dict[str, set[str]] = {}
        for _, method in self.methods:
            for node in ast.walk(method):
                for target in node.targets if isinstance(node, ast.Assign) else []:
                    if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                        seen.setdefault(ast.unparse(target), set()).add(ast.unparse(node.value))
        yield from ((name, values.pop()) for name, values in seen.items() if len(values) == 1)

    def value(self, node: ast.expr) -> Record:
        """What an assigned expression is, in the words of presets.json."""
        try:
            return {"constant": ast.literal_eval(node)}
        except ValueError:
            pass
        text = ast.unparse(node)
        for _ in range(3):
            if text in self.attributes and not _tokenizer_field(text):
                text = self.attributes[text]
        text = text.replace("self.args.", "args.")
        if (argument := re.fullmatch(r"args\.(\w+)", text)) is not None:
            return self._argument(argument[1])
        if (argument := re.fullmatch(r"args\.(\w+) \+ ([\d.e-]+)", text)) is not None:
            return {**self._argument(argument[1]), "plus": float(argument[2])}
        if (field := _tokenizer_field(text)) is not None:
            return {"tokenizer": field}
        if text in ("[self._tokenizer.eos_token_id, *eos_token_ids]", "eos_token_ids", "self.eos_token_ids"):
            return {"union": "eos_token_id"}
        if (own := re.fullmatch(r"(?:self\.)?model\.generation_config\.(\w+)", text)) is not None:
            return {"model": own[1]}
        try:
            return {"constant": eval(compile(text, "expression", "eval"), {"__builtins__": {}}, {})}
        except Exception:
            return {"code": text}

    def _argument(self, name: str) -> Record:
        return {"argument": name, "default": self.defaults.get(name)}

    def holds(self, conditions: tuple[str, ...]) -> bool:
        """Whether the conditions hold with the trainer's default arguments; what cannot be told here counts as holding."""
        known = {"args": types.SimpleNamespace(**self.defaults), "data_collator": None, "peft_config": None, "bool": bool}
        known["self"] = types.SimpleNamespace(**{"use_vllm": False, **self.defaults, "args": known["args"]})
        for condition in conditions:
            try:
                if not eval(condition, {"__builtins__": {}}, known):
                    return False
            except Exception:
                continue
        return True

    def assignments(self) -> Iterator[Record]:
        """Assignments on <the model>.generation_config.<field>, in the order of the source."""
        for file, method in self.methods:
            for node, conditions in walk(method):
                for target in node.targets if isinstance(node, ast.Assign) else []:
                    if not isinstance(target, ast.Attribute) or not isinstance(target.value, ast.Attribute):
                        continue
                    if target.value.attr == "generation_config" and ast.unparse(target.value) != "self.generation_config":
                        assert isinstance(node, ast.Assign)
                        yield self._record("model", target.attr, value=node.value, line=node.lineno, file=file, conditions=conditions)

    def own_call(self) -> Iterator[Record]:
        """The fields of the GenerationConfig that the trainer passes to generate()."""
        for file, method in self.methods:
            if method.name in OWN_EVALUATION:
                continue
            for node, conditions in walk(method):
                if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call) or "value_" in ast.unparse(node.targets[0]):
                    continue
                if ast.unparse(node.value.func) != "GenerationConfig" or not self.holds(conditions):
                    continue
                for keyword in node.value.keywords:
                    if keyword.arg is not None:
                        yield self._record("call", keyword.arg, value=keyword.value, line=keyword.value.lineno, file=file, conditions=())
                    else:
                        yield from self._spread(method, node.lineno, ast.unparse(keyword.value), file)
                yield from self._added(method, file)
                return

    def _spread(self, method: ast.FunctionDef, before: int, name: str, file: str) -> Iterator[Record]:
        """`GenerationConfig(**name)`: the items of the dict last assigned to `name` above that line."""
        dicts = [
            node.value
            for node in ast.walk(method)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and node.lineno < before
            if ast.unparse(node.targets[0]) == name
        ]
        for key, value in zip(dicts[-1].keys, dicts[-1].values, strict=True) if dicts else ():
            if isinstance(key, ast.Constant):
                yield self._record("call", str(key.value), value=value, line=value.lineno, file=file, conditions=())

    def _added(self, method: ast.FunctionDef, file: str) -> Iterator[Record]:
        for node in ast.walk(method):
            if isinstance(node, ast.Assign) and (found := re.fullmatch(r"self\.generation_config\.(\w+)", ast.unparse(node.targets[0]))):
                yield self._record("call", found[1], value=node.value, line=node.lineno, file=file, conditions=())

    def _record(self, target: str, field: str, value: ast.expr, line: int, file: str, conditions: tuple[str, ...]) -> Record:
        needs = dict(found for condition in conditions if (found := _need(condition)) is not None)
        return {
            "target": target,
            "field": field,
            "value": self.value(value),
            "default": self.holds(conditions),
            "needs": needs,
            "when": list(conditions),
            "file": file,
            "line": line,
        }

    def aligns(self) -> bool:
        """Whether train() ends in transformers' own Trainer.train, which aligns special tokens."""
        trains = [item for _, node in self.chain for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "train"]
        return bool(self.chain) and all("super().train" in ast.unparse(item) for item in trains)


def _tokenizer_field(text: str) -> str | None:
    holder, _, field = text.rpartition(".")
    if field in ("eos_token_id", "pad_token_id", "bos_token_id") and (holder in TOKENIZERS or holder == "self"):
        return field
    return None


def _need(condition: str) -> tuple[str, Any] | None:
    """The trainer argument that a condition asks for: `args.stop_token == 'eos'` -> ("stop_token", "eos"); any value is "*"."""
    if (found := re.fullmatch(r"(?:self\.)?args\.(\w+) == '(\w+)'", condition)) is not None:
        return found[1], found[2]
    if (found := re.fullmatch(r"(?:self\.)?args\.(\w+) is not None", condition)) is not None:
        return found[1], "*"
    return None


def preset_name(file: str) -> str:
    """trl/trainer/online_dpo_trainer.py -> trl-online-dpo."""
    return "trl-" + Path(file).stem.removesuffix("_trainer").replace("_", "-").replace("ppov2", "ppo")


def trl_facts(root: Path, version: str) -> dict[str, Record]:
    """preset -> {"owner", "file", "aligns", "records"} of one trl version."""
    tree = read_tree(root, version, "trl")
    facts: dict[str, Record] = {}
    for preset, function in FUNCTIONS.items():
        if function in tree.functions:
            owner = Owner(tree, function)
            facts[preset] = {"owner": function, "file": tree.functions[function][0], "aligns": False, "records": list(owner.assignments())}
    v2 = {new for old, new in SAME_TRAINER.items() if old in tree.classes and list(Owner(tree, old).assignments())}
    for name in tree.classes:
        if not name.endswith("Trainer") or name.startswith("_") or "Base" in name or (name in v2 and not _touches(tree, name)):
            continue
        if name in SAME_TRAINER and _touches(tree, SAME_TRAINER[name]):
            continue  # 0.12 keeps PPOv2Trainer as an alias of PPOTrainer
        owner = Owner(tree, name)
        records = [*owner.assignments(), *owner.own_call()]
        if records or name in ALWAYS:
            facts[preset_name(owner.chain[0][0])] = {"owner": name, "file": owner.chain[0][0], "aligns": owner.aligns(), "records": records}
    return facts


def _touches(tree: Tree, name: str) -> bool:
    return name in tree.classes and any(True for _ in Owner(tree, name).assignments())


def transformers_facts(root: Path, version: str) -> dict[str, Record]:
    """The presets transformers-trainer and transformers-seq2seq-trainer of one transformers version."""
    tree = read_tree(root, version, "transformers")
    records = list(_alignment(tree))
    facts = {}
    if records:
        facts["transformers-trainer"] = {"owner": "Trainer", "file": "transformers/trainer.py", "aligns": True, "records": records}
    file, node = tree.classes["Seq2SeqTrainer"]
    facts["transformers-seq2seq-trainer"] = {
        "owner": "Seq2SeqTrainer",
        "file": file,
        "aligns": bool(records),
        "records": list(_seq2seq(file, node)),
    }
    return facts


def _alignment(tree: Tree) -> Iterator[Record]:
    """Trainer.train's alignment of special tokens: a method, then a function, then (5.18) a helper for one token."""
    if "_align_special_token" in tree.functions:
        file, node = tree.functions["_align_special_token"]
        calls = [child for child in ast.walk(node) if isinstance(child, ast.Call)]
        sets = [child for child in calls if ast.unparse(child).startswith("setattr(generation_config")]
        sets.sort(key=lambda child: child.lineno)
        for field, child in (("eos_token_id", sets[0]), ("bos_token_id", sets[-1]), ("pad_token_id", sets[-1])):
            yield _plain("model", field, {"align": field, "form": "adds"}, file, child.lineno)
        return
    if "align_special_tokens" in tree.functions:
        found: tuple[str, ast.AST] = tree.functions["align_special_tokens"]
    else:
        file, trainer = tree.classes["Trainer"]
        method = [item for item in trainer.body if isinstance(item, ast.FunctionDef) and item.name == "_align_special_tokens"]
        if not method:
            return
        found = (file, method[0])
    for node in ast.walk(found[1]):
        target = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ""
        name = re.search(r"model\.generation_config\.(\w+)$", target)
        if isinstance(node, ast.Assign) and name and ast.unparse(node.value) != f"[{target}]":  # not the step from an int to a list
            yield _plain("model", name[1], {"align": name[1], "form": "replaces"}, found[0], node.lineno)


def _seq2seq(file: str, node: ast.ClassDef) -> Iterator[Record]:
    for child in ast.walk(node):
        text = ast.unparse(child) if isinstance(child, ast.Assign) else ""
        if text == "self.model.generation_config = gen_config":
            value = {"argument": "generation_config", "default": None}
            yield {**_plain("model", "*", value, file, child.lineno), "default": False, "needs": {"generation_config": "*"}}  # type: ignore[attr-defined]
    predict = next(item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "predict")
    for child in ast.walk(predict):
        if isinstance(child, ast.Assign) and (name := re.fullmatch(r"gen_kwargs\['(\w+)'\]", ast.unparse(child.targets[0]))):
            argument = ast.unparse(child.value).rsplit(".", 1)[-1]
            value = {"argument": argument, "default": None}
            yield {**_plain("kwargs", name[1], value, file, child.lineno), "default": False, "needs": {argument: "*"}}


def _plain(target: str, field: str, value: Record, file: str, line: int) -> Record:
    return {"target": target, "field": field, "value": value, "default": True, "needs": {}, "when": [], "file": file, "line": line}


# --- the file ---------------------------------------------------------------------------------------------------------------------


KEYS = ("target", "field", "value", "default", "needs", "when", "file")
# What a record does not say: it happens with the trainer's default arguments, and no condition stands around it.
USUAL: Record = {"default": True, "needs": {}, "when": []}
_NOTHING = object()


def key_of(version: str) -> tuple[int, ...]:
    """1.10.0 after 1.9.2."""
    return tuple(int(part) for part in version.split("."))


def pack(facts: dict[str, dict[str, Record]]) -> Record:
    """version -> preset -> facts, as runs over versions: {"0.14.0..0.14.0": line}."""
    versions = sorted(facts, key=key_of)
    presets: dict[str, Record] = {}
    for name in sorted({name for found in facts.values() for name in found}):
        owners: dict[str, dict[str, Any]] = {}
        records: dict[str, dict[str, Any]] = {}
        for version in versions:
            found = facts[version].get(name)
            if found is None:
                continue
            head = json.dumps({"owner": found["owner"], "file": found["file"], "aligns": found["aligns"]})
            owners.setdefault(head, {})[version] = True
            times: dict[str, int] = {}
            for record in found["records"]:
                body = {key: record[key] for key in KEYS if record[key] != USUAL.get(key, _NOTHING)}
                text = json.dumps(body)
                times[text] = times.get(text, 0) + 1
                nth = {"time": times[text]} if times[text] > 1 else {}  # the same assignment twice in one file
                records.setdefault(json.dumps({**body, **nth}), {})[version] = record["line"]
        presets[name] = {
            "owners": [{**json.loads(head), "versions": list(_runs(versions, seen))} for head, seen in owners.items()],
            "records": [{**json.loads(text), "lines": _runs(versions, seen)} for text, seen in sorted(records.items(), key=_first)],
        }
    return {"versions": versions, "presets": presets}


def _first(item: tuple[str, dict[str, Any]]) -> tuple[Any, ...]:
    """The order of the file: by the first version that has the record, then by its line, so that adding a release changes few lines."""
    version, line = min(item[1].items(), key=lambda found: key_of(found[0]))
    return key_of(version), line, item[0]


def _runs(versions: list[str], seen: dict[str, Any]) -> dict[str, Any]:
    runs: list[list[Any]] = []
    for index, version in enumerate(versions):
        if version not in seen:
            continue
        if runs and runs[-1][1] == index - 1 and runs[-1][2] == seen[version]:
            runs[-1][1] = index
        else:
            runs.append([index, index, seen[version]])
    return {f"{versions[first]}..{versions[last]}": value for first, last, value in runs}


def unpack(library: Record) -> dict[str, dict[str, Record]]:
    """The reverse of pack()."""
    versions = library["versions"]
    facts: dict[str, dict[str, Record]] = {version: {} for version in versions}
    for name, preset in library["presets"].items():
        for owner in preset["owners"]:
            head = {key: value for key, value in owner.items() if key != "versions"}
            for run in owner["versions"]:
                for version in _span(versions, run):
                    facts[version][name] = {**head, "records": []}
        for record in preset["records"]:
            body = {**USUAL, **{key: value for key, value in record.items() if key not in ("lines", "time")}}
            for run, line in record["lines"].items():
                for version in _span(versions, run):
                    facts[version][name]["records"].append({**body, "line": line})
    for found in facts.values():
        for preset in found.values():
            preset["records"].sort(key=lambda record: (record["target"], record["file"], record["line"]))
    return facts


def _span(versions: list[str], run: str) -> list[str]:
    first, last = run.split("..")
    return versions[versions.index(first) : versions.index(last) + 1]


def write(data: Record, path: Path) -> None:
    """One record a line: a change of one release is a small diff."""
    lines = ["{"]
    for library in sorted(data):
        lines.append(f' "{library}": {{"versions": {json.dumps(data[library]["versions"])}, "presets": {{')
        names = list(data[library]["presets"])
        for name in names:
            preset = data[library]["presets"][name]
            lines.append(f'  "{name}": {{"owners": {json.dumps(preset["owners"])}, "records": [')
            lines += [f"   {json.dumps(record)}{',' if record is not preset['records'][-1] else ''}" for record in preset["records"]]
            lines.append("  ]}" + ("," if name != names[-1] else ""))
        lines.append(" }}" + ("," if library != sorted(data)[-1] else ""))
    path.write_text("\n".join([*lines, "}"]) + "\n", encoding="utf-8")


def fetch(package: str, version: str, into: Path) -> Path:
    """The unpacked .py files of a release: `into`/<version>/<package>/..."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(into)]
    subprocess.run([*command, f"{package}=={version}"], check=True)
    wheel = next(into.glob(f"{package}-{version}-*.whl"))
    wanted = re.compile(r"trl/.*\.py|transformers/trainer(_utils|_seq2seq)?\.py")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(into / version, [name for name in archive.namelist() if wanted.fullmatch(name)])
    return into / version


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", nargs="*", default=[], metavar="VERSION")
    parser.add_argument("--transformers", nargs="*", default=[], metavar="VERSION")
    parser.add_argument("--trl-source", type=Path, metavar="DIR")
    parser.add_argument("--transformers-source", type=Path, metavar="DIR")
    parser.add_argument("--output", type=Path, default=TARGET)
    options = parser.parse_args()
    data = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
    readers = {"trl": trl_facts, "transformers": transformers_facts}
    with tempfile.TemporaryDirectory() as scratch:
        for library, reader in readers.items():
            source: Path | None = getattr(options, f"{library}_source")
            named: list[str] = getattr(options, library)
            facts = unpack(data[library]) if library in data else {}
            roots = {path.name: path for path in source.iterdir() if path.is_dir()} if source else {}
            roots |= {version: fetch(library, version, Path(scratch)) for version in named}
            for version, root in sorted(roots.items(), key=lambda item: key_of(item[0])):
                facts[version] = reader(root, version)
            data[library] = pack(facts)
    write(data, options.output)
    counts = [f"{library} {len(data[library]['versions'])} versions" for library in sorted(data)]
    print(f"{options.output}: {', '.join(counts)}")


if __name__ == "__main__":
    main()

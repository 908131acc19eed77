"""What a folder is: a model or adapter directory, a checkpoint, a repository, a hub cache."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace

from llmdoctor.core.errors import QuestionError
from llmdoctor.files.tree import Walk
from llmdoctor.look.files import recognise_file
from llmdoctor.look.paths import quoted
from llmdoctor.look.types import Recognised, Suggestion
from llmdoctor.modeldir.directory import FILES, is_model_dir, read_model_dir
from llmdoctor.modeldir.generating import no_generation
from llmdoctor.modeldir.hub import find_snapshot, looks_like_id

_SHOWN = 3


def recognise_folder(path: str) -> Recognised:
    """Return what the folder is. Raises QuestionError if it cannot be read."""
    if is_model_dir(path):
        return _model(path)
    try:
        names = os.listdir(path)
    except OSError as error:
        raise QuestionError(f"{path}: the directory cannot be read: {error.strerror or error}") from None
    if not names:
        return Recognised("empty", "an empty folder")
    return _tree(path)


def recognise_cached(name: str) -> Recognised:
    """Return what a hub id in the local cache is. Raises QuestionError if there is no such file and no such model."""
    if not looks_like_id(name) or find_snapshot(name) is None:
        raise QuestionError(f"{name}: no such file or directory, and no model of that name in the hub cache")
    return _model(name)


def _model(path: str) -> Recognised:
    directory = read_model_dir(path)
    config = directory.config.value if directory.config is not None and isinstance(directory.config.value, dict) else {}
    names = sorted(set(os.listdir(directory.path)) & {*FILES, "training_args.bin", "trainer_state.json", "chat_template.jinja"})
    rows = [("files", ", ".join(names))]
    architectures = config.get("architectures")
    rows += [("architecture", str(architectures[0])[:60])] if isinstance(architectures, list) and architectures else []
    rows += [("chat template", "yes" if directory.chat_template is not None else "no")]
    model, where = quoted(path), "" if path == "." else f" {quoted(path)}"
    silent = no_generation(directory)
    stops = (
        Suggestion(f"llmdoctor gencfg check {model}", "whether it stops where its chat template ends an answer")
        if silent is None
        else Suggestion(f"llmdoctor check{where}", "faults in its files")
    )
    rows += [] if silent is None else [("generate()", f"{'no' if silent.certain else 'unknown'}: {silent.reason}")]
    if directory.adapter is not None:
        missing = "" if directory.adapter.base is not None else ", which is not on this machine"
        rows.append(("base model", f"{directory.adapter.name}{missing}"))
        return Recognised(
            "adapter",
            "an adapter directory",
            tuple(rows),
            (stops, Suggestion(f"llmdoctor gencfg show {model}", "the effective settings of a call, from the base model")),
        )
    if not config:
        return Recognised(
            "tokenizer",
            "a tokenizer directory without a model",
            tuple(rows),
            (Suggestion(f"llmdoctor check{where}", "faults in its files"),),
        )
    mask = Suggestion(f"llmdoctor mask inspect {model} --shape 1,4096", "the attention mask of each layer")
    memory = Suggestion(
        f"llmdoctor mem compare {model} --strategy trainer:adamw_torch,bf16 --strategy deepspeed:zero2,bf16",
        "the memory of a training step, and its causes",
    )
    checkpoint = "trainer_state.json" in names or "training_args.bin" in names
    what = f"a {'checkpoint' if checkpoint else 'model directory'} ({str(config.get('model_type') or 'no model_type')[:60]})"
    first = Suggestion(f"llmdoctor check{where}", "whether anything was lost when it was saved") if checkpoint else stops
    return Recognised("checkpoint" if checkpoint else "model", what, tuple(rows), (first, mask, memory))


_KINDS = {".py": "code", ".ipynb": "code", ".jsonl": "lines", ".parquet": "lines", ".json": "config", ".yaml": "config", ".yml": "config"}
_NOUNS = {"model": "model directory", "config": "configuration or request", "lines": "table of records", "code": "Python file"}
_PLURALS = {"model": "model directories", "config": "configurations or requests", "lines": "tables of records", "code": "Python files"}
_KEPT, _OPENED, _LARGE = 200, 200, 2**20  # paths kept of each kind; JSON and YAML files opened, and bytes of the largest of them


@dataclass(slots=True)
class _Contents:
    """What a folder contains: `paths` are the first ones of each kind in _KINDS, and of model directories; `counts` counts all."""

    paths: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in _NOUNS})
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, path: str) -> None:
        self.counts[kind] += 1
        if len(self.paths[kind]) < _KEPT:
            self.paths[kind].append(os.path.normpath(path))


def _tree(path: str) -> Recognised:
    """Return what a folder contains, walked as `check` walks it: how many things of each kind, and the first paths."""
    found = _Contents()
    for folder in Walk(path).folders():
        names = frozenset(folder.files)
        if names & set(FILES[1:]) or ("config.json" in names and is_model_config(os.path.join(folder.path, "config.json"))):
            found.add("model", folder.path)
        for name in folder.files:
            kind = _KINDS.get(os.path.splitext(name)[1].lower())
            if kind is not None:
                found.add(kind, os.path.join(folder.path, name))
    candidates = found.counts["config"]
    found.paths["config"] = [file for file in found.paths["config"][:_OPENED] if _is_config(file)]
    found.counts["config"] = len(found.paths["config"])
    rows = [
        (_PLURALS[kind], f"{found.counts[kind]:,}: {', '.join(found.paths[kind][:_SHOWN])}{', ...' if found.counts[kind] > _SHOWN else ''}")
        for kind in ("model", "config", "lines")
        if found.counts[kind]
    ]
    if candidates > _OPENED:
        rows.append(("not opened", f"{candidates - _OPENED:,} JSON and YAML files after the first {_OPENED}"))
    contents = [f"{count:,} {_NOUNS[kind] if count == 1 else _PLURALS[kind]}" for kind in _NOUNS if (count := found.counts[kind])]
    word = "repository" if os.path.isdir(os.path.join(path, ".git")) else "folder"
    what = f"a {word} with {', '.join(contents)}" if contents else "a folder without anything that llmdoctor reads"
    suggestions = _suggestions(path, found.paths)
    kind = word if suggestions else "folder"
    return Recognised(kind, what, tuple(rows), tuple(suggestions[:_SHOWN]), {name: found.counts[name] for name in _NOUNS})


def _is_config(path: str) -> bool:
    try:
        return os.path.getsize(path) <= _LARGE and recognise_file(path).kind in ("strategy", "request")
    except (QuestionError, OSError):
        return False


def is_model_config(path: str) -> bool:
    """Return whether a config.json is that of a model: many programs have a file of that name."""
    try:
        return recognise_file(path).kind == "model-file"
    except QuestionError:
        return False


def _suggestions(path: str, found: dict[str, list[str]]) -> list[Suggestion]:
    """Return what to try in a tree: the static check, then a command for the most informative file."""
    suggestions = []
    if found["model"] or found["code"] or found["config"]:
        suggestions.append(
            Suggestion("llmdoctor check" + ("" if path == "." else f" {quoted(path)}"), "all static rules over everything in it")
        )
    for file in found["lines"][:20]:
        try:
            found_file = recognise_file(file)
        except QuestionError:
            continue
        if found_file.kind in ("trace", "outputs", "measured"):
            suggestions.append(found_file.suggestions[0])
            break
    if found["config"]:
        config = recognise_file(found["config"][0])
        offered, names_one = config.suggestions[-1], any(name == "model" for name, _ in config.evidence)
        if found["model"] and not names_one:  # a file that names its model is about no other
            offered = replace(offered, command=offered.command.replace(" MODEL", f" {quoted(found['model'][0])}"))
        suggestions.append(offered)
    if found["model"]:
        model = quoted(found["model"][0])
        suggestions.append(Suggestion(f"llmdoctor gencfg show {model}", "the effective settings of generate()"))
        suggestions.append(Suggestion(f"llmdoctor mask inspect {model} --shape 1,4096", "the attention mask of each layer"))
    elif found["code"]:
        suggestions.append(
            Suggestion(
                "llmdoctor gencfg trace -o run.jsonl -- python SCRIPT", "which generate() calls of a run stop, and why the others do not"
            )
        )
    return suggestions

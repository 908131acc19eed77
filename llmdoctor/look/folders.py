"""What a folder is: a model or adapter directory, a checkpoint, a repository, a hub cache."""

from __future__ import annotations

import os
from collections import Counter

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.text import plural
from llmdoctor.files.tree import Walk
from llmdoctor.look.report import Seen, Try, quoted
from llmdoctor.modeldir.directory import FILES, is_model_dir, read_model_dir
from llmdoctor.modeldir.hub import find_snapshot, looks_like_id

_SHOWN = 3


def see_folder(path: str) -> Seen:
    """What the folder is. Raises QuestionError where it cannot be read."""
    if is_model_dir(path):
        return _model(path)
    try:
        names = os.listdir(path)
    except OSError as error:
        raise QuestionError(f"{path}: the directory cannot be read: {error.strerror or error}") from None
    if not names:
        return Seen("empty", "AN EMPTY FOLDER")
    return _tree(path)


def see_cached(name: str) -> Seen:
    """A hub id's model in the local cache. Raises QuestionError where there is neither a file nor such a model."""
    if not looks_like_id(name) or find_snapshot(name) is None:
        raise QuestionError(f"{name}: no such file or directory, and no model of that name in the hub cache")
    return _model(name)


def _model(path: str) -> Seen:
    directory = read_model_dir(path)
    config = directory.config.value if directory.config is not None and isinstance(directory.config.value, dict) else {}
    names = sorted(set(os.listdir(directory.path)) & {*FILES, "training_args.bin", "trainer_state.json", "chat_template.jinja"})
    rows = [("files", ", ".join(names))]
    architectures = config.get("architectures")
    rows += [("architecture", str(architectures[0])[:60])] if isinstance(architectures, list) and architectures else []
    rows += [("chat template", "yes" if directory.chat_template is not None else "no")]
    model, where = quoted(path), "" if path == "." else f" {quoted(path)}"
    stops = Try(f"llmdoctor gencfg check {model}", "does it stop where its template ends an answer?")
    if directory.adapter is not None:
        missing = "" if directory.adapter.base is not None else ", which is not on this machine"
        rows.append(("base model", f"{directory.adapter.name}{missing}"))
        return Seen("adapter", "AN ADAPTER DIRECTORY", tuple(rows), (stops, Try(f"llmdoctor gencfg show {model}", "the base model's call")))
    if not config:
        return Seen(
            "tokenizer", "A TOKENIZER, without a model", tuple(rows), (Try(f"llmdoctor check{where}", "what is wrong with its files"),)
        )
    mask = Try(f"llmdoctor mask inspect {model} --shape 1,4096", "what each layer gets as its mask")
    memory = Try(
        f"llmdoctor mem compare {model} --strategy trainer:adamw_torch,bf16 --strategy deepspeed:zero2,bf16",
        "what training it holds, and why",
    )
    checkpoint = "trainer_state.json" in names or "training_args.bin" in names
    what = f"A {'CHECKPOINT' if checkpoint else 'MODEL DIRECTORY'}: {str(config.get('model_type') or 'no model_type')[:60]}"
    first = Try(f"llmdoctor check{where}", "was anything lost when it was saved?") if checkpoint else stops
    return Seen("checkpoint" if checkpoint else "model", what, tuple(rows), (first, mask, memory))


def _tree(path: str) -> Seen:
    """A folder of things, as `check` would walk it: how many of which, and where the first ones are."""
    found: dict[str, list[str]] = {"model": [], "code": [], "lines": [], "json": []}
    walk = Walk(path)
    for folder in walk.folders():
        names = frozenset(folder.files)
        if names & set(FILES[1:]) or ("config.json" in names and is_model_config(os.path.join(folder.path, "config.json"))):
            found["model"].append(os.path.normpath(folder.path))
        for name in folder.files:
            kind = _KINDS.get(os.path.splitext(name)[1].lower())
            if kind is not None and len(found[kind]) < (_MOST if kind != "json" else _CONFIGS):
                found[kind].append(os.path.normpath(os.path.join(folder.path, name)))
    configs = [file for file in found.pop("json") if _is_config(file)]
    found["config"] = configs[:_CONFIGS]
    counts = Counter({kind: len(paths) for kind, paths in found.items()})
    rows = tuple(
        (label, f"{counts[kind]}: {', '.join(found[kind][:_SHOWN])}{', ...' if counts[kind] > _SHOWN else ''}")
        for kind, label in (("model", "model directories"), ("config", "configs, requests"), ("lines", "JSON lines, tables"))
        if counts[kind]
    )
    rows += (("Python", plural(counts["code"], "file")),) if counts["code"] else ()
    tries = list(_tries(path, found))
    if not tries:
        return Seen("folder", "A FOLDER with nothing in it that this tool has a question for", rows, inside=dict(counts))
    is_repository = os.path.isdir(os.path.join(path, ".git"))
    return Seen(
        "repository" if is_repository else "folder", "A REPOSITORY" if is_repository else "A FOLDER", rows, tuple(tries[:3]), dict(counts)
    )


_KINDS = {".py": "code", ".ipynb": "code", ".jsonl": "lines", ".parquet": "lines", ".json": "json", ".yaml": "json", ".yml": "json"}
_MOST, _CONFIGS, _LARGE = 10_000, 200, 2**20


def _is_config(path: str) -> bool:
    from llmdoctor.look.files import see_file

    try:
        return os.path.getsize(path) <= _LARGE and see_file(path).kind in ("strategy", "request")
    except (QuestionError, OSError):
        return False


def is_model_config(path: str) -> bool:
    """Whether a config.json is a model's: many programs have one."""
    from llmdoctor.look.files import see_file

    try:
        return see_file(path).kind == "model-file"
    except QuestionError:
        return False


def _tries(path: str, found: dict[str, list[str]]) -> list[Try]:
    """What to try in a tree: everything static, then the most telling thing in it."""
    from llmdoctor.look.files import see_file

    tries = []
    if found["model"] or found["code"] or found["config"]:
        tries.append(Try("llmdoctor check" + ("" if path == "." else f" {quoted(path)}"), "every static rule over all of it"))
    for file in found["lines"][:20]:
        try:
            seen = see_file(file)
        except QuestionError:
            continue
        if seen.kind in ("trace", "outputs", "measured"):
            tries.append(seen.tries[0])
            break
    if found["config"]:
        offered = see_file(found["config"][0]).tries[-1]
        tries.append(
            Try(offered.command.replace(" MODEL", f" {quoted(found['model'][0])}") if found["model"] else offered.command, offered.answers)
        )
    if found["model"]:
        model = quoted(found["model"][0])
        tries.append(Try(f"llmdoctor gencfg show {model}", "what a generate() of it comes to"))
        tries.append(Try(f"llmdoctor mask inspect {model} --shape 1,4096", "what each layer gets as its mask"))
    elif found["code"]:
        tries.append(
            Try("llmdoctor gencfg trace -o run.jsonl -- python SCRIPT", "a run of yours: which generate() calls stop, and why not")
        )
    return tries

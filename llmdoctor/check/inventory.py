"""The files of a tree that may be worth opening, by their names alone: only .gitignore files are opened here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Skipped
from llmdoctor.files.opening import is_there, shown_path
from llmdoctor.files.project import ProjectSettings
from llmdoctor.files.tree import Folder, Walk
from llmdoctor.modeldir.directory import FILES as MODEL_FILES

CODE = (".py", ".ipynb")
TEXTS = (".json", ".jsonl", ".yaml", ".yml")
SCRIPTS = (".sh", ".bash", ".slurm", ".sbatch")
PICKLES = ("training_args.bin",)
_OF_A_MODEL = frozenset({*MODEL_FILES, "preprocessor_config.json", "processor_config.json", "chat_template.json", "vocab.json"})
# Files of other programs, of which a repository may hold thousands.
_OF_OTHERS = frozenset(
    "package.json package-lock.json tsconfig.json composer.json launch.json tasks.json settings.json .pre-commit-config.yaml mkdocs.yml".split()
)
# Each of them makes a folder a model directory; for a config.json alone its content decides.
_SURE = frozenset({"generation_config.json", "tokenizer_config.json", "adapter_config.json", "model.safetensors.index.json"})


@dataclass(slots=True)
class Inventory:
    """Paths by what they are checked as, and what the walk skipped.

    `maybe` are folders with a config.json and no other file of a model: many programs have a config.json.
    """

    models: list[str] = field(default_factory=list)
    maybe: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    pickles: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def take_inventory(paths: Sequence[str], settings: ProjectSettings) -> Inventory:
    """Return everything in `paths` that may be worth opening. A file that is named is sorted by its ending alone.

    Raises QuestionError if a path does not exist.
    """
    found = Inventory()
    for path in map(shown_path, paths):
        if os.path.isdir(path):
            walk = Walk(path, settings.exclude, settings.root)
            for folder in walk.folders():
                _sort(folder, found)
            found.skipped += walk.skipped
        elif is_there(path) and settings.excludes(path):
            found.skipped.append(Skipped(path, f"excluded by {settings.source}"))
        elif is_there(path):
            _named(path, found)
        else:
            raise QuestionError(f"{path}: no such file or directory")
    for kind in (found.models, found.maybe, found.texts, found.pickles, found.code):
        kind[:] = dict.fromkeys(kind)  # several files of a model may be named, and the folder that they lie in too
    return found


def _sort(folder: Folder, found: Inventory) -> None:
    names = frozenset(folder.files)
    of_a_model = names & _OF_A_MODEL
    _model(os.path.normpath(folder.path), names, found)
    for name in folder.files:
        path = os.path.normpath(os.path.join(folder.path, name))
        if name.endswith(CODE):
            found.code.append(path)
        elif name.endswith(TEXTS) and name not in of_a_model and name not in _OF_OTHERS:
            found.texts.append(path)
        elif name in PICKLES:
            found.pickles.append(path)
        elif name.endswith(SCRIPTS):
            found.scripts.append(path)


def _model(path: str, names: frozenset[str], found: Inventory) -> None:
    if names & _SURE:
        found.models.append(path)
    elif "config.json" in names:
        found.maybe.append(path)


def _named(path: str, found: Inventory) -> None:
    folder, name = os.path.split(os.path.normpath(path))
    if name in _OF_A_MODEL:
        beside = os.listdir(folder or ".") if os.path.isdir(folder or ".") else ()
        _model(folder or ".", frozenset({name, *beside}), found)  # `name` itself may be on standard input alone
    elif name.endswith(CODE):
        found.code.append(os.path.normpath(path))
    elif name.endswith(TEXTS):
        found.texts.append(os.path.normpath(path))
    elif name.endswith((".bin", ".pt", ".pth", ".pkl", ".pickle")):
        found.pickles.append(os.path.normpath(path))
    else:
        found.skipped.append(
            Skipped(path, f"not a kind of file that is checked: expected {', '.join((*CODE, *TEXTS))}, or training_args.bin")
        )

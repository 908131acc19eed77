"""What lies in a tree and may be worth opening, told by names alone: nothing is opened here but .gitignore."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Skipped
from llmdoctor.core.settings import Settings
from llmdoctor.files.opening import shown_path
from llmdoctor.files.tree import Folder, Walk, excluded
from llmdoctor.modeldir.directory import FILES as MODEL_FILES

CODE = (".py", ".ipynb")
TEXTS = (".json", ".jsonl", ".yaml", ".yml")
SCRIPTS = (".sh", ".bash", ".slurm", ".sbatch")
PICKLES = ("training_args.bin",)
_OF_A_MODEL = frozenset({*MODEL_FILES, "preprocessor_config.json", "processor_config.json", "chat_template.json", "vocab.json"})
# Files of other programs that no library here reads, and that a repository may hold by the thousand.
_OF_OTHERS = frozenset(
    "package.json package-lock.json tsconfig.json composer.json launch.json tasks.json settings.json .pre-commit-config.yaml mkdocs.yml".split()
)
# Any of them makes a folder a model's; a config.json alone may be anybody's, and its content decides.
_SURE = frozenset({"generation_config.json", "tokenizer_config.json", "adapter_config.json", "model.safetensors.index.json"})


@dataclass(slots=True)
class Found:
    """Paths by what will be done with them, and what the walk has left out. `maybe` are folders with a config.json and nothing else of a model."""

    models: list[str] = field(default_factory=list)
    maybe: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    pickles: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def find(paths: list[str], settings: Settings) -> Found:
    """Everything in `paths` that may be worth opening. A file that is named is taken by its ending alone.

    Raises QuestionError where a path is not there.
    """
    found = Found()
    for path in map(shown_path, paths):
        if os.path.isdir(path):
            walk = Walk(path, settings.exclude, settings.root)
            for folder in walk.folders():
                _sort(folder, found)
            found.skipped += walk.skipped
        elif os.path.exists(path) and excluded(path, settings.exclude, settings.root):
            found.skipped.append(Skipped(path, f"excluded by {settings.source}"))
        elif os.path.exists(path):
            _named(path, found)
        else:
            raise QuestionError(f"{path}: no such file or directory")
    for kind in (found.models, found.maybe, found.texts, found.pickles, found.code):
        kind[:] = dict.fromkeys(kind)  # several files of a model may be named, and the folder that they lie in too
    return found


def _sort(folder: Folder, found: Found) -> None:
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


def _model(path: str, names: frozenset[str], found: Found) -> None:
    if names & _SURE:
        found.models.append(path)
    elif "config.json" in names:
        found.maybe.append(path)


def _named(path: str, found: Found) -> None:
    folder, name = os.path.split(os.path.normpath(path))
    if name in _OF_A_MODEL:
        _model(folder or ".", frozenset(os.listdir(folder or ".")), found)
    elif name.endswith(CODE):
        found.code.append(os.path.normpath(path))
    elif name.endswith(TEXTS):
        found.texts.append(os.path.normpath(path))
    elif name.endswith((".bin", ".pt", ".pth", ".pkl", ".pickle")):
        found.pickles.append(os.path.normpath(path))
    else:
        found.skipped.append(Skipped(path, f"no kind of file that is checked: expected {', '.join((*CODE, *TEXTS))}, or training_args.bin"))

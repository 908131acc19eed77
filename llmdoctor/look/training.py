"""Training configurations and scripts: what they are, and the commands that answer for them."""

from __future__ import annotations

import re
from dataclasses import replace

from llmdoctor.configs.script import TRAINER
from llmdoctor.configs.trl import OBJECTIVES
from llmdoctor.core.errors import QuestionError
from llmdoctor.gencfg.trainers import load_preset, preset_names, preset_span
from llmdoctor.look.paths import model_near, model_on_this_machine, quoted
from llmdoctor.look.types import Recognised, Suggestion
from llmdoctor.mem.keys import StrategyContext
from llmdoctor.mem.strategies import read_strategy

_LOADED = re.compile(rb"""from_pretrained\(\s*["']([^"'\n]{1,200})["']""")


def recognise_code(path: str, data: bytes, ending: str) -> Recognised:
    """Return what a Python file or a notebook is by its bytes, and the commands for it; a script that makes training arguments is a strategy too."""
    check = Suggestion(f"llmdoctor check {quoted(path)}", "mistakes in generate() calls, masks and sampling")
    if ending == ".ipynb":
        return Recognised("code", "a notebook", (), (check,))
    run = Suggestion(f"llmdoctor gencfg trace -o run.jsonl -- python {quoted(path)}", "which of its generate() calls stop, and why not")
    if not any(f"{name}(".encode() in data for name in (*TRAINER, *OBJECTIVES)):
        return Recognised("code", "a Python file", (), (check, run) if b"generate(" in data else (check,))
    name = _LOADED.search(data)
    found = recognise_strategy(path, "a training script", (), None if name is None else name[1].decode("utf-8", "replace"))
    measured = Suggestion(f"llmdoctor mem measure -- python {quoted(path)}", "the memory that its steps really hold, by component")
    return replace(found, kind="code", suggestions=(check, *_presets(path, data, name), *found.suggestions[1:], measured, run))


def _presets(path: str, data: bytes, name: re.Match[bytes] | None) -> tuple[Suggestion, ...]:
    """Return a command for a trainer in the script that changes how the model generates; `name` is the first model that is loaded."""
    found = None if name is None else model_on_this_machine(name[1].decode("utf-8", "replace"), path)
    for preset in preset_names():
        owner = preset_span(preset)[3]
        if owner.endswith("Trainer") and re.search(rf"\b{owner}\(".encode(), data) and load_preset(preset).assignments:
            command = f"llmdoctor gencfg show {found or model_near(path)} --preset {preset}"
            return (Suggestion(command, f"what {owner} sets for generation, and whether a call stops"),)
    return ()


def recognise_strategy(path: str, what: str, rows: tuple[tuple[str, str], ...], named: str | None = None) -> Recognised:
    """Return a training configuration with its commands; `what` is its kind, `named` the model that it names."""
    found = None if named is None else model_on_this_machine(named, path)
    file, model = quoted(path), found or model_near(path)
    if named is not None:
        rows = (*rows, ("model", named[:76] + ("" if found else "  not on this machine")))
    check = Suggestion(f"llmdoctor check {file}", "settings that contradict each other or have no effect")
    try:
        stage = read_strategy(path, StrategyContext(model_dtype="bfloat16", hidden_size=1024)).stage
    except QuestionError as error:  # such as an "auto" that only the Trainer fills in
        rows = (*rows, ("memory", f"not predictable from this file alone: {str(error).removeprefix(f'{path}: ')}"))
        both = f"llmdoctor mem compare {model} --strategy trainer:adamw_torch,bf16 --strategy deepspeed:zero2,bf16"
        return Recognised(
            "strategy", what, rows, (check, Suggestion(both, "the memory of a training step with the Trainer and with ZeRO-2"))
        )
    other = "trainer:adamw_torch,bf16" if stage >= 0 else "deepspeed:zero2,bf16"
    suggestions = (
        check,
        Suggestion(f"llmdoctor mem compare {model} --strategy {file}", "the memory of a training step, by component"),
        Suggestion(
            f"llmdoctor mem compare {model} --strategy {file} --strategy {other}", "the difference from another strategy, and its causes"
        ),
    )
    return Recognised("strategy", what, rows, suggestions)

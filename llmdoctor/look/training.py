"""Training configurations and scripts: what they are, and the commands that answer for them."""

from __future__ import annotations

from dataclasses import replace

from llmdoctor.configs.script import TRAINER
from llmdoctor.configs.trl import OBJECTIVES
from llmdoctor.core.errors import QuestionError
from llmdoctor.look.paths import model_near, quoted
from llmdoctor.look.types import Recognised, Suggestion
from llmdoctor.mem.keys import StrategyContext
from llmdoctor.mem.strategies import read_strategy


def recognise_code(path: str, data: bytes, ending: str) -> Recognised:
    """Return what a Python file or a notebook is by its bytes, and the commands for it; a script that makes training arguments is a strategy too."""
    check = Suggestion(f"llmdoctor check {quoted(path)}", "mistakes in generate() calls, masks and sampling")
    if ending == ".ipynb":
        return Recognised("code", "a notebook", (), (check,))
    run = Suggestion(f"llmdoctor gencfg trace -o run.jsonl -- python {quoted(path)}", "which of its generate() calls stop, and why not")
    if not any(f"{name}(".encode() in data for name in (*TRAINER, *OBJECTIVES)):
        return Recognised("code", "a Python file", (), (check, run) if b"generate(" in data else (check,))
    found = recognise_strategy(path, "a training script", ())
    measured = Suggestion(f"llmdoctor mem measure -- python {quoted(path)}", "the memory that its steps really hold, by component")
    return replace(found, kind="code", suggestions=(check, *found.suggestions[1:], measured, run))


def recognise_strategy(path: str, what: str, rows: tuple[tuple[str, str], ...]) -> Recognised:
    """Return a training configuration with its commands; `what` names its kind."""
    file, model = quoted(path), model_near(path)
    check = Suggestion(f"llmdoctor check {file}", "settings that contradict each other or have no effect")
    try:
        stage = read_strategy(path, StrategyContext(model_dtype="bfloat16", hidden_size=1024)).stage
    except QuestionError as error:  # such as an "auto" that only the Trainer fills in
        rows = (*rows, ("memory", f"not predictable from this file alone: {str(error).removeprefix(f'{path}: ')}"))
        named = f"llmdoctor mem compare {model} --strategy trainer:adamw_torch,bf16 --strategy deepspeed:zero2,bf16"
        return Recognised(
            "strategy", what, rows, (check, Suggestion(named, "the memory of a training step with the Trainer and with ZeRO-2"))
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

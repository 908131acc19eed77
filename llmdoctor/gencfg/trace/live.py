"""The recorder as a callback of transformers' Trainer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from llmdoctor.gencfg.trace.recording import Recording, rank_path


def trace_callback(path: str | Path = "run.jsonl", *, overwrite: bool = False) -> Any:
    """A transformers.TrainerCallback that records from now on until training ends, and then writes the trace to `path`.

        trainer = PPOTrainer(..., callbacks=[trace_callback("run.jsonl")])

    Made before the trainer, it also sees what the trainer's constructor does to the model. Where training raises, what was recorded stays
    beside `path`, and `llmdoctor gencfg trace --summary PATH` reads it. Raises QuestionError if `path` cannot be
    written, or exists and `overwrite` is false.
    """
    from transformers import TrainerCallback

    class TraceCallback(TrainerCallback):  # type: ignore[misc]
        """Ends the recording with the training."""

        def __init__(self) -> None:
            self.recording = Recording(rank_path(Path(path)), overwrite=overwrite)

        def on_train_end(self, *_: Any, **__: Any) -> None:
            """Write the trace, and say where it is."""
            self.recording.close()
            sys.stderr.write(f"llmdoctor: traced to {self.recording.path}; llmdoctor gencfg trace --summary {self.recording.path}\n")

    return TraceCallback()

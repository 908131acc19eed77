"""The recorder as a callback of transformers' Trainer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from llmdoctor.gencfg.trace.recording import EndCounts, Recording, rank_path


def trace_callback(path: str | Path = "run.jsonl", *, overwrite: bool = False) -> Any:
    """A transformers.TrainerCallback that records from now on until training ends, and then writes the trace to `path`.

        trainer = PPOTrainer(..., callbacks=[trace_callback("run.jsonl")])

    Made before the trainer, it also sees what the trainer's constructor does to the model. Each time the trainer logs, the callback adds how the
    sequences since the last time ended, for whatever `report_to` names: `llmdoctor/sequences`, `llmdoctor/past_terminator_share` and
    `llmdoctor/at_limit_share`, and on CUDA `llmdoctor/peak_bytes`. If training raises, what was recorded stays beside `path`, and
    `llmdoctor gencfg trace --summary PATH` reads it. Raises QuestionError if `path` cannot be written, or exists and `overwrite` is false.
    """
    from transformers import TrainerCallback

    class TraceCallback(TrainerCallback):  # type: ignore[misc]
        """Ends the recording with the training."""

        def __init__(self) -> None:
            self._counts = EndCounts()
            self.recording = Recording(rank_path(Path(path)), overwrite=overwrite, counts=self._counts)

        def on_init_end(self, *_: Any, **__: Any) -> None:
            """Take the first place among the callbacks: those that report to TensorBoard and others read `logs` in their order."""
            handler = sys._getframe(1).f_locals.get("self")  # CallbackHandler.call_event; a callback is given no other way to it
            callbacks = getattr(handler, "callbacks", None)
            if isinstance(callbacks, list) and self in callbacks:
                callbacks.remove(self)
                callbacks.insert(0, self)

        def on_log(self, _args: Any, _state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
            """Add the counts to what is being logged."""
            if isinstance(logs, dict):
                logs.update({f"llmdoctor/{name}": value for name, value in {**self._counts.take(), **_peak()}.items()})

        def on_train_end(self, *_: Any, **__: Any) -> None:
            """Write the trace, and say where it is."""
            self.recording.close()
            sys.stderr.write(f"llmdoctor: traced to {self.recording.path}; llmdoctor gencfg trace --summary {self.recording.path}\n")

    return TraceCallback()


def _peak() -> dict[str, float]:
    """Return the largest number of bytes that torch has held on the current CUDA device; empty without one."""
    import torch

    return {"peak_bytes": float(torch.cuda.max_memory_allocated())} if torch.cuda.is_available() else {}

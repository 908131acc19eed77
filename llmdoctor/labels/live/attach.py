"""What `labels inspect MODEL -- COMMAND` does inside each Python process of the user's command: the batches that the model trains on are recorded.

transformers' Trainer.training_step receives each batch as the collator made it (TRL's, axolotl's and LLaMA-Factory's trainers call it too).
Without a Trainer, a call of a transformers model in training mode with input_ids and labels is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmdoctor.attach.session import Session

MOST_TOKENS = 4 * 2**20  # of all batches of one process


class Batches:
    """Writes the first `most` batches of this process; with `stop`, the process ends behind them."""

    def __init__(self, session: Session, most: int, stop: bool) -> None:
        self._session, self._most, self._stop = session, most, stop
        self.seen = 0
        self.inside = False
        self._tokens = 0

    def take(self, batch: Any, where: str) -> None:
        """Record a batch that holds input_ids and labels. Raises SystemExit behind the last one, if that was asked for."""
        if self.seen >= self._most or self._tokens > MOST_TOKENS:
            if self._stop:
                raise SystemExit(0)
            return
        with self._session.guard(where):
            if not isinstance(batch, Mapping) or batch.get("input_ids") is None or batch.get("labels") is None:
                return
            fields = {name: _lists(batch[name]) for name in ("input_ids", "labels", "attention_mask") if batch.get(name) is not None}
            self._tokens += sum(map(len, fields["input_ids"]))
            self.seen += 1
            self._session.write("batch", where=where, number=self.seen, **fields)


def attach(session: Session, most: int, stop: bool) -> None:
    """Record the first `most` training batches of this process."""
    batches = Batches(session, most, stop)
    session.hook.after("transformers.trainer", lambda module: _watch_trainer(session, batches, module))
    session.hook.after("transformers.modeling_utils", lambda module: _watch_models(session, batches, module))


def _watch_trainer(session: Session, batches: Batches, module: ModuleType) -> None:
    trainer = module.__dict__["Trainer"]
    session.patches.set(trainer, "training_step", _stepping(trainer.training_step, batches))


def _stepping(original: Callable[..., Any], batches: Batches) -> Callable[..., Any]:
    def training_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        batches.take(inputs, "Trainer.training_step")
        before, batches.inside = batches.inside, True
        try:
            return original(self, model, inputs, *args, **kwargs)
        finally:
            batches.inside = before

    return training_step


def _watch_models(session: Session, batches: Batches, module: ModuleType) -> None:
    model = module.__dict__["PreTrainedModel"]
    original = model.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not batches.inside and self.training and kwargs.get("labels") is not None:
            batches.take(kwargs, f"{type(self).__name__}.forward")
        return original(self, *args, **kwargs)

    session.patches.set(model, "__call__", call)


def _lists(value: Any) -> list[list[int]]:
    """Return a tensor or an array of ids as lists, one for each sequence."""
    rows = value.tolist() if hasattr(value, "tolist") else value
    return rows if rows and isinstance(rows[0], list) else [rows]


def nothing(_session: Session) -> None:
    """Watch nothing: the process writes its own records (call.py)."""

"""Runs in a process of its own: python -m llmdoctor.labels.live.call FUNCTION BATCHES FILE, for `labels inspect MODEL --live module:function`.

The function takes no argument and returns what makes batches: a Trainer, a data loader, or any iterable of batches (input_ids, labels,
attention_mask).
"""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from typing import Any

from llmdoctor.attach.records import PartFile
from llmdoctor.attach.session import Session
from llmdoctor.labels.live.attach import Batches


def main() -> None:
    """Write the batches of FUNCTION to FILE's folder. Ends with exit 1 and one line on stderr if there are none."""
    name, most, folder = sys.argv[1:4]
    sys.path.insert(0, os.getcwd())
    module, _, function = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        sys.exit(f"--live {name}: {error}")
    batches = Batches(Session(PartFile(folder)), int(most), stop=False)
    for batch in itertools.islice(_batches_of(made, name), int(most)):
        batches.take(batch, name)


def _batches_of(made: Any, name: str) -> Any:
    loader = made.get_train_dataloader() if hasattr(made, "get_train_dataloader") else made
    if not hasattr(loader, "__iter__"):
        sys.exit(f"--live {name}: expected a Trainer or an iterable of batches, found {type(made).__name__}")
    return loader


if __name__ == "__main__":
    main()

"""What half precision does to a generation's cuts: ties of the largest, how many top_k keeps, how far the nucleus moves."""

from __future__ import annotations

import numpy as np

from llmdoctor.core.document import Note
from llmdoctor.sample.replayed import Replay
from llmdoctor.sample.rounding import rounded
from llmdoctor.sample.stages import run

_MOST = 256  # steps looked at


def precision_note(done: Replay) -> Note:
    """The claim on the recorded logits against the same logits rounded to --dtype."""
    dtype = done.options.dtype or "bfloat16"
    picked = np.unique(np.linspace(0, done.steps.count - 1, min(_MOST, done.steps.count)).astype(np.int64))
    ties = moved = 0
    before, after = [], []
    claim = done.tested
    for step in picked:
        row = done.logits.rows(int(step), int(step) + 1)[0]
        context = done.generation.sequences.before(done.generation.tokens, int(step))
        half = rounded(row, dtype)
        ties += int(np.count_nonzero(half == half.max()) > 1)
        with np.errstate(all="ignore"):
            one, other = (run(claim.engine, claim.settings, values, context)[-1].row.tokens() for values in (row, half))
        before.append(len(one))
        after.append(len(other))
        moved += len(np.setxor1d(one, other)) > 0
    text = (
        f"the same logits rounded to {dtype}, {len(picked)} steps: the largest is tied in {ties}; the support differs in {moved}, "
        f"{np.mean(before):,.1f} tokens on average become {np.mean(after):,.1f}"
    )
    return Note("Evidence", text, "warn" if ties or moved else "plain")

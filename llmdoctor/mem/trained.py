"""Which parameters --trainable and --stage select, by their names; the same for a model that torch builds and for the shapes without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.weights import Weight
from llmdoctor.mem.workload import Workload

# Towers and projectors for images, videos and audio by their names in transformers 5.23, models/*/modeling_*.py. A name too many only lowers a
# bound that is stated as one.
_OTHER_INPUTS = re.compile(
    r"(^|[._])(visual|vision|vit|image|img|video|audio|multi_modal|mm_projector|connector|aligner|perceiver|qformer|resampler)", re.I
)


def check_patterns(workload: Workload, names: Sequence[str]) -> None:
    """Raise QuestionError if a pattern of the workload matches none of `names`, or if together they leave nothing to train."""
    for pattern in (*workload.trainable, *workload.frozen):
        if not any(_matches(name, pattern) for name in names):
            raise QuestionError(f"--trainable {pattern}: no parameter of the model has such a name (the first is {names[0]})")
    if not any(is_trained(name, workload) for name in names):
        raise QuestionError("no parameter is left to train: --trainable and --stage freeze all of them")


def is_trained(name: str, workload: Workload) -> bool:
    """Return whether the parameter `name` is trained."""
    wanted = not workload.trainable or any(_matches(name, pattern) for pattern in workload.trainable)
    return wanted and not any(_matches(name, pattern) for pattern in workload.frozen)


def unreached_of(weights: Sequence[Weight], workload: Workload, config: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of trained parameters that a batch of text does not reach: the towers of a model that also takes images or audio."""
    if workload.image is not None or not {"vision_config", "audio_config"} & config.keys():
        return frozenset()
    return frozenset(weight.name for weight in weights if weight.trainable and _OTHER_INPUTS.search(weight.name))


def _matches(name: str, pattern: str) -> bool:
    """Return whether a pattern means a parameter: a shell pattern for the whole name, or else a part of it."""
    return fnmatchcase(name, pattern) if any(c in pattern for c in "*?[") else pattern in name

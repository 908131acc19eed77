"""The attention of the vision towers of Qwen2-VL and its successors, from the grids of the pictures.

A tower gets no mask. Under eager and sdpa it is called once for each piece of its patches, under flash-attention once with the offsets of all pieces. A
piece is one frame of a picture, or in the windowed layers of Qwen2.5-VL one window of it (transformers 5.23 vision_utils.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmdoctor.core.document import Block, Note, Table
from llmdoctor.core.errors import QuestionError
from llmdoctor.mask.inputs_file import check_size
from llmdoctor.mask.intervals import Ints
from llmdoctor.mask.results import TowerResult
from llmdoctor.mask.screen import layers_text, size_text
from llmdoctor.mask.types import SIZES

# Defaults of the vision configuration by the type of the model around it (models/*/configuration_*.py).
_DEFAULTS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"depth": 32, "num_heads": 16, "spatial_merge_size": 2},
    "qwen2_5_vl": {
        "depth": 32, "num_heads": 16, "spatial_merge_size": 2, "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
    },
    "qwen3_vl": {"depth": 27, "num_heads": 16, "spatial_merge_size": 2},
    "qwen3_vl_moe": {"depth": 27, "num_heads": 16, "spatial_merge_size": 2},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TowerLayers:
    """Layers of a tower that are called over the same pieces: their number, the patches of the longest, the pairs that one head sees in all."""

    layers: tuple[int, ...]
    windowed: bool
    pieces: int
    longest: int
    pairs: int


@dataclass(frozen=True, slots=True)
class Tower:
    """A vision tower over the pictures of one forward; `scores_bytes` of a group are heads x pairs numbers of the model's dtype."""

    patches: int
    heads: int
    dtype: str
    groups: tuple[TowerLayers, ...]

    def scores_bytes(self, group: TowerLayers) -> int:
        """Return the bytes of the attention scores of one layer, which eager keeps and sdpa and flash-attention do not."""
        return self.heads * group.pairs * SIZES[self.dtype]

    def result(self) -> TowerResult:
        """Return the tower for programs."""
        return {
            "patches": self.patches,
            "layers": [
                {
                    "layers": list(each.layers), "windowed": each.windowed, "pieces": each.pieces, "longest": each.longest, "pairs": each.pairs,
                    "scores_bytes": self.scores_bytes(each),
                }
                for each in self.groups
            ],
        }  # fmt: skip


def tower_of(config: Mapping[str, Any], grids: Mapping[str, Ints], dtype: str) -> Tower | None:
    """Return the tower over the pictures of `grids` (int64 [pictures, 3]: frames, rows, columns of patches); None if it is not modelled.

    Images and videos are two calls of the tower, and are counted together. Raises QuestionError if a field of the configuration makes no sense.
    """
    defaults = _DEFAULTS.get(str(config.get("model_type")))
    given = config.get("vision_config")
    if defaults is None or not grids or not isinstance(given, dict):
        return None
    vision = {**defaults, **{name: given[name] for name in defaults if given.get(name) is not None}}
    numbers = {name: value for name, value in vision.items() if name != "fullatt_block_indexes"}
    for name, value in numbers.items():
        if type(value) is not int or not 0 < value < 2**20:
            raise QuestionError(f"config.json: vision_config.{name} is {value!r}, expected a positive integer")
    pictures = np.concatenate(list(grids.values()))
    if bool((pictures < 1).any()):
        raise QuestionError("image_grid_thw or video_grid_thw holds a number below 1")
    patches = sum(t * h * w for t, h, w in pictures.tolist())
    check_size("image_grid_thw and video_grid_thw", patches)
    frames = np.concatenate([np.full(t, h * w, np.int64) for t, h, w in pictures.tolist()])
    every = tuple(range(vision["depth"]))
    if "window_size" not in vision:
        return Tower(patches, vision["num_heads"], dtype, (_group(every, frames, windowed=False),))
    full = vision["fullatt_block_indexes"]
    if not isinstance(full, list) or not all(type(index) is int for index in full):
        raise QuestionError(f"config.json: vision_config.fullatt_block_indexes is {full!r}, expected a list of layers")
    windows = _windows(pictures, vision)
    kinds = (
        (tuple(index for index in every if index not in full), windows, True),
        (tuple(index for index in every if index in full), frames, False),
    )
    return Tower(patches, vision["num_heads"], dtype, tuple(_group(layers, pieces, windowed=on) for layers, pieces, on in kinds if layers))


def _group(layers: tuple[int, ...], pieces: Ints, *, windowed: bool) -> TowerLayers:
    return TowerLayers(layers, windowed, len(pieces), int(pieces.max()), sum(length * length for length in pieces.tolist()))


def _windows(pictures: Ints, vision: Mapping[str, Any]) -> Ints:
    """Return the patches of each window: squares of window_size pixels, cut at the right and lower edge of a picture."""
    merge = vision["spatial_merge_size"]
    side = vision["window_size"] // merge // vision["patch_size"]
    if side < 1:
        raise QuestionError(f"config.json: vision_config.window_size is {vision['window_size']}, less than one merged patch")
    found = []
    for frames, rows, columns in pictures.tolist():
        edges = [np.minimum(side, length // merge - np.arange(0, length // merge, side)) for length in (rows, columns)]
        found.append(np.tile(np.outer(*edges).ravel() * merge**2, frames))
    made = np.concatenate(found)
    if made.size == 0:
        raise QuestionError(f"a picture of fewer than {merge} x {merge} patches has no window")
    return np.asarray(made, np.int64)


def tower_blocks(tower: Tower) -> list[Block]:
    """Return the table of a tower, and what its rows mean."""
    rows = tuple(
        (
            f"{'windows' if each.windowed else 'frames'} {layers_text(each.layers)}", f"{each.pieces:,}", f"{each.longest:,}", f"{each.pairs:,}",
            size_text(tower.scores_bytes(each)),
        )
        for each in tower.groups
    )  # fmt: skip
    table = Table((f"vision tower, {tower.patches:,} patches", "pieces", "longest", "pairs", "scores"), rows)
    note = "the tower gets no mask: each piece is attended alone. Scores: of one layer under eager; sdpa and flash keep none"
    return [table, Note("Note", note, "dim")]

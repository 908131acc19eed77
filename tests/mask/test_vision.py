"""The pieces of a vision tower's patches, against the library's own offsets and against real calls of the attention function."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask.vision import _DEFAULTS, Tower, tower_of

GRIDS = [[[1, 8, 12]], [[1, 34, 46], [2, 16, 16]], [[3, 2, 10]]]


def tower(kind: str, grid: list[list[int]], **vision: Any) -> Tower:
    made = tower_of({"model_type": kind, "vision_config": vision}, {"image_grid_thw": np.asarray(grid)}, "bfloat16")
    assert made is not None
    return made


@pytest.mark.live
@pytest.mark.parametrize("grid", GRIDS)
def test_windows_and_frames_are_those_of_the_library(grid: list[list[int]]) -> None:
    import torch
    from transformers.vision_utils import get_vision_cu_seqlens, get_vision_window_index

    windows, frames = tower("qwen2_5_vl", grid).groups
    given = torch.tensor(grid)
    for group, offsets in ((windows, get_vision_window_index(given, 2, 112, 14)[1]), (frames, get_vision_cu_seqlens(given))):
        lengths = offsets.diff()
        assert (group.pieces, group.longest, group.pairs) == (len(lengths), int(lengths.max()), int((lengths.long() ** 2).sum()))


@pytest.mark.live
@pytest.mark.parametrize("kind", _DEFAULTS)
def test_a_tower_is_called_over_these_pieces(kind: str) -> None:
    import torch
    from transformers import CONFIG_MAPPING
    from transformers.modeling_utils import AttentionInterface

    config = CONFIG_MAPPING[kind]().vision_config
    assert {name: list(value) if isinstance(value := getattr(config, name), tuple) else value for name in _DEFAULTS[kind]} == _DEFAULTS[
        kind
    ]
    small = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "window_size": 32, "fullatt_block_indexes": [1],
             "intermediate_size": 32, "out_hidden_size": 32, "deepstack_visual_indexes": [0], "num_position_embeddings": 16}  # fmt: skip
    for name, value in small.items():
        if hasattr(config, name):
            setattr(config, name, value)
    seen: list[int] = []

    def recorded(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **_: Any) -> Any:
        assert attention_mask is None
        seen.append(query.shape[2])
        return value.transpose(1, 2), None

    AttentionInterface.register("recorded", recorded)
    try:
        config._attn_implementation = "recorded"
        names = {"qwen2_vl": "Qwen2VisionTransformerPretrainedModel", "qwen2_5_vl": "Qwen2_5_VisionTransformerPretrainedModel",
                 "qwen3_vl": "Qwen3VLVisionModel", "qwen3_vl_moe": "Qwen3VLMoeVisionModel"}  # fmt: skip
        model = getattr(import_module(f"transformers.models.{kind}.modeling_{kind}"), names[kind])(config).eval()
        grid = [[2, 12, 8], [1, 4, 4]]
        patch = config.in_channels * config.temporal_patch_size * config.patch_size**2
        with torch.no_grad():
            model(torch.zeros(2 * 12 * 8 + 16, patch), grid_thw=torch.tensor(grid))
    finally:
        AttentionInterface._global_mapping.pop("recorded")
    made = tower(kind, grid, **{name: getattr(config, name) for name in (*_DEFAULTS[kind],)})
    assert sum(group.pieces * len(group.layers) for group in made.groups) == len(seen)
    assert sum(group.pairs * len(group.layers) for group in made.groups) == sum(length**2 for length in seen)


def test_scores_are_heads_times_pairs() -> None:
    made = tower("qwen2_vl", [[1, 64, 64]])
    assert (made.groups[0].pairs, made.scores_bytes(made.groups[0])) == (4096**2, 16 * 4096**2 * 2)


@pytest.mark.parametrize("vision", [{"window_size": 8}, {"depth": 0}, {"fullatt_block_indexes": 3}])
def test_a_configuration_without_sense_is_refused(vision: dict[str, Any]) -> None:
    with pytest.raises(QuestionError, match="vision_config"):
        tower("qwen2_5_vl", [[1, 8, 8]], **vision)

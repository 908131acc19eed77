"""`--messages`: a chat with a real picture through the real qwen_vl_utils and processor; and MSK021, which only its tensors can show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdoctor.mask.input_findings import of_placeholders
from llmdoctor.mask.inspect import inspect_report
from llmdoctor.mask.options import MaskInspectOptions
from llmdoctor.mask.types import ForwardInputs

CONFIG: dict[str, Any] = {"image_token_id": 9, "video_token_id": 8, "vision_config": {"spatial_merge_size": 2}}


@pytest.mark.parametrize(("held", "found"), [(12, []), (11, ["MSK021"]), (0, ["MSK021"])])
def test_placeholders_agree_with_the_grid(held: int, found: list[str]) -> None:
    inputs = ForwardInputs(1, 5 + held, input_ids=np.asarray([[1] * 5 + [9] * held]), grids={"image_grid_thw": np.asarray([[1, 6, 8]])})
    assert [one.code for one in of_placeholders(inputs, CONFIG)] == found


def test_placeholders_without_a_picture() -> None:
    held, none = (ForwardInputs(1, 2, input_ids=np.asarray(ids)) for ids in ([[1, 9]], [[1, 1]]))
    assert [one.code for one in of_placeholders(held, CONFIG, complete=True)] == ["MSK021"]
    assert list(of_placeholders(held, CONFIG)) == []
    assert list(of_placeholders(none, CONFIG, complete=True)) == []


@pytest.mark.live
def test_a_chat_with_a_picture(tmp_path: Path) -> None:
    from llmdoctor.demo.live.tiny_qwen2_vl import build
    from llmdoctor.gencfg.live import draw_image

    build(tmp_path / "model")
    draw_image().save(tmp_path / "red.png")
    content = [{"type": "image", "image": str(tmp_path / "red.png")}, {"type": "text", "text": "Describe this image."}]
    (tmp_path / "chat.json").write_text(json.dumps([{"role": "user", "content": content}]))
    for mode in ("plan", "run"):
        options = MaskInspectOptions(
            model=str(tmp_path / "model"), messages=str(tmp_path / "chat.json"), backend=("eager", "sdpa"), mode=mode
        )
        report = inspect_report(options)
        assert report.result is not None
        assert report.findings == ()
        size = report.result["forward"]["q_len"]
        assert {group["visible"] for group in report.result["layers"]} == {size * (size + 1) // 2}
        grid, positions = report.result["chat"]["image_grid_thw"], np.asarray(report.result["chat"]["mrope_position_ids"])
        assert positions.shape == (3, 1, size)
        picture = np.flatnonzero(positions[0, 0] != positions[2, 0])
        assert len(picture) >= int(np.prod(grid)) // 4 - grid[0][1] // 2

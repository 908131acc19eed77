"""The readers of inputs, over mutated files and drawn options: no traceback, no hang, no exit code outside the contract."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.test_fuzz import judge, values
from tests.mask.models import CONFIGS, write_config

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def files() -> dict[str, bytes]:
    mask = np.asarray([[0, 1, 1, 1], [1, 1, 1, 1]], np.int64)
    plain, packed = io.BytesIO(), io.BytesIO()
    np.save(plain, mask)
    np.savez(packed, attention_mask=mask, input_ids=mask + 4)
    header = json.dumps({"attention_mask": {"dtype": "I64", "shape": [2, 4], "data_offsets": [0, 64]}}).encode()
    tensors = len(header).to_bytes(8, "little") + header + mask.tobytes()
    text = json.dumps({"input_ids": (mask + 4).tolist(), "attention_mask": mask.tolist(), "position_ids": [[0, 1, 0, 1]]}).encode()
    return {"a.npy": plain.getvalue(), "a.npz": packed.getvalue(), "a.safetensors": tensors, "a.json": text}


FILES = files()


@SETTINGS
@given(
    name=st.sampled_from(sorted(FILES)),
    option=st.sampled_from(["--mask", "--input-ids", "--messages"]),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6), st.binary(max_size=6)), max_size=4),
)
def test_mutated_files(name: str, option: str, cuts: list[tuple[float, int, bytes]], tmp_path: Path, capsys: Any) -> None:
    model = write_config(tmp_path, "llama")
    data = FILES[name]
    for place, length, insert in cuts:
        at = int(place * len(data))
        data = data[:at] + insert + data[at + length :]
    (tmp_path / name).write_bytes(data)
    if option == "--messages" and name != "a.json":
        return
    judge(["mask", "inspect", str(model), option, str(tmp_path / name)], capsys)


FIELDS = (
    "model_type num_hidden_layers layer_types sliding_window use_sliding_window max_window_layers attention_chunk_size architectures text_config "
    "is_encoder_decoder num_attention_heads dtype torch_dtype is_causal no_rope_layers attn_layer_period alibi encoder_layers"
).split()


@SETTINGS
@given(
    name=st.sampled_from(sorted(CONFIGS)),
    changes=st.dictionaries(
        st.sampled_from(FIELDS), values | st.sampled_from(["llama", "gemma2", "mamba", 4, 2, True]), min_size=1, max_size=4
    ),
)
def test_mutated_configs(name: str, changes: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    model = write_config(tmp_path, name, **changes)
    judge(["mask", "inspect", str(model), "--lengths", "3,4"], capsys)


WORDS = st.sampled_from(
    [
        "1,4",
        "2,4",
        "3,1",
        "4",
        "0",
        "-1",
        "1,99999999999",
        "static:9",
        "dynamic",
        "none",
        "decode",
        "chunk:2",
        "left",
        "sdpa",
        "gpt-fast",
        "é",
        "",
    ]
)
OPTIONS = st.sampled_from(
    ["--shape", "--lengths", "--packed", "--image", "--phase", "--cache", "--pad", "--backend", "--past", "--dtype", "--query"]
)


@SETTINGS
@given(words=st.lists(st.tuples(OPTIONS, WORDS), max_size=4))
def test_drawn_options(words: list[tuple[str, str]], tmp_path: Path, capsys: Any) -> None:
    model = write_config(tmp_path, "mistral")
    judge(["mask", "inspect", str(model), *(word for pair in words for word in pair)], capsys)


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_files_are_read_when_whole(name: str, tmp_path: Path) -> None:
    from llmdoctor.mask.inputs_file import read_mask

    (tmp_path / name).write_bytes(FILES[name])
    assert read_mask(str(tmp_path / name))[0].tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]

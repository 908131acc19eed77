"""What is read: every format, and everything that must be refused in one sentence. The readers are fuzzed."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdoctor.core.errors import QuestionError
from llmdoctor.requests.logprob_files import read_responses
from llmdoctor.sample.claim_file import read_claim
from llmdoctor.sample.logits import open_logits, parse_logits
from llmdoctor.sample.logprobs import read_side
from llmdoctor.sample.rounding import rounded
from llmdoctor.sample.tokens import read_tokens
from tests.conftest import Outcome

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


def safetensors(path: Path, name: str, dtype: str, shape: list[int], data: bytes) -> Path:
    header = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    np.save(tmp_path / "b.npy", ROWS[:, None, :].astype(np.float16))
    np.savez(tmp_path / "c.npz", scores=ROWS, tokens=np.arange(3))
    (tmp_path / "d.json").write_text(json.dumps(ROWS.tolist()))
    safetensors(tmp_path / "e.safetensors", "logits", "F32", [3, 4], ROWS.tobytes())
    brains = (ROWS.view(np.uint32) >> 16).astype("<u2")
    safetensors(tmp_path / "f.safetensors", "logits", "BF16", [3, 4], brains.tobytes())
    for path in sorted(tmp_path.iterdir()):
        assert np.array_equal(open_logits(str(path)).rows(0, 3), ROWS), path.name
    assert open_logits(str(tmp_path / "c.npz")).others["tokens"].tolist() == [0, 1, 2]
    assert parse_logits("[4, 3]").rows(0, 1).tolist() == [[4.0, 3.0]]


def test_one_sequence_of_a_batch(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.stack([ROWS, ROWS + 1], axis=1))
    assert np.array_equal(open_logits(str(tmp_path / "a.npy"), 1).rows(0, 3), ROWS + 1)
    with pytest.raises(QuestionError, match="which one"):
        open_logits(str(tmp_path / "a.npy"))


def saved(array: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def holed(value: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[1, 2] = value
    return rows


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "nan": ("x.npy", saved(holed(float("nan"))), "step 1, token 2 is NaN"),
    "inf": ("x.npy", saved(holed(float("inf"))), "step 1, token 2 is +inf"),
    "dead row": ("x.npy", saved(np.where([[0], [1], [0]], np.float32(-np.inf), ROWS).astype(np.float32)), "nothing but -inf"),
    "objects": ("x.npy", saved(np.array([{}], dtype=object), allow_pickle=True), "Python objects"),
    "pickle": ("x.pt", b"\x80\x04\x95" + b"0" * 20, "pickle"),
    "cut": ("x.npy", saved(ROWS)[:-9], "expected a whole .npy"),
    "header": ("x.npy", saved(ROWS)[:40], "expected a whole .npy"),
    "integers": ("x.npy", saved(np.arange(6)), "expected float"),
    "empty": ("x.npy", saved(np.zeros((0, 4), np.float32)), "shape"),
    "four": ("x.npy", saved(np.zeros((1, 1, 1, 2), np.float32)), "shape"),
    "zip": ("x.npz", b"PK\x03\x04" + b"\0" * 60, "expected a whole .npz"),
    "ragged": ("x.json", b"[[1, 2], [1]]", "V must not differ"),
    "text": ("x.json", b"hello", "not one of"),
    "words": ("x.json", b'["a"]', "list of numbers"),
    "header only": ("x.safetensors", b"\x05\0\0\0\0\0\0\0{}", "x.safetensors"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read(name: str, tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    file, data, said = REFUSED[name]
    (tmp_path / file).write_bytes(data)
    (tmp_path / "tokens.json").write_text("[1, 2, 3]")
    outcome = llmdoctor("sample", "replay", file, "--tokens", "tokens.json", "--temperature", "0.7", cwd=tmp_path)
    assert outcome.code == 2, outcome.out + outcome.err
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.err.count("\n") == 1


TOKENS = [
    ("[1, 99, 3]", "lies outside"),
    ("[1, 2]", "one token per step"),
    ('["a", 1, 2]', "not a token id"),
    ("[]", "token ids"),
    ("{", "JSON"),
]


@pytest.mark.parametrize(("text", "said"), TOKENS)
def test_tokens_that_do_not_fit(text: str, said: str, tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    (tmp_path / "tokens.json").write_text(text)
    outcome = llmdoctor("sample", "replay", "x.npy", "--tokens", "tokens.json", "--temperature", "0.7", cwd=tmp_path)
    assert outcome.code == 2
    assert said in outcome.err


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["a.npy", "a.npz", "a.safetensors", "a.json", "r.json"]),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=3),
)
def test_mutated_files(kind: str, cuts: list[tuple[float, int, bytes]], tmp_path: Path) -> None:
    path = tmp_path / kind
    if kind == "a.npz":
        np.savez(path, logits=ROWS)
    elif kind == "a.npy":
        np.save(path, ROWS)
    elif kind == "a.safetensors":
        safetensors(path, "logits", "F32", [3, 4], ROWS.tobytes())
    else:
        step = {"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "a", "logprob": -0.1}]}
        chat = {"request": {"temperature": 1}, "response": {"choices": [{"logprobs": {"content": [step]}}]}}
        path.write_text(json.dumps(ROWS.tolist() if kind == "a.json" else chat))
    data = path.read_bytes()
    for place, length, insert in cuts:
        at = int(place * len(data))
        data = data[:at] + insert + data[at + length :]
    path.write_bytes(data)
    for read in (lambda: list(open_logits(str(path)).chunks()), *(lambda r=reader: r(str(path)) for reader in READERS)):
        try:
            read()
        except QuestionError as error:
            assert str(error).strip()  # noqa: PT017 either it reads, or one sentence says why not


READERS: tuple[Callable[[str], Any], ...] = (read_tokens, read_responses, read_side, read_claim)


def test_half_precision_rounds_as_torch_does() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32) * 20
    for name in ("bfloat16", "float16"):
        theirs = torch.from_numpy(values).to(getattr(torch, name)).float().numpy()
        assert np.array_equal(rounded(values, name), theirs)

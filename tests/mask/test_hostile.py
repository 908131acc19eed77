"""What a stranger tries: masks that mean nothing, ids that are not there, backends that do not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask import test as mask_test
from llmdoctor.mask.inspect import inspect_report
from llmdoctor.mask.options import MaskInspectOptions, MaskTestOptions
from tests.mask.models import write_config

LOWER = np.tril(np.ones((2, 1, 8, 8), np.bool_))


def found(folder: Path, mask: Any, backend: list[str], **options: Any) -> list[str]:
    np.save(folder / "mask.npy", mask)
    report = inspect_report(
        MaskInspectOptions(
            model=str(write_config(folder, "llama")), shape="2,8", mask=str(folder / "mask.npy"), backend=tuple(backend), **options
        )
    )
    return [finding.code for finding in report.findings]


@pytest.mark.parametrize(
    ("mask", "backend", "codes"),
    [
        (LOWER, "sdpa", []),
        (LOWER, "eager", ["MSK004"]),
        (LOWER, "flex_attention", ["MSK004"]),
        (LOWER.astype(np.float32), "sdpa", ["MSK004"]),
        (LOWER.astype(np.int64), "sdpa", ["MSK004"]),
        (np.where(LOWER, 0.0, -1e9), "eager", []),
        (np.where(LOWER, -1e9, 0.0), "eager", ["MSK004"]),
        (np.where(LOWER, 0.0, -np.inf), "eager", []),
        (np.where(LOWER, 0.0, -1e9), "flash_attention_2", ["MSK006"]),
        (np.zeros((2, 8), np.int64), "sdpa", ["MSK003"]),
        (np.full((2, 8), -10000.0), "sdpa", ["MSK014"]),
        (np.ones((2, 8), np.bool_), "sdpa", []),
    ],
)
def test_masks(mask: Any, backend: str, codes: list[str], tmp_path: Path) -> None:
    assert found(tmp_path, mask, [backend]) == codes


@pytest.mark.live
@pytest.mark.parametrize("backend", ["eager", "sdpa", "flex_attention"])
@pytest.mark.parametrize(
    "mask", [LOWER, np.where(LOWER, 0.0, -1e9).astype(np.float32), LOWER.astype(np.float32)], ids=["bool", "additive", "bits"]
)
def test_what_a_mask_lets_through_is_what_reaches_the_logits(mask: Any, backend: str, tmp_path: Path) -> None:
    """The plan's reading of a 4-D mask against gradients, or exchanged tokens, of a real forward."""
    np.save(tmp_path / "mask.npy", mask)
    model = str(write_config(tmp_path, "llama"))
    options = {"model": model, "shape": "2,8", "mask": str(tmp_path / "mask.npy"), "backend": (backend,)}
    leaks = any(group["visible"] != 72 for group in (inspect_report(MaskInspectOptions(**options)).result or {})["layers"])
    tests = (mask_test.test_report(MaskTestOptions(**options)).result or {})["tests"]
    assert [test["passed"] for test in tests] == [not leaks]


def test_ids_outside_the_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps({"input_ids": [[5, 999]]}))
    with pytest.raises(QuestionError, match="999"):
        inspect_report(MaskInspectOptions(model=str(write_config(tmp_path, "llama")), input_ids=str(tmp_path / "in.json")))


def test_gpt_fast_is_only_planned(tmp_path: Path) -> None:
    common: dict[str, Any] = {"model": str(write_config(tmp_path, "llama")), "shape": "1,8", "backend": ("gpt-fast",)}
    with pytest.raises(QuestionError, match="gpt-fast"):
        inspect_report(MaskInspectOptions(mode="run", **common))
    with pytest.raises(QuestionError, match="gpt-fast"):
        mask_test.test_report(MaskTestOptions(**common))


@pytest.mark.live
def test_where_nothing_could_be_tested_it_says_so(tmp_path: Path) -> None:
    report = mask_test.test_report(
        MaskTestOptions(model=str(write_config(tmp_path, "bloom")), shape="1,8", backend=("sdpa",), ignore=("MSK020",))
    )
    assert report.nothing
    assert report.skipped


@pytest.mark.live
def test_the_real_weights(tmp_path: Path) -> None:
    from llmdoctor.mask.live import build

    folder = write_config(tmp_path, "llama")
    build.build(build.config_of(str(folder)), "eager", "float32").save_pretrained(folder)
    report = inspect_report(MaskInspectOptions(model=str(folder), lengths="5,8", backend=("eager", "sdpa"), mode="run", weights=True))
    assert {group["visible"] for group in (report.result or {})["layers"]} == {51}


def test_windows_of_no_size_and_of_too_much(tmp_path: Path) -> None:
    for size in (0, 2**70):
        folder = write_config(tmp_path, "mistral", sliding_window=size)
        with pytest.raises(QuestionError, match="sliding_window is"):
            inspect_report(MaskInspectOptions(model=str(folder), lengths="3,8", phase="decode"))


@pytest.mark.live
def test_options_that_nothing_would_look_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_config(tmp_path, "llama")
    with pytest.raises(QuestionError, match="reads no weights"):
        inspect_report(MaskInspectOptions(model=str(folder), weights=True))
    with pytest.raises(QuestionError, match="its weights cannot be loaded"):
        inspect_report(MaskInspectOptions(model=str(folder), weights=True, mode="run", shape="1,4", backend=("eager",)))
    (tmp_path / "own_builders.py").write_text("def needs(x): pass\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QuestionError, match="--backend with"):
        mask_test.test_report(MaskTestOptions(model="own_builders:needs", backend=("eager",)))
    with pytest.raises(QuestionError, match="missing 1 required positional argument"):  # found in the working directory, and called
        mask_test.test_report(
            MaskTestOptions(
                model="own_builders:needs",
            )
        )


@pytest.mark.live
def test_a_base_model_is_held_against_its_rows_alone(tmp_path: Path) -> None:
    folder = write_config(tmp_path, "llama", architectures=["LlamaModel"])
    report = mask_test.test_report(MaskTestOptions(model=str(folder), lengths="3,8", backend=("eager",)))
    assert {one["test"] for one in report.result["tests"]} >= {"as alone"}
    assert report.findings == ()
    assert report.skipped == ()

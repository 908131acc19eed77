"""4-D masks of the caller: what each dtype means to each backend, which rows are padding, and changes that repair a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report
from llmdoctor.mask import test as mask_test
from llmdoctor.mask.inspect import inspect_report
from llmdoctor.mask.options import MaskInspectOptions, MaskTestOptions
from tests.mask.models import write_config

S = 8
CAUSAL = np.tril(np.ones((1, 1, S, S), np.bool_))
LEFT_PADDED = np.concatenate((CAUSAL & (np.arange(S) >= 3), CAUSAL))
LOWEST = np.finfo(np.float32).min
SDPA, BOTH = ("sdpa",), ("eager", "sdpa")


def additive(shown: NDArray[Any], low: float = LOWEST, dtype: Any = np.float32) -> NDArray[Any]:
    return np.where(shown, 0, low).astype(dtype)


def static(folder: Path, mask: NDArray[Any], model: str = "llama", backend: tuple[str, ...] = BOTH, **changes: Any) -> Report:
    np.save(folder / "mask.npy", mask)
    name = str(write_config(folder, model, **changes))
    return mask_test.test_report(MaskTestOptions(model=name, mask=str(folder / "mask.npy"), backend=backend, static=True))


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


@pytest.mark.parametrize(("low", "dtype"), [(-1e4, np.float32), (-1e9, np.float32), (LOWEST, np.float32), (-np.inf, np.float32)])
def test_every_usual_additive_mask_is_causal(tmp_path: Path, low: float, dtype: Any) -> None:
    assert codes(static(tmp_path, additive(CAUSAL, low, dtype))) == []


@pytest.mark.parametrize(
    "mask", [~CAUSAL, (~CAUSAL).astype(np.int64), additive(~CAUSAL), additive(CAUSAL, 1e4)], ids=["bool", "int", "low", "sign"]
)
def test_the_change_of_an_inverted_mask_repairs_it(tmp_path: Path, mask: NDArray[Any]) -> None:
    torch = pytest.importorskip("torch")
    report = static(tmp_path, mask)
    assert codes(report) == ["MSK004"]
    assert "inverted" in report.findings[0].message
    fix = str(report.findings[0].fix).partition("#")[0]
    scope = {"torch": torch, "mask": torch.from_numpy(mask), "dtype": torch.float32}
    exec(fix, scope)
    repaired: Any = scope["mask"]
    assert codes(static(tmp_path, repaired.numpy())) == []
    assert bool(((repaired == 0) == torch.from_numpy(CAUSAL)).all())


def test_half_precision_is_refused_by_sdpa_unless_the_queries_have_it_too(tmp_path: Path) -> None:
    half = additive(CAUSAL, -6e4, np.float16)
    assert codes(static(tmp_path, half, torch_dtype="float16")) == []
    refused = static(tmp_path, half, torch_dtype="bfloat16")
    assert codes(refused) == ["MSK004"]
    assert "sdpa: the kernel refuses a mask of float16 for queries of bfloat16" in refused.findings[0].message
    assert codes(static(tmp_path, additive(CAUSAL, -1e9, np.float64), backend=SDPA)) == ["MSK004"]


@pytest.mark.parametrize("low", [LOWEST, -np.inf])
def test_padding_may_see_nothing_but_under_eager_not_minus_infinity(tmp_path: Path, low: float) -> None:
    assert codes(static(tmp_path, additive(LEFT_PADDED, low), backend=SDPA)) == []
    assert codes(static(tmp_path, additive(LEFT_PADDED, low), backend=("eager",))) == ([] if low == LOWEST else ["MSK003"])
    assert codes(static(tmp_path, LEFT_PADDED, backend=SDPA)) == []


def test_a_token_that_others_see_and_that_sees_nothing_is_no_padding(tmp_path: Path) -> None:
    assert codes(static(tmp_path, np.tril(CAUSAL, -1), backend=SDPA)) == ["MSK003"]


def test_heads_that_differ_are_not_exact(tmp_path: Path) -> None:
    mask = np.repeat(CAUSAL, 4, axis=1)
    mask[0, 1, 4:, 0] = False
    np.save(tmp_path / "mask.npy", mask)
    options = MaskInspectOptions(model=str(write_config(tmp_path, "llama")), mask=str(tmp_path / "mask.npy"), backend=SDPA)
    report = inspect_report(options)
    assert report.verdict is not None
    assert report.verdict.status == "undecided"


def test_a_mask_alone_gives_the_cached_tokens_by_its_keys(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.zeros((1, 1, 1, 9), np.float32))
    model = str(write_config(tmp_path, "llama"))
    report = inspect_report(MaskInspectOptions(model=model, mask=str(tmp_path / "mask.npy"), phase="decode", backend=SDPA))
    assert [(group["q_len"], group["kv_len"], group["visible"]) for group in (report.result or {})["layers"]] == [(1, 9, 9)]
    for more in ({"shape": "1,5"}, {"cache": "static:16"}):
        with pytest.raises(QuestionError, match="--mask"):
            inspect_report(MaskInspectOptions(model=model, mask=str(tmp_path / "mask.npy"), phase="decode", **more))


@pytest.mark.live
def test_a_run_counts_what_the_plan_counts(tmp_path: Path) -> None:
    model = str(write_config(tmp_path, "llama"))
    for mask in (additive(CAUSAL, -1e4), additive(LEFT_PADDED)):
        np.save(tmp_path / "mask.npy", mask)
        seen = [
            [
                group["visible"]
                for group in (inspect_report(
                    MaskInspectOptions(model=model, mask=str(tmp_path / "mask.npy"), backend=BOTH, mode=mode)
                ).result or {})["layers"]
            ]
            for mode in ("plan", "run")
        ]  # fmt: skip
        assert seen[0] == seen[1]


@pytest.mark.live
def test_what_padding_does_is_no_leak_of_the_future(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", additive(LEFT_PADDED))
    options = MaskTestOptions(model=str(write_config(tmp_path, "llama")), mask=str(tmp_path / "mask.npy"), backend=BOTH)
    report = mask_test.test_report(options)
    assert report.findings == ()
    assert [one["passed"] for one in (report.result or {})["tests"]] == [True] * 4

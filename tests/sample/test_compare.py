"""Two sides' log-probabilities: the verdict with its error, the causes held against each other, formats, masks and padding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdoctor.sample.compare import compare_report
from llmdoctor.sample.comparing import agreement, compare_sides, find_causes
from llmdoctor.sample.options import SampleCompareOptions
from llmdoctor.sample.stages import run
from llmdoctor.sample.tables import VLLM
from llmdoctor.sample.types import SamplingParams
from tests.conftest import Outcome
from tests.sample.simulate import make_rows, make_tokens

RAW = SamplingParams()


def logprobs(seed: int, count: int, settings: SamplingParams, drawn: SamplingParams) -> np.ndarray:
    """log p of tokens drawn with `drawn`, under `settings`."""
    rows = make_rows(seed, count, 800)
    tokens = make_tokens(seed, rows, "vllm", drawn)
    probs = [run(VLLM, settings, row)[-1].row.probs(len(row))[token] for row, token in zip(rows, tokens, strict=True)]
    return np.log(np.maximum(probs, 1e-30))


def decided(trainer: np.ndarray, engine: np.ndarray) -> tuple[str, str]:
    causes = find_causes([trainer], [engine])
    return agreement(compare_sides(trainer, engine), causes), causes[0].name if causes else ""


@pytest.mark.parametrize("temperature", [0.6, 0.8, 1.4])
@pytest.mark.parametrize("count", [60, 300])
def test_a_temperature_on_one_side(temperature: float, count: int) -> None:
    scaled = SamplingParams(temperature=temperature)
    one, other = logprobs(1, count, scaled, scaled), logprobs(1, count, RAW, scaled)
    for trainer, engine in ((one, other), (other, one)):
        assert decided(trainer, engine) == ("disagree", "temperature-scaled against raw")
    text = find_causes([one], [other], temperature)[0].evidence
    assert "it is the trainer that divides" in text


@pytest.mark.parametrize("cut", [SamplingParams(top_p=0.9), SamplingParams(top_k=5), SamplingParams(min_p=0.1)], ids=["p", "k", "m"])
def test_a_cut_on_one_side(cut: SamplingParams) -> None:
    assert decided(logprobs(2, 300, RAW, cut), logprobs(2, 300, cut, cut)) == ("disagree", "a cut on one side")


def test_noise_shift_outliers_and_weights() -> None:
    random, engine = np.random.default_rng(3), logprobs(3, 300, RAW, RAW)
    assert decided(engine + 0.004 * random.standard_normal(300), engine)[0] == "agree"
    assert decided(engine + 0.04 * random.standard_normal(300), engine) == ("undecided", "precision noise")
    assert decided(np.append(engine[1:], -1.0), engine) == ("disagree", "shifted by one")
    assert decided(np.append(-1.0, engine[:-1]), engine) == ("disagree", "shifted by one")
    outlier = engine + 0.004 * random.standard_normal(300)
    outlier[137] = -25.0
    assert decided(outlier, engine) == ("disagree", "a few outliers")
    assert find_causes([outlier], [engine])[0].tokens == (137,)
    other = engine + np.where(random.random(300) < 0.5, -0.9, 0.3) * random.random(300)
    assert decided(other, engine) == ("disagree", "different weights")


def test_the_difference_is_trainer_minus_engine() -> None:
    found = compare_sides(np.log([0.5, 0.5]), np.log([0.25, 0.25]))
    assert (found.mean_ratio, found.k1) == pytest.approx((2.0, -np.log(2)))


def compared(folder: Path, trainer: Any, engine: Any) -> dict[str, Any]:
    paths = []
    for name, value in (("trainer", trainer), ("engine", engine)):
        paths.append(str(folder / f"{name}.json"))
        Path(paths[-1]).write_text(json.dumps(value))
    report = compare_report(SampleCompareOptions(trainer=paths[0], engine=paths[1]))
    assert report.result is not None
    return dict(report.result)


def test_masks_and_padding_are_left_out(tmp_path: Path) -> None:
    trainer, engine = [[-1.0, -2.0, -0.5, -0.1], [-1.0, -2.0, -0.5, -9.0]], [[-1.0, -2.0, -0.5, -0.1], [-1.0, -2.0, -0.5, -1.0]]
    mask = [[1, 1, 1, 1], [1, 1, 1, 0]]
    found = compared(tmp_path, {"old_log_probs": trainer, "response_mask": mask}, {"rollout_log_probs": engine})
    assert (found["tokens"], found["ratio"]["mean"]) == (7, 1.0)
    padded = [[-1.0, -2.0, *[0.0] * 6], [-1.0, -2.0, -0.5, *[0.0] * 5]]
    assert compared(tmp_path, padded, padded)["tokens"] == 5
    noise = [[-1.0, -2.0, *[-3.0] * 6], [-1.0, -2.0, -0.5, *[-3.0] * 5]]
    assert compared(tmp_path, noise, padded)["causes"][0]["name"] == "padding counted"


def test_invalid_values_are_counted(tmp_path: Path) -> None:
    found = compared(tmp_path, [-1.0, None, -9999.0, 0.03, 1.5, -0.5], [-1.0, -1.0, -1.0, 0.0, -1.0, -0.5])
    assert found["tokens"] == 3
    counts = next(iter(found["invalid"].values()))
    assert counts == {"missing or NaN": 1, "-inf": 1, "above 0.1": 1, "slightly above 0 (kept)": 1}


def test_a_dump_with_both_sides(tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    rows = np.log(np.full((3, 8), 0.5))
    np.savez(tmp_path / "dump.npz", old_log_probs=rows, rollout_log_probs=rows + 0.2, response_mask=np.ones((3, 8), int))
    outcome = llmdoctor("sample", "compare", "dump.npz", "dump.npz", "--format", "json", cwd=tmp_path)
    assert (outcome.code, outcome.report["verdict"]["status"]) == (1, "problem")
    assert outcome.report["result"]["ratio"]["mean"] == pytest.approx(np.exp(-0.2))
    assert outcome.report["findings"][0]["code"] == "SMP007"


@pytest.mark.parametrize("form", ["npy", "jsonl", "parquet", "safetensors"])
def test_formats(form: str, tmp_path: Path) -> None:
    values = np.array([[-1.0, -2.0], [-0.5, -0.25]])
    path = tmp_path / f"a.{form}"
    if form == "npy":
        np.save(path, values)
    elif form == "jsonl":
        path.write_text("\n".join(json.dumps({"logprobs": row}) for row in values.tolist()))
    elif form == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"rollout_log_probs": values.tolist()}), path)
    else:
        pytest.importorskip("safetensors.numpy").save_file({"logprobs": values}, path)
    (tmp_path / "b.json").write_text(json.dumps(values.tolist()))
    report = compare_report(SampleCompareOptions(trainer=str(tmp_path / "b.json"), engine=str(path)))
    assert report.result is not None
    assert (report.result["verdict"], report.result["tokens"], report.result["sequences"]) == ("agree", 4, 2)


def test_other_lengths_are_one_sentence(tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    (tmp_path / "a.json").write_text("[-1, -2]")
    (tmp_path / "b.json").write_text("[-1]")
    outcome = llmdoctor("sample", "compare", "a.json", "b.json", cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "expected one per token" in outcome.err

"""Two sides' log-probabilities: the verdict with its error, the causes held against each other, formats, masks and padding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdoctor.sample.causes import find_causes
from llmdoctor.sample.compare import compare_report
from llmdoctor.sample.comparing import agreement, compare_sides
from llmdoctor.sample.logprobs import Side
from llmdoctor.sample.options import SampleCompareOptions
from llmdoctor.sample.pairing import pair_sides
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
    """The verdict, and the causes that are proven."""
    causes = find_causes([trainer], [engine])
    return agreement(compare_sides(trainer, engine), causes), " and ".join(cause.name for cause in causes if cause.named)


@pytest.mark.parametrize("temperature", [0.6, 0.8, 1.4])
def test_a_temperature_on_one_side(temperature: float) -> None:
    scaled = SamplingParams(temperature=temperature)
    one, other = logprobs(1, 400, scaled, scaled), logprobs(1, 400, RAW, scaled)
    for trainer, engine in ((one, other), (other, one)):
        assert decided(trainer, engine) == ("disagree", "temperature-scaled against raw")
        assert decided(trainer[:16], engine[:16])[1] == ""  # too few to exclude the other causes
        possible = [cause.name for cause in find_causes([trainer[:16]], [engine[:16]])]
        assert "temperature-scaled against raw" in possible
    text = find_causes([one], [other], temperature)[0].evidence
    assert "it is the trainer that divides" in text


@pytest.mark.parametrize("cut", [SamplingParams(top_p=0.9), SamplingParams(top_k=5), SamplingParams(min_p=0.1)], ids=["p", "k", "m"])
def test_a_cut_on_one_side(cut: SamplingParams) -> None:
    assert decided(logprobs(2, 300, RAW, cut), logprobs(2, 300, cut, cut)) == ("disagree", "a cut on one side")


def test_noise_shift_outliers_and_weights() -> None:
    random, engine = np.random.default_rng(3), logprobs(3, 300, RAW, RAW)
    assert decided(engine + 0.004 * random.standard_normal(300), engine)[0] == "agree"
    noisy = engine + 0.04 * random.standard_normal(300)
    assert decided(noisy, engine) == ("undecided", "")
    assert find_causes([noisy], [engine])[0].name == "precision noise"
    assert decided(np.append(engine[1:], -1.0), engine) == ("disagree", "shifted by one")
    assert decided(np.append(-1.0, engine[:-1]), engine) == ("disagree", "shifted by one")
    outlier = engine + 0.004 * random.standard_normal(300)
    outlier[137] = -25.0
    assert decided(outlier, engine) == ("disagree", "a few outliers")
    assert find_causes([outlier], [engine])[0].tokens == (137,)
    assert decided(-random.gamma(1.0, 2.0, 300), engine) == ("disagree", "different weights or inputs")
    other = engine + np.where(random.random(300) < 0.5, -0.9, 0.3) * random.random(300)
    assert decided(np.minimum(other, 0.0), engine) == ("disagree", "")  # another update, or what else: not proven


def test_several_causes_at_once() -> None:
    random, scaled = np.random.default_rng(3), SamplingParams(temperature=0.6)
    one, other = logprobs(4, 400, scaled, scaled), logprobs(4, 400, RAW, scaled)
    assert decided(np.roll(one, 1), other) == ("disagree", "shifted by one and temperature-scaled against raw")
    padded = [np.append(one, -random.gamma(2.0, 3.0, 40))], [np.append(other, np.zeros(40))]
    paired = pair_sides(Side("t", "", tuple(padded[0])), Side("e", "", tuple(padded[1])))
    assert paired.padding is not None
    assert [cause.name for cause in find_causes(*paired.without_padding()) if cause.named] == ["temperature-scaled against raw"]


def test_an_order_is_found_and_constants_are_no_logprobs() -> None:
    rows = np.split(logprobs(5, 320, RAW, RAW), 8)
    assert [cause.name for cause in find_causes(rows[::-1], rows)] == ["sequences in another order"]
    assert [cause.name for cause in find_causes([np.zeros(40)], [rows[0]])] == ["constant values on one side"]


def test_certain_tokens_under_a_cut_are_no_padding() -> None:
    trainer = np.concatenate([logprobs(6, 200, RAW, SamplingParams(top_p=0.9)), np.full(6, -0.05) - 0.01 * np.arange(6)])
    engine = np.concatenate([logprobs(6, 200, SamplingParams(top_p=0.9), SamplingParams(top_p=0.9)), np.zeros(6)])
    assert pair_sides(Side("t", "", (trainer,)), Side("e", "", (engine,))).padding is None
    assert decided(trainer, engine) == ("disagree", "a cut on one side")


def test_few_certain_tokens_show_no_agreement(tmp_path: Path) -> None:
    assert compared(tmp_path, [-0.001, -0.002], [-0.001, -0.002])["verdict"] == "undecided"
    assert compared(tmp_path, [-0.7, -1.2, -0.3], [-0.7, -1.2, -0.3])["verdict"] == "agree"


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
    other = [[-1.0, -2.0, *[-1.0] * 6], [-1.0, -2.0, -0.5, *[-1.0] * 5]]
    assert compared(tmp_path, other, padded)["tokens"] == 5
    noise = [[-1.0, -2.0, -3.0, -2.5, -4.0, -3.0, -1.0, -7.0], [-1.0, -2.0, -0.5, -4.0, -6.0, -3.0, -1.0, -7.0]]
    assert compared(tmp_path, noise, padded)["causes"][0]["name"] == "padding counted"


@pytest.mark.parametrize("side", ["trainer", "engine"])
def test_tool_tokens_that_one_side_writes_as_0_are_no_other_weights(tmp_path: Path, side: str) -> None:
    random = np.random.default_rng(7)
    scored = -random.gamma(1.0, 1.0, size=(12, 60))
    noisy, zeros = scored + random.normal(0, 0.01, scored.shape), scored.copy()
    zeros[:, 20:35] = 0.0
    pair = (zeros, noisy) if side == "trainer" else (noisy, zeros)
    causes = compared(tmp_path, *(rows.tolist() for rows in pair))["causes"]
    assert [cause["name"] for cause in causes] == ["masked tokens counted"]
    assert f"tokens are exactly 0 on the {side}'s side" in causes[0]["evidence"]
    raised = np.where(scored > np.log(0.5), 0.0, scored - np.log(0.5))  # a cut also makes likely tokens certain
    pair = (raised, noisy) if side == "trainer" else (noisy, raised)
    assert "masked tokens counted" not in [cause["name"] for cause in compared(tmp_path, *(rows.tolist() for rows in pair))["causes"]]


def test_prompts_and_short_tails_are_no_difference(tmp_path: Path) -> None:
    answers = [[-1.0, -2.0, -0.5, -0.1, 0.0, 0.0, 0.0, 0.0, 0.0], [-1.0, -2.0, -0.5, -0.7, -0.2, -0.3, -1.1, -0.9, 0.0]]
    engine = [[0.0] * 5 + row for row in answers]  # NeMo-RL: the engine does not score the prompt
    trainer = [[0.0, -3.0, -1.5, -2.0, -6.0, *row] for row in answers]
    found = compared(tmp_path, {"prev_logprobs": trainer}, {"generation_logprobs": engine})
    assert (found["verdict"], found["tokens"]) == ("agree", 12)


@pytest.mark.parametrize("name", ["dump.pt", "dump.pkl", "dump.bin"])
def test_a_pickle_is_refused_by_name(name: str, tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    outcome = llmdoctor("sample", "compare", name, name, cwd=tmp_path)
    assert (outcome.code, "a pickle can run code" in outcome.err) == (2, True)


def test_a_wrapped_dump(tmp_path: Path) -> None:
    dump = {"rollout_id": 0, "rollout_data": {"log_probs": [[-1.0, -2.0, -0.5]], "rollout_log_probs": [[-1.0, -2.0, -0.5]]}}
    assert compared(tmp_path, dump, dump)["verdict"] == "agree"


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


def test_every_mask_counts(tmp_path: Path) -> None:
    trainer, engine = -np.linspace(0.2, 3.0, 60).reshape(2, 30), -np.linspace(0.2, 3.0, 60).reshape(2, 30)
    answers, drawn = np.ones((2, 30), bool), np.ones((2, 30), np.int64)
    answers[:, 20:], drawn[:, 5:10] = False, 0
    trainer[:, 20:], engine[:, 5:10] = -7.0, 0.0
    np.savez(
        tmp_path / "dump.npz", old_log_probs=trainer, rollout_log_probs=engine, response_mask=answers, loss_mask=drawn, entropy=trainer
    )
    dump = str(tmp_path / "dump.npz")
    report = compare_report(SampleCompareOptions(trainer=dump, engine=dump))
    assert report.result is not None
    assert (report.result["verdict"], report.result["tokens"]) == ("agree", 30)
    assert report.result["inputs"]["ignored"] == [{"key": "entropy", "reason": "neither log-probabilities nor a mask"}]
    np.savez(tmp_path / "t.npz", old_log_probs=trainer, response_mask=np.ones((2, 30)))
    np.savez(tmp_path / "e.npz", rollout_log_probs=engine, response_mask=answers & (drawn > 0))
    two = compare_report(SampleCompareOptions(trainer=str(tmp_path / "t.npz"), engine=str(tmp_path / "e.npz")))
    assert two.result is not None
    assert two.verdict is not None
    assert (two.result["verdict"], two.result["tokens"]) == ("agree", 30)
    assert "the masks of the two sides differ at 30 tokens" in two.verdict.text

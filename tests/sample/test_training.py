"""Log-probabilities of two sides: the metrics, and the author's log_softmax over processed scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmdoctor.sample.comparing import compare_sides
from llmdoctor.sample.stages import run
from llmdoctor.sample.tables import TRANSFORMERS
from llmdoctor.sample.types import SamplingParams
from tests.conftest import Outcome
from tests.sample.simulate import make_rows, make_tokens

NUCLEUS = SamplingParams(temperature=0.7, top_p=0.9)


def logprobs(rows: np.ndarray, tokens: list[int], settings: SamplingParams) -> np.ndarray:
    laws = (run(TRANSFORMERS, settings, row)[-1].row.probs(len(row)) for row in rows)
    return np.log([probs[token] for probs, token in zip(laws, tokens, strict=True)])


def test_processed_scores_in_a_ratio(tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    """torch.log_softmax(output.scores) as the old policy's log-probabilities, raw ones as the new policy's: tens of nats apart."""
    rows = make_rows(0, 256)
    tokens = make_tokens(0, rows, "transformers", NUCLEUS)
    new, old = logprobs(rows, tokens, SamplingParams()), logprobs(rows, tokens, NUCLEUS)
    (tmp_path / "new.json").write_text(json.dumps(new.tolist()))
    np.save(tmp_path / "old.npy", old)
    outcome = llmdoctor("sample", "replay", "--logprobs", "new.json", "--versus", "old.npy", "--format", "json", cwd=tmp_path)
    found = outcome.report["result"]["versus"]
    assert outcome.code == 1  # the sides disagree
    assert found["nats"] == pytest.approx(float((old - new).sum()))
    assert 25 < found["nats"] < 60
    assert found["gap"] == pytest.approx(1 - found["mean_ratio"])


def test_truncation_alone_is_the_kept_mass_in_the_ratio() -> None:
    rows = make_rows(1, 400)
    settings = SamplingParams(top_p=0.9)
    tokens = make_tokens(1, rows, "transformers", settings)
    found = compare_sides(logprobs(rows, tokens, SamplingParams()), logprobs(rows, tokens, settings))
    kept = np.mean([run(TRANSFORMERS, settings, row)[-1].mass_kept for row in rows])
    assert found.mean_ratio == pytest.approx(kept, abs=0.01)
    assert found.k1 > 10 * found.k3


def test_the_same_side_twice() -> None:
    values = np.array([-1.0, -2.0, -0.5])
    found = compare_sides(values, values)
    assert (found.max_abs, found.mean_ratio, found.k1, found.k3) == (0.0, 1.0, 0.0, 0.0)
    assert found.pearson == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [(SamplingParams(), "raw"), (SamplingParams(temperature=0.7), "temperature"), (NUCLEUS, "processed")],
    ids=["raw", "scaled", "processed"],
)
def test_the_kind_of_recorded_ones(settings: SamplingParams, kind: str, tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    rows = make_rows(2, 60)
    tokens = make_tokens(2, rows, "transformers", NUCLEUS)
    np.save(tmp_path / "logits.npy", rows)
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    (tmp_path / "lp.json").write_text(json.dumps(logprobs(rows, tokens, settings).tolist()))
    base = ("sample", "replay", "logits.npy", "--tokens", "tokens.json", "--temperature", "0.7", "--top-p", "0.9", "--logprobs", "lp.json")
    outcome = llmdoctor(*base, "--format", "json", cwd=tmp_path)
    assert outcome.report["result"]["logprobs"]["kind"] == kind
    assert ("SMP004" in {finding["code"] for finding in outcome.report["findings"]}) == (kind != "raw")


@pytest.mark.parametrize("text", ["[1.5]", '["a"]', "[NaN]", "{}", "{", "[-1, -2]"])
def test_what_is_refused(text: str, tmp_path: Path, llmdoctor: Callable[..., Outcome]) -> None:
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "b.json").write_text("[-1.0]")
    outcome = llmdoctor("sample", "replay", "--logprobs", "a.json", "--versus", "b.json", cwd=tmp_path)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err

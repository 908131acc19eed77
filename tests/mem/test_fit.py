"""`mem fit`: what it prints fits when it is asked about again, and what fits already is left alone."""

from __future__ import annotations

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.fit import fit_report
from llmdoctor.mem.options import FitOptions, MemOptions
from llmdoctor.mem.predictor import Predictor
from llmdoctor.mem.search import moves_of
from tests.mem.conftest import write_config

pytestmark = pytest.mark.live
STRATEGY = ("trainer:adamw_torch,bf16",)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("fit") / "llama"
    return str(write_config(folder, "llama", vocab_size=64000, hidden_size=512, intermediate_size=1536, num_attention_heads=8))


def test_every_combination_fits_and_the_first_is_the_cheapest(model: str) -> None:
    report = fit_report(FitOptions(model=model, strategy=STRATEGY, batch=16, seq_len=512, gpu_memory="6GiB"))
    assert report.result is not None
    assert report.result["fits"] is False
    found = report.result["combinations"]
    assert found
    assert all(one["needs_bytes"] <= 6 * 2**30 for one in found)
    assert report.verdict is not None
    assert report.verdict.status == "problem"
    assert found[0]["changes"][0] in report.verdict.text


def test_what_fits_is_left_alone(model: str) -> None:
    report = fit_report(FitOptions(model=model, strategy=STRATEGY, batch=1, seq_len=64, gpu_memory="80GiB"))
    assert report.result is not None
    assert (report.result["fits"], report.result["combinations"]) == (True, [])
    assert report.verdict is not None
    assert report.verdict.status == "ok"


def test_what_can_never_fit_is_said(model: str) -> None:
    report = fit_report(FitOptions(model=model, strategy=STRATEGY, batch=2, seq_len=64, gpu_memory="100MB"))
    assert report.result is not None
    assert report.result["combinations"] == []
    assert report.verdict is not None
    assert "none of" in report.verdict.text


def test_moves_change_something_or_do_not_apply(model: str) -> None:
    predictor = Predictor(MemOptions(model=model, strategy=STRATEGY))
    strategy = predictor.strategy(STRATEGY[0])
    for move in moves_of(strategy, 4):
        changed = move.change(strategy)
        assert changed is None or changed != strategy or move.batch is not None
        assert move.keys


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"gpu_memory": ""}, "no --gpu-memory"), ({"strategy": ()}, "expected one"), ({"gpu_memory": "24"}, "with its unit")],
)
def test_usage(model: str, options: dict[str, object], sentence: str) -> None:
    given = {"model": model, "strategy": STRATEGY, "gpu_memory": "24GiB", **options}
    with pytest.raises(QuestionError, match=sentence):
        fit_report(FitOptions(**given))  # type: ignore[arg-type]

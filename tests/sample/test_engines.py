"""The engines: worked examples, scopes of penalties, ties, clamps, refusals. The numbers were computed by the engines' own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.report import Style, render
from llmdoctor.sample.engines import Drawn, draw, engines_report, variation
from llmdoctor.sample.known_engines import find_engine
from llmdoctor.sample.options import EnginesOptions
from llmdoctor.sample.tables import ENGINES
from llmdoctor.sample.types import SamplingParams, TokenContext
from tests.conftest import write_model
from tests.reading import read_in_order

WORKED = [4, 3, 2.5, 2, 1, 0]
MIXED = [2, -1, 0.5, 0, -3, 1.5]
TIED = [1, 1, 1, 1, 0, 0]


def drawn(engine: str, logits: list[float], prompt: tuple[int, ...] = (), output: tuple[int, ...] = (), **settings: Any) -> Drawn:
    return draw(ENGINES[engine], SamplingParams(**settings), np.array(logits, np.float32), TokenContext(prompt, output), key=engine)


def probs(engine: str, logits: list[float], *context: tuple[int, ...], **settings: Any) -> np.ndarray:
    found = drawn(engine, logits, *context, **settings)
    assert found.error is None
    return found.probs


@pytest.mark.parametrize(
    ("engines", "settings", "expected"),
    [
        (("transformers", "vllm", "sglang", "tgi"), {"temperature": 0.7, "top_p": 0.9}, [0.7369, 0.1766, 0.0865, 0, 0, 0]),
        (("llama.cpp",), {"temperature": 0.7, "top_p": 0.9}, [0.7070, 0.1694, 0.0829, 0.0406, 0, 0]),
        (("transformers", "vllm", "tgi"), {"temperature": 0.7, "top_k": 3, "top_p": 0.9}, [0.8067, 0.1933, 0, 0, 0, 0]),
        (("sglang", "llama.cpp"), {"temperature": 0.7, "top_k": 3, "top_p": 0.9}, [0.7369, 0.1766, 0.0865, 0, 0, 0]),
        (("transformers", "vllm"), {"top_p": 0.1}, [1, 0, 0, 0, 0, 0]),
        (("transformers", "vllm", "sglang", "llama.cpp"), {"min_p": 0.1}, [0.5793, 0.2131, 0.1293, 0.0784, 0, 0]),
        (("vllm", "sglang", "llama.cpp", "gpt-fast"), {"temperature": 0.0}, [1, 0, 0, 0, 0, 0]),
        (("transformers",), {"top_p": 0.0}, [1, 0, 0, 0, 0, 0]),
        (("llama.cpp",), {"top_p": 0.0}, [1, 0, 0, 0, 0, 0]),
    ],
)
def test_the_worked_example(engines: tuple[str, ...], settings: dict[str, Any], expected: list[float]) -> None:
    for engine in engines:
        assert probs(engine, WORKED, **settings) == pytest.approx(expected, abs=6e-5), engine


def test_how_far_the_orders_part() -> None:
    cold, hot = {"temperature": 0.7, "top_p": 0.9}, {"temperature": 2.0, "min_p": 0.1}
    assert variation(probs("transformers", WORKED, **cold), probs("llama.cpp", WORKED, **cold)) == pytest.approx(0.041, abs=5e-4)
    assert variation(probs("transformers", WORKED, **hot), probs("llama.cpp", WORKED, **hot)) == pytest.approx(0.128, abs=5e-4)


@pytest.mark.parametrize(
    ("engine", "context", "settings", "expected"),
    [
        ("transformers", ((0, 1), (5, 1)), {"repetition_penalty": 1.3}, [0.4313, 0.0252, 0.1527, 0.0926, 0.0046, 0.2936]),
        ("sglang", ((0, 1), (5, 1)), {"repetition_penalty": 1.3}, [0.5461, 0.0201, 0.1219, 0.0739, 0.0037, 0.2343]),
        ("vllm", ((0, 0, 1), (5, 5, 2)), {"presence_penalty": 0.7}, [0.6235, 0.0310, 0.0691, 0.0844, 0.0042, 0.1878]),
        ("llama.cpp", ((0, 0, 1), (5, 5, 2)), {"presence_penalty": 0.7}, [0.4618, 0.0230, 0.1030, 0.1258, 0.0063, 0.2801]),
    ],
)
def test_the_scope_of_penalties(engine: str, context: Any, settings: dict[str, Any], expected: list[float]) -> None:
    assert probs(engine, MIXED, *context, **settings) == pytest.approx(expected, abs=6e-5)


def test_penalties_stack_in_the_engines_order() -> None:
    every = {"repetition_penalty": 1.3, "frequency_penalty": 0.5, "presence_penalty": 0.2}
    context = ((0, 1), (5, 5, 1, 2))
    assert probs("vllm", MIXED, *context, **every)[[0, 3, 5]] == pytest.approx([0.6188, 0.1329, 0.1269], abs=6e-5)
    assert probs("sglang", MIXED, *context, **every)[[0, 5, 3]] == pytest.approx([0.6985, 0.1191, 0.0945], abs=6e-5)
    assert probs("llama.cpp", MIXED, *context, **every)[[0, 3, 5]] == pytest.approx([0.4509, 0.1950, 0.1862], abs=6e-5)


def test_llama_cpp_looks_back_a_window_only() -> None:
    far = tuple([0] + [2] * 64)
    assert probs("llama.cpp", MIXED, far, repetition_penalty=1.3)[0] > probs("transformers", MIXED, far, repetition_penalty=1.3)[0]
    assert probs("llama.cpp", MIXED, far, repetition_penalty=1.3, penalty_last_n=65) == pytest.approx(
        probs("transformers", MIXED, far, repetition_penalty=1.3)
    )


def test_ties_at_k() -> None:
    kept = {engine: int(np.count_nonzero(probs(engine, TIED, top_k=2))) for engine in ENGINES}
    assert kept == {"transformers": 4, "vllm": 4, "sglang": 2, "llama.cpp": 2, "tgi": 4, "gpt-fast": 4}


def test_clamps() -> None:
    assert probs("vllm", WORKED, temperature=1e-4) == pytest.approx(probs("vllm", WORKED, temperature=0.01))
    assert np.count_nonzero(probs("gpt-fast", TIED, temperature=0.0)) == 4
    assert probs("sglang", WORKED, temperature=1e-7, top_p=0.5) == pytest.approx([1, 0, 0, 0, 0, 0])


REFUSED = [
    ("transformers", {"temperature": 0.0}, "strictly positive float"),
    ("transformers", {"top_k": -1}, "`top_k` has to be"),
    ("transformers", {"presence_penalty": 0.7}, "model_kwargs"),
    ("vllm", {"temperature": 2.5}, "must be in [0, 2]"),
    ("vllm", {"top_p": 0.0}, "(0, 1]"),
    ("vllm", {"typical_p": 0.5}, "Unexpected keyword"),
    ("sglang", {"top_k": 0}, "-1 (disable)"),
    ("sglang", {"top_p": 0.0}, "(0, 1]"),
    ("sglang", {"repetition_penalty": 2.5}, "(0, 2]"),
    ("tgi", {"temperature": 0.0}, "strictly positive"),
    ("tgi", {"top_p": 1.0}, "< 1.0"),
    ("tgi", {"min_p": 0.1}, "no min_p"),
    ("gpt-fast", {"top_k": 0}, "topk"),
    ("gpt-fast", {"top_p": 0.9}, "no top_p"),
    ("llama.cpp", {"top_h": 0.5}, "no top_h"),
]


@pytest.mark.parametrize(("engine", "settings", "said"), REFUSED, ids=str)
def test_what_an_engine_refuses_is_an_answer(engine: str, settings: dict[str, Any], said: str) -> None:
    found = drawn(engine, WORKED, **settings)
    assert found.error is not None
    assert said in found.error
    assert len(found.probs) == 0


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        ("vllm", {"top_k": 0}),
        ("vllm", {"top_k": -1}),
        ("sglang", {"top_k": -1}),
        ("transformers", {"top_k": 0}),
        ("llama.cpp", {"top_k": -1}),
    ],
)
def test_what_turns_a_stage_off(engine: str, settings: dict[str, Any]) -> None:
    assert np.count_nonzero(probs(engine, WORKED, **settings)) == 6


def test_overflow_is_an_answer() -> None:
    assert "NaN" in str(drawn("llama.cpp", [3e38, 1.0], temperature=1e-3).error)


def test_defaults_from_a_models_file(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", generation_config={"temperature": 0.6, "top_k": 2, "do_sample": True})
    result = engines_report(EnginesOptions(logits="4,3,2.5", settings=SamplingParams(temperature=1.0), model=str(model))).result
    assert result is not None
    assert result["engines"]["vllm"]["settings"] == {"temperature": 1.0, "top_k": 2}
    assert result["engines"]["vllm"]["support"] == 2
    assert result["engines"]["llama.cpp"]["support"] == 3


def test_the_engines_own_defaults() -> None:
    result = engines_report(EnginesOptions(logits="4,3,2.5,2,1,0", settings=SamplingParams(temperature=1.0), defaults=True)).result
    assert result is not None
    assert result["engines"]["llama.cpp"]["settings"]["min_p"] == 0.05
    assert result["engines"]["transformers"]["settings"]["top_k"] == 50


def test_the_screen() -> None:
    report = engines_report(EnginesOptions(logits="4,3,2.5,2,1,0", settings=SamplingParams(temperature=0.7, top_k=3, top_p=0.9)))
    read_in_order(
        render(report, "text", Style(width=80)),
        "2 different distributions from the same numbers: up to 0.086 of the mass moves (transformers against sglang)",
        "transformers 5.23.0 2 0.8067 0.1933 - vllm 0.33.0 the same tgi 00cef24 the same",
        "sglang 0.5.23 3 0.7369 0.1766 0.0865 llama.cpp 0c1e570 the same",
        "Order temperature > top_k > top_p transformers 5.23.0, vllm 0.33.0, tgi 00cef24 Order temperature > joint sglang 0.5.23",
        "Order top_k > top_p > temperature llama.cpp 0c1e570",
        "Refused gpt-fast 0055c42: gpt-fast's sample() has no top_p",
    )


def test_a_token_outside_is_refused() -> None:
    with pytest.raises(QuestionError, match="token 9 lies outside"):
        engines_report(EnginesOptions(logits="4,3", settings=SamplingParams(repetition_penalty=1.2), context=TokenContext((9,))))


def test_sglang_by_version() -> None:
    """Read in the wheels of SGLang: what the repetition penalty counts, and which log-probabilities are listed."""
    found = {version: find_engine(f"sglang@{version}") for version in ("0.3.0", "0.4.1", "0.4.3", "0.4.6", "0.4.10", "0.5.23", "")}
    facts = {version: (one.scope["repetition_penalty"], one.logprobs) for version, one in found.items() if one is not None}
    assert facts == {
        "0.3.0": ("all", "raw"),
        "0.4.1": ("all", "raw"),
        "0.4.3": ("all", "processed"),
        "0.4.6": ("output", "processed"),
        "0.4.10": ("output", "temperature"),
        "0.5.23": ("output", "temperature"),
        "": ("output", "temperature"),
    }

"""What a file of outputs comes to: the counts, the likely cause with and without the model's files, the screens in 80 columns."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.finding import Severity
from llmdoctor.core.report import Report
from llmdoctor.gencfg.runaway.options import RunawayOptions
from llmdoctor.gencfg.runaway.runaway import runaway_report
from llmdoctor.report import Style, render
from tests.conftest import END, EOS, write_model
from tests.reading import read_in_order

Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ids(count: int, seed: int = 0) -> list[int]:
    chance = random.Random(count * 1000 + seed)
    return [chance.randrange(100, 5000) for _ in range(count)]


def passed(count: int = 20, limit: int = 128, end: int = END) -> Rows:
    """What a trainer that cleared eos leaves behind: the terminator, then noise to the limit."""
    rows = []
    for number in range(count):
        answer = ids(20 + number % 40, number)
        rows.append(
            {"token_ids": [*answer, end, *ids(limit - len(answer) - 1, 1)], "finish_reason": "length", "max_tokens": limit},
        )
    return rows


def stopped(count: int = 20, length: int = 20) -> Rows:
    return [{"token_ids": [*ids(length, number), END], "finish_reason": "stop", "max_tokens": 128} for number in range(count)]


def ran_out(count: int = 20, limit: int = 128) -> Rows:
    return [{"token_ids": ids(limit, number), "finish_reason": "length", "max_tokens": limit} for number in range(count)]


def looping(count: int = 20, limit: int = 128) -> Rows:
    return [
        {"token_ids": [*ids(30, number), *[7, 8, 9] * limit][:limit], "finish_reason": "length", "max_tokens": limit}
        for number in range(count)
    ]


def turns(count: int = 5) -> Rows:
    return [{"token_ids": [*ids(9, number), END, *ids(9), END], "finish_reason": "stop", "stop_reason": None} for number in range(count)]


TEXT = "The answer is 4. "


def texts(count: int = 20, reason: str | None = "length") -> Rows:
    return [{"prompt": "q", "completion": f"{TEXT}Number {number}", "finish_reason": reason} for number in range(count)]


def report(rows: Rows, *, terminators: list[str] | None = None, model: dict[str, Any] | None = None, limit: int | None = None) -> Report:
    Path("outputs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if model is not None:
        write_model(Path("model"), **model)
    return runaway_report(
        RunawayOptions(
            path="outputs.jsonl", model=None if model is None else "model", terminators=tuple(terminators or ()), max_new_tokens=limit
        )
    )


def result(made: Report) -> dict[str, Any]:
    assert made.result is not None
    return dict(made.result)


def screen(made: Report) -> str:
    return render(made, "text", Style(80, False))


GOOD: dict[str, Any] = {}
NARROW: dict[str, Any] = {"generation_config": {"eos_token_id": EOS, "pad_token_id": EOS}}
EMPTY: dict[str, Any] = {"generation_config": {}}
SUPPRESSED: dict[str, Any] = {"generation_config": {"eos_token_id": [END], "suppress_tokens": [END]}}
REJECTED: dict[str, Any] = {"generation_config": {"eos_token_id": [END], "do_sample": True, "temperature": 2}}

CAUSES: dict[str, tuple[Callable[[], Report], str, str | None, str | None]] = {
    "the files do not name it": (
        lambda: report(passed(), model=NARROW),
        "The files: the model ends with <|im_end|> (11), but generation_config.json:2 has eos_token_id [10]",
        '"eos_token_id": [10, 11]   in generation_config.json',
        "model/generation_config.json:2",
    ),
    "the files name none": (
        lambda: report(passed(), model=EMPTY),
        "generation_config.json has no eos_token_id; because that file exists, config.json's 11 (config.json:7) is ignored. vLLM, SGLang",
        '"eos_token_id": [11]   in generation_config.json',
        "model/generation_config.json",
    ),
    "the files suppress it": (
        lambda: report(passed(), model=SUPPRESSED),
        "The files: suppress_tokens holds every eos_token_id",
        "leave out suppress_tokens, or give it a value that lets eos through",
        "model/generation_config.json:5",
    ),
    "the files are rejected": (lambda: report(passed(), model=REJECTED), "transformers raises ValueError on them", None, None),
    "the files name it": (
        lambda: report(passed(), model=GOOD),
        "The files are right: generation_config.json:4 names 11, so a plain generate() stops there, as vLLM, SGLang, TGI, TensorRT-LLM, llama.cpp and "
        "MLX would. Something at run time removed it",
        "generate(..., generation_config=GenerationConfig(..., eos_token_id=[11, 10]))",
        None,
    ),
    "no model is given": (
        lambda: report(passed(), terminators=["11"]),
        "The model produced id 11 and the call did not stop at it: either the model's files do not name it as eos, or something at run time",
        None,
        None,
    ),
    "the model spells another model's token": (
        lambda: report([{"text": "Yes.<|eot_id|>And no."}] * 3, terminators=["<|eot_id|>"], model=GOOD),
        "<|eot_id|> is not a token of model",
        "stop=['<|eot_id|>']   in the request, or prompts from this model's own chat template",
        None,
    ),
    "records of several turns": (
        lambda: report(turns(), model=GOOD),
        "Records of several turns (tools, agents) look like this",
        None,
        None,
    ),
    "loops": (
        lambda: report(looping(), model=GOOD),
        "The model repeats itself to the end, and none of them had produced a terminator before",
        "do_sample=True, temperature=0.7   or repetition_penalty=1.05",
        None,
    ),
    "the limit is short": (
        lambda: report(stopped(10, 90) + ran_out(10), model=GOOD),
        "The limit is short for these answers: those that stopped have a median of 91 tokens, with a limit of 128",
        "max_new_tokens=512",
        None,
    ),
    "some never end": (
        lambda: report(stopped(10, 20) + ran_out(10), model=GOOD),
        "No sequence produced a terminator and went on, while those that stopped had a median of only 21 tokens",
        "max_new_tokens=512   for a few prompts; if they do not end, look at the labels",
        None,
    ),
    "none ends": (
        lambda: report(ran_out(), model=EMPTY),
        "Its files would not have stopped it either.",
        "max_new_tokens=512   for a few",
        None,
    ),
    "no terminator is known": (lambda: report(ran_out()), "Unknown: no id of a terminator is known", None, None),
    "texts without special tokens": (
        lambda: report(texts()),
        "Unknown from these texts: they were decoded without special tokens",
        "tokenizer.decode(ids, skip_special_tokens=False)   or record the token ids",
        None,
    ),
}


@pytest.mark.parametrize("name", CAUSES)
def test_cause(name: str) -> None:
    make, said, fix, place = CAUSES[name]
    made = make()
    assert said in result(made)["cause"]
    finding = made.findings[0]
    assert said in (finding.cause or "")
    if fix is not None:
        assert (finding.fix or "").startswith(fix)
    if place is not None:
        assert f"({place})" in (finding.cause or "")


def test_nothing_wrong_has_no_cause_and_no_finding() -> None:
    for made in (report(stopped()), report(texts(reason="stop")), report(texts(reason=None)), report(stopped(50) + ran_out(3), model=GOOD)):
        assert (result(made)["cause"], made.findings, made.nothing) == (None, (), False)


def test_the_contracts_fields() -> None:
    made = result(report(passed(18) + looping(1) + stopped(1), model=GOOD))
    assert made["sequences"] == 20
    assert made["ended_by"] == {"eos": 1, "stop": 0, "length": 19, "other": 0, "unknown": 0}
    (entry,) = made["passed_terminators"]
    assert (entry["token"], entry["id"], entry["sequences"], entry["median_position"], entry["stopped_later"]) == (
        "<|im_end|>",
        END,
        18,
        28,
        0,
    )
    assert entry["examples"][:2] == [{"line": 1, "position": 20}, {"line": 2, "position": 21}]
    assert entry["wasted"] == made["wasted"]["tokens"] == sum(128 - 21 - number for number in range(18))
    (loop,) = made["loops"]
    assert (loop["period"], loop["median_start"], loop["sequences"], loop["ids"]) == (3, 30, 1, [7, 8, 9])
    assert loop["examples"] == [{"line": 19, "start": 30, "repeats": 32.7}]
    assert made["tokens"] == 19 * 128 + 21
    assert made["model"]["engines"]["vllm"]["never_stops"] is False
    assert {(mark["token"], mark["id"]) for mark in made["terminators"]} == {("<|im_end|>", END), ("<|endoftext|>", EOS)}


def test_severities() -> None:
    def severities(made: Report) -> dict[str, Severity]:
        return {finding.code: finding.severity for finding in made.findings}

    assert severities(report(passed(), model=GOOD)) == {"GEN014": Severity.ERROR, "GEN016": Severity.ERROR}
    assert severities(report(turns(), model=GOOD)) == {"GEN014": Severity.WARNING}
    assert severities(report(stopped(80) + ran_out(20), model=GOOD)) == {"GEN016": Severity.WARNING}
    assert severities(report(stopped(199) + looping(1), model=GOOD)) == {"GEN015": Severity.WARNING}
    assert severities(report(stopped(50) + looping(1), model=GOOD)) == {"GEN015": Severity.ERROR}
    assert severities(report([{"text": "a.<|im_end|> b"}, *texts(300, None)])) == {"GEN014": Severity.WARNING}
    assert severities(report([{"text": "a.<|im_end|> b"}, *texts(20, None)])) == {"GEN014": Severity.ERROR}


def test_ends_by_length_are_inferred_from_the_greatest_length() -> None:
    bare = [{"token_ids": row["token_ids"]} for row in ran_out(15) + stopped(5)]
    made = report(bare)
    assert result(made)["ended_by"]["length"] == 15
    assert result(made)["inferred"] == [
        "id 11 is taken for the terminator: 5 of the first 5 rows that stopped early end in it",
        "15 of 20 sequences have exactly 128 tokens and none has more",
    ]
    assert [finding.severity for finding in made.findings] == [Severity.WARNING]
    assert len(result(report(bare, limit=128))["inferred"]) == 1
    assert report(bare, limit=128, model=GOOD).findings[0].severity is Severity.WARNING
    assert report(bare[:15], limit=128, model=GOOD).findings[0].severity is Severity.ERROR
    assert result(report([{"token_ids": ids(length)} for length in range(1, 60)]))["ended_by"]["length"] == 0


@pytest.mark.parametrize(("length", "inferred"), [(15, False), (16, True)])
def test_short_answers_of_one_length_are_labels_and_not_cut(length: int, inferred: bool) -> None:
    found = report([{"token_ids": ids(length, number)} for number in range(20)])
    assert found.verdict is not None
    assert (found.verdict.status == "problem") == inferred


@pytest.mark.parametrize(("reason", "status"), [("abort", "undecided"), ("content_filter", "undecided"), ("tool_calls", "ok")])
def test_an_end_that_the_model_did_not_choose_is_no_stop(reason: str, status: str) -> None:
    found = report([{"response": "a", "finish_reason": reason}] * 20)
    assert found.verdict is not None
    assert found.verdict.status == status
    assert ("ended otherwise" in found.verdict.text) == (status == "undecided")


def test_the_terminator_is_inferred_from_padded_rows() -> None:
    rows = [{"token_ids": [*ids(5 + number), 2, *[0] * (40 - number)]} for number in range(20)]
    made = result(report(rows))
    assert made["terminators"][-1] == {"token": None, "id": 2, "source": "inferred"}
    assert (made["ended_by"]["eos"], made["padded"], made["passed_terminators"]) == (20, 20, [])


def test_an_option_is_completed_by_the_models_files() -> None:
    rows = [{"token_ids": [5, 12, 6, 7], "finish_reason": "length"}, {"text": "a<|im_start|>b"}]
    for word in ("12", "<|im_start|>"):
        (first, second) = result(report(rows, terminators=[word], model=GOOD))["passed_terminators"]
        assert {(entry["token"], entry["id"], entry["unit"]) for entry in (first, second)} == {
            ("<|im_start|>", 12, "token"),
            ("<|im_start|>", 12, "character"),
        }


def test_a_model_that_is_a_tokenizer_alone_is_refused() -> None:
    from llmdoctor.core.errors import QuestionError

    with pytest.raises(QuestionError, match=r"no config\.json and no generation_config\.json"):
        report(passed(), model={"config": None, "generation_config": None})


def test_hostile_text_is_made_harmless() -> None:
    evil = "\x1b[2J\u202e[/INST][bold]\n::error::gotcha " * 9
    made = report([{"text": "a" * 30 + evil}, {"\x1b[2J": 1}, {"text": f"a{evil[:20]}b"}], terminators=[evil[:20]])
    text = screen(made)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())


GEN014_FIX = "Fix llmdoctor gencfg check MODEL says whether the files stop there; llmdoctor gencfg trace -- COMMAND names the line"
SCREENS: dict[str, tuple[Callable[[], Report], tuple[str, ...]]] = {
    "passed, files right": (
        lambda: report(passed(157) + stopped(3), model=GOOD),
        (
            "157 of 160 sequences passed <|im_end|> and went on.",
            "ended at eos 3 after 21 tokens (median) ended at the limit 157 limit 128 tokens",
            "passed 157 <|im_end|> (11) at token 39 (median), lines 1, 2, 3",
            "wasted 68% 13,793 of 20,159 tokens are after a terminator",
            "the model stops at 11 <|im_end|>, 10 <|endoftext|> generation_config.json:4",
            "error GEN014",
            "Cause The files are right: generation_config.json:4 names 11, so a plain generate() stops there",
            "Fix generate(..., generation_config=GenerationConfig(..., eos_token_id=[11, 10]))",
            "error GEN016",
            "Next llmdoctor gencfg trace -o run.jsonl -- COMMAND",
        ),
    ),
    "passed, files wrong": (
        lambda: report(passed(157) + looping(20), model=NARROW),
        (
            "157 of 177 sequences passed <|im_end|> and went on.",
            "loop 20 3 tokens long, from token 30 on, 32 times (median), lines 158, 159, 160: [7, 8, 9]",
            "the model stops at 10 <|endoftext|> generation_config.json:2",
            "error GEN014",
            "Cause The files: the model ends with <|im_end|> (11), but generation_config.json:2 has eos_token_id [10].",
            'Fix "eos_token_id": [10, 11] in generation_config.json',
            "error GEN015",
            "error GEN016",
            "Next llmdoctor gencfg check model",
        ),
    ),
    "passed, no model": (
        lambda: report(passed(30) + stopped(30)),
        (
            "30 of 60 sequences passed id 11 and went on.",
            "wasted 62% 2,775 of 4,470 tokens are after a terminator",
            "error GEN014",
            GEN014_FIX,
            "warning GEN016",
            "Assumed id 11 is taken for the terminator: 30 of the first 30 rows that stopped early end in it",
            "Next llmdoctor gencfg runaway outputs.jsonl --model DIR",
        ),
    ),
    "several turns": (
        lambda: report(turns(), model=GOOD),
        (
            "5 of 5 sequences passed <|im_end|> and went on; all of them stopped later.",
            "warning GEN014",
            "so the engine can stop. Records of several turns (tools, agents) look like this",
            GEN014_FIX,
        ),
    ),
    "length": (
        lambda: report(stopped(10) + ran_out(30), model=GOOD),
        (
            "30 of 40 sequences ended at the limit of tokens.",
            "warning GEN016",
            "Cause No sequence produced a terminator and went on",
            "Fix max_new_tokens=512",
            "Next llmdoctor labels audit model DATA --trainer TRAINER",
        ),
    ),
    "length, texts": (
        lambda: report(texts()),
        (
            "20 of 20 sequences ended at the limit of tokens.",
            "error GEN016",
            "Cause Unknown from these texts: they were decoded without special tokens",
            "Fix tokenizer.decode(ids, skip_special_tokens=False)",
        ),
    ),
    "loops": (
        lambda: report([{"text": f"So. {' I am sorry.' * 30}"}] * 3 + texts(5, None)),
        (
            "3 of 8 sequences end in a loop.",
            "loop 3 12 characters long, from character 4 on, 30 times (median), lines 1, 2, 3: ' I am sorry.'",
            "error GEN015",
            "Note Texts alone do not tell how they ended",
        ),
    ),
    "stopped": (
        lambda: report(stopped(), model=GOOD),
        ("No runaway: 20 of 20 sequences stopped.", "ended at eos 20 after 21 tokens (median)", "the model stops at 11 <|im_end|>"),
    ),
    "nothing says": (
        lambda: report(texts(reason=None)),
        (
            "Undecided: no runaway was seen in 20 sequences (no loop and no passed terminator). Nothing says how they ended.",
            "end unknown 20",
        ),
    ),
    "ids, nothing says": (
        lambda: report([{"token_ids": ids(length)} for length in range(9, 40)]),
        (
            "Undecided: no runaway was seen in 31 sequences (no loop). Nothing says how they ended.",
            "Note No id of a terminator is known, so none was searched for in token ids",
            "Note Without a finish reason or a limit the end of a sequence is unknown: --max-new-tokens N gives the limit.",
        ),
    ),
    "skipped": (
        lambda: report([*stopped(9), *[{"error": "timeout"}] * 7]),
        (
            "No runaway: 9 of 9 sequences stopped. 7 requests failed and left no output: one that timed out may have run on.",
            "Skipped outputs.jsonl:10: the request failed, so there is no output",
            "Skipped outputs.jsonl: 2 more records of 16",
        ),
    ),
    "empty answers": (
        lambda: report([{"completion": "", "finish_reason": "stop"}] * 6),
        ("No runaway: 6 of 6 sequences stopped; all of them are empty.",),
    ),
    "nothing": (lambda: report([]), ("Undecided: Nothing to check: no sequence in outputs.jsonl",)),
}


@pytest.mark.parametrize("name", SCREENS)
def test_screen(name: str) -> None:
    make, parts = SCREENS[name]
    text = screen(make())
    read_in_order(text, *parts)
    assert all(len(line) <= 80 or line.startswith("  ") for line in text.splitlines())

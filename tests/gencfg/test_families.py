"""Chat templates of fifty published families, shortened: healthy directories have no finding, and the fix of a broken one is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.finding import Finding
from llmdoctor.gencfg.check import check_report
from llmdoctor.gencfg.options import GencfgCheckOptions
from tests.conftest import by_folder, write_model

FAMILIES = [json.loads(line) for line in (Path(__file__).parent / "data" / "families.jsonl").read_text().splitlines()]
# Published with a template whose end of a turn is not among their stop ids: that is a fault of theirs.
FAULTY = {"qwen2.5-base"}
ENDED = [family for family in FAMILIES if family["end"] is not None]
FIRST = 300


def ids_of(family: dict[str, Any]) -> dict[str, int]:
    return {token: FIRST + at for at, token in enumerate(dict.fromkeys((*family["special"], *family["plain"])))}


def write(path: Path, family: dict[str, Any], stops: list[str], generation_config: bool = True) -> Path:
    ids = ids_of(family)
    special = set(family["special"])
    added = [{"id": number, "content": token, "special": token in special} for token, number in ids.items()]
    eos: dict[str, Any] = {"eos_token_id": [ids[token] for token in stops]} if stops else {}
    named = {f"{name}_token": family[name] for name in ("bos", "eos", "pad") if family[name] is not None}
    pad = {} if family["pad"] is None else {"pad_token_id": ids[family["pad"]]}
    return write_model(
        path,
        config={"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": FIRST + len(ids), **eos},
        generation_config={"transformers_version": "4.45.0", **eos, **pad} if generation_config else None,
        tokenizer_config={**named, "chat_template": family["template"]},
        tokenizer={"version": "1.0", "added_tokens": added, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}},
    )


def wrong_stop(family: dict[str, Any]) -> str:
    """A token that ends no turn of the family: its end of a text, else its first one."""
    usual = ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "[EOS]", "<EOS_TOKEN>", *family["special"])
    return next(token for token in usual if token in family["special"] and token != family["end"])


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    """The findings by folder: NAME, NAME+none (no stop ids), NAME+wrong (another id), NAME+early (a token of the reasoning)."""
    root = tmp_path_factory.mktemp("families")
    paths = [write(root / family["name"], family, family["stops"]) for family in FAMILIES]
    for family in ENDED:
        paths.append(write(root / f"{family['name']}+none", family, []))
        paths.append(write(root / f"{family['name']}+wrong", family, [wrong_stop(family)], generation_config=False))
    report = check_report(GencfgCheckOptions(paths=tuple(map(str, paths)), transformers="5.23.0"))
    return by_folder(report, paths)


def serious(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity.rank > 0]


@pytest.mark.parametrize("name", [family["name"] for family in FAMILIES])
def test_a_healthy_family_has_no_error_and_no_warning(name: str, findings: dict[str, list[Finding]]) -> None:
    assert {finding.code for finding in serious(findings[name])} == ({"GEN002"} if name in FAULTY else set())


@pytest.mark.parametrize("fault", ["none", "wrong"])
@pytest.mark.parametrize("family", ENDED, ids=[family["name"] for family in ENDED])
def test_a_fault_is_found_and_its_fix_names_the_end_of_a_turn(
    family: dict[str, Any], fault: str, findings: dict[str, list[Finding]]
) -> None:
    found = serious(findings[f"{family['name']}+{fault}"])
    ids = ids_of(family)
    assert found
    for finding in found:
        assert str(ids[family["end"]]) in (finding.fix or "")
        for edit in finding.edits:
            assert ids[family["end"]] in edit.value
            wrong = {ids[wrong_stop(family)]} if fault == "wrong" else set()
            known = {ids[token] for token in (*family["stops"], family["eos"])}
            assert set(edit.value) <= known | wrong, "no other token is added"
    assert any(finding.edits for finding in found)

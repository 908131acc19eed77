"""The fixes of gencfg check, tried with the real generate(): it stops at the end of an answer after the fix, and never inside one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.gencfg.check import check_report
from llmdoctor.gencfg.options import GencfgCheckOptions
from tests.gencfg.test_terminator import TEMPLATES

pytestmark = pytest.mark.live
for package in ("torch", "transformers"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

OPEN, NAME, CLOSE, END, OTHER, A, B = 8, 9, 10, 11, 12, 1, 2
SECTIONS = {"<|open|>": OPEN, "<|name|>": NAME, "<|close|>": CLOSE, "<|turn|>": END, "<|endoftext|>": OTHER}
ANSWER = [OPEN, NAME, A, CLOSE, CLOSE, END, A, B, A]  # the model goes on behind the end of its turn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes)).save_pretrained(tmp_path)
    added = [{"id": number, "content": text, "special": True} for text, number in SECTIONS.items()]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": {"type": "BPE", "vocab": {",": A, "b": B}}}))
    template = TEMPLATES["sections close before the end"][0]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>", "chat_template": template}))
    return tmp_path


def generated(folder: Path) -> list[int]:
    """The new tokens of a generate() whose next token is that of ANSWER, whatever the model says."""
    import torch
    from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList

    class Scripted(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            forced = torch.full_like(scores, -torch.inf)
            forced[:, ANSWER[min(input_ids.shape[1] - 1, len(ANSWER) - 1)]] = 0
            return forced

    model = AutoModelForCausalLM.from_pretrained(str(folder))
    output = model.generate(torch.tensor([[3]]), max_new_tokens=len(ANSWER), logits_processor=LogitsProcessorList([Scripted()]))
    tokens: list[int] = output[0, 1:].tolist()
    return tokens


@pytest.mark.parametrize(
    ("eos", "codes", "before"),
    [
        ([OTHER], {"GEN002"}, ANSWER),
        ([OTHER, CLOSE], {"GEN002", "GEN022"}, [OPEN, NAME, A, CLOSE]),
        ([OTHER, A], {"GEN002", "GEN022"}, [OPEN, NAME, A]),
        ([OTHER, END], set(), [OPEN, NAME, A, CLOSE, CLOSE, END]),
    ],
)
def test_the_fix_makes_the_real_generate_stop_at_the_end_of_an_answer(
    folder: Path, eos: list[int], codes: set[str], before: list[int]
) -> None:
    file = folder / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": eos}))
    assert generated(folder) == before
    findings = [finding for finding in check_report(GencfgCheckOptions(paths=(str(folder),))).findings if finding.severity.rank > 0]
    assert {finding.code for finding in findings} == codes
    for finding in findings:
        for edit in finding.edits:
            file.write_text(json.dumps({"eos_token_id": edit.value}))
            assert generated(folder) == [OPEN, NAME, A, CLOSE, CLOSE, END]

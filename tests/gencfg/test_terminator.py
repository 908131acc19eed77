"""What ends an answer, what ends a tool call, and what can occur inside: on templates of the structures that public models have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmdoctor.gencfg.check import check_report
from llmdoctor.gencfg.options import GencfgCheckOptions
from llmdoctor.gencfg.terminator import TemplateVariables, Terminator, find_terminator
from llmdoctor.modeldir.template import ChatTemplate, TemplateWorker
from tests.conftest import write_model

HEADER = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHATML = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}" + HEADER
CALLS = "{% for c in m.tool_calls %}{{ '<call>' + c.function.arguments | tojson + '</call>' }}{% endfor %}"
# name: (template, end of an answer, end of a tool call, inside)
TEMPLATES = {
    "chatml": (CHATML, "<|im_end|>", None, set()),
    "chatml with a system message of its own": ("{{ '<|im_start|>system\nHi.<|im_end|>\n' }}" + CHATML, "<|im_end|>", None, set()),
    "always the next header": (CHATML.replace(HEADER, "{{ '<|im_start|>assistant\n' }}"), "<|im_end|>", None, set()),
    "eos behind the last turn": (
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ '<|endoftext|>' }}{% endif %}",
        "<|end|>", None, set(),
    ),
    "closed only if another turn follows": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
        "{% if not loop.last %}{{ '<|im_end|>\n' }}{% endif %}{% endfor %}" + HEADER,
        "<|im_end|>", None, set(),
    ),
    "the next header ends a turn": (
        "{{ '[gMASK]<sop>' }}{% for m in messages %}{{ '<|' + m.role + '|>\n' }}{% if m.tool_calls %}" + CALLS + "{% else %}{{ m.content }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        "<|user|>", "<|tool|>", {"<call>", "</call>"},
    ),
    "an inner turn closes otherwise": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|start|>assistant' }}{% if m.tool_calls %}{% for c in m.tool_calls %}"
        "{{ '<|channel|>x<|message|>' + c.function.arguments | tojson + '<|call|>' }}{% endfor %}{% else %}{% if m.thinking %}"
        "{{ '<|channel|>analysis<|message|>' + m.thinking + '<|end|><|start|>assistant' }}{% endif %}"
        "{{ '<|channel|>final<|message|>' + m.content + ('<|return|>' if loop.last else '<|end|>') }}{% endif %}"
        "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}",
        "<|return|>", "<|call|>", {"<|channel|>", "<|message|>", "<|end|>", "<|start|>"},
    ),
    "sections close before the end": (
        "{% for m in messages %}{{ '<|open|>' + m.role + '<|name|>' }}{% if m.role == 'assistant' %}{{ '<|open|>reply<|name|>' }}{% endif %}"
        "{{ m.content + '<|close|>' }}{% if m.role == 'assistant' %}{{ '<|close|>' }}{% endif %}{{ '<|turn|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|open|>assistant<|name|>' }}{% endif %}",
        "<|turn|>", None, {"<|close|>"},
    ),
    "a response marker, and always a header": (
        "{{ '<bos>' }}{{ '<|turn|>system\nHi.<|end_turn|>' }}{% for m in messages %}{{ '<|turn|>' + m.role }}"
        "{% if m.role == 'assistant' %}{{ '<|resp|>' + m.content + '<|end_resp|><|end_turn|>' }}{% else %}{{ m.content + '<|end_turn|>' }}{% endif %}"
        "{% endfor %}{{ '<|turn|>assistant' }}",
        "<|end_turn|>", None, {"<|end_resp|>"},
    ),
    "a tool call ends like an answer": (
        CHATML.replace("m.content", "(m.content if not m.tool_calls else '<call>' + m.tool_calls[0].function.arguments | tojson + '</call>')"),
        "<|im_end|>", None, {"<call>", "</call>"},
    ),
    "a built-in tool's call ends otherwise": (
        CHATML.replace(
            "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}",
            "{{ '<|im_start|>' + m.role + '\n' }}{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments | tojson }}"
            "{{ '<|eom|>' if builtin_tools is defined else '<|im_end|>' }}{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}",
        ),
        "<|im_end|>", "<|eom|>", set(),
    ),
    "each message of an answer ends like an inner turn": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
        "{{ '<|return|>' if loop.last else '<|end|>' }}{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}",
        "<|return|>", None, {"<|channel|>", "<|message|>", "<|end|>"},
    ),
    "the prompt opens a thought": (
        CHATML.replace("assistant\n' }}{% endif %}", "assistant\n<think>\n' }}{% endif %}"), "<|im_end|>", None, {"</think>"},
    ),
    "content in parts": (
        "{% for m in messages %}{{ '<s>' + m.role }}{% for p in m.content %}{{ p.text }}{% endfor %}{{ '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<s>assistant' }}{% endif %}",
        "</s>", None, set(),
    ),
    "the next header is always there, and the prompt adds a section to it": (
        "{% for m in messages %}{{ '<|turn|><|' + m.role + '|>' + ('<|reply|>' + m.content + '<|/reply|>' if m.role == 'assistant' else m.content) "
        "+ '<|end|>' }}{% endfor %}<|turn|><|assistant|>{% if add_generation_prompt %}<|reply|>{% endif %}",
        "<|end|>", None, {"<|/reply|>"},
    ),
    "plain text": ("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}", None, None, set()),
}  # fmt: skip


def terminator(template: str, eos: str | None = None) -> Terminator:
    tokens = sorted(set(re.findall(r"<[^<>']+>|\[gMASK\]", template)) | {"<think>", "</think>", "<|user|>", "<|tool|>", "<|system|>"})
    ids: dict[str, int | None] = {token: number for number, token in enumerate(tokens)}
    plain = {"<think>", "</think>", "<call>", "</call>"}

    def render(conversations: list[TemplateVariables]) -> list[str | None]:
        return [rendering.text for rendering in worker.render_many(ChatTemplate("default", template, "f"), conversations)]

    with TemplateWorker() as worker:
        return find_terminator(render, {token: number for token, number in ids.items() if token not in plain}, ids.get, tokens, eos)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_end_of_an_answer_and_what_is_inside(name: str) -> None:
    template, end, tool, inside = TEMPLATES[name]
    found = terminator(template)
    assert found.token == end
    assert (found.tool.token if found.tool else None) == tool
    assert inside <= set(found.inside.values())
    assert found.id not in found.inside, "what can occur inside an answer never ends it"


def test_a_turn_that_ends_with_a_token_from_inside_an_answer_is_not_certain() -> None:
    template = CHATML.replace("m.content", "('<|im_end|>' + m.content if m.role == 'assistant' else m.content)")
    found = terminator(template)
    assert found.id in found.inside
    assert "inside" in (found.reason or "")


@pytest.mark.parametrize(("eos", "end"), [("</s>", None), (None, None), ("<role>", "<role>")])
def test_what_begins_each_turn_may_not_end_one(eos: str | None, end: str | None) -> None:
    """Ling ends an answer with its eos, Nemotron Mini with the next turn's first token; both templates look alike."""
    found = terminator("{% for m in messages %}{{ '<role>' + m.role + '</role>' + m.content }}{% endfor %}", eos)
    assert found.token == end
    assert found.plain is False
    assert end is not None or f"either <role>, with which each turn begins, ends one, or {eos or 'a token'}" in (found.reason or "")


SECTIONS = TEMPLATES["sections close before the end"][0]


def test_no_fix_adds_an_id_that_can_occur_inside_an_answer(tmp_path: Path) -> None:
    texts = ["<|open|>", "<|name|>", "<|close|>", "<|turn|>", "<|endoftext|>"]
    tokenizer = {
        "added_tokens": [{"id": 8 + at, "content": text, "special": True} for at, text in enumerate(texts)],
        "model": {"type": "BPE", "vocab": {}},
    }
    model = write_model(
        tmp_path / "model",
        tokenizer=tokenizer,
        tokenizer_config={"eos_token": "<|close|>", "chat_template": SECTIONS},
        generation_config={"eos_token_id": [12]},
    )
    findings = check_report(GencfgCheckOptions(paths=(str(model),), transformers="5.23.0")).findings
    edits = [edit.value for finding in findings for edit in finding.edits]
    assert edits == [[12, 11]]
    assert {finding.code for finding in findings if finding.severity.rank == 2} == {"GEN002"}

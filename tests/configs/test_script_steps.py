"""What a script does outside the calls that are read is named with its line; words in comments and harmless calls are not."""

from __future__ import annotations

import ast

import pytest

from llmdoctor.configs.reading import read
from llmdoctor.configs.script_steps import unread_steps

SCRIPT = """
import re
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
model = AutoModelForCausalLM.from_pretrained("m")
args = TrainingArguments(output_dir="o", per_device_train_batch_size=2)
{step}
Trainer(model=model, args=args).train()
"""


def steps_of(step: str) -> list[str]:
    tree = ast.parse(SCRIPT.format(step=step))
    maker = next(node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "TrainingArguments")
    return unread_steps(tree, maker)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("model.gradient_checkpointing_enable()", "gradient_checkpointing_enable() on line 6"),
        ("for p in model.parameters(): p.requires_grad = False", "p.requires_grad = on line 6"),
        ("model.lm_head.requires_grad_(False)", "requires_grad_() on line 6"),
        ("model = torch.compile(model)", "compile() on line 6"),
        ("model.float()", "model.float() on line 6"),
        ("args.gradient_checkpointing = True", "args.gradient_checkpointing = on line 6"),
        ("config = IA3Config(task_type='CAUSAL_LM')", "IA3Config() on line 6"),
        (
            "head = AutoModelForSequenceClassification.from_pretrained('m')",
            "AutoModelForSequenceClassification.from_pretrained() on line 6",
        ),
        ("t = SFTTrainer(model, max_seq_length=2048, optimizers=(o, None))", "SFTTrainer(max_seq_length=...) on line 6"),
    ],
)
def test_a_step_is_named_with_its_line(step: str, expected: str) -> None:
    assert expected in steps_of(step)


@pytest.mark.parametrize(
    "step",
    ["# torch.compile, requires_grad, max_seq_length", "x = re.compile('a')", "y = float('1')", "loss = outputs['loss']", "other.lr = 1"],
)
def test_what_changes_no_memory_is_not_named(step: str) -> None:
    assert steps_of(step) == []


def test_a_reader_carries_them_as_limits() -> None:
    found = read("train.py", text=SCRIPT.format(step="model.gradient_checkpointing_enable()"))
    assert found.normal.limits == ["gradient_checkpointing_enable() on line 6: not read, and can change the memory"]
    assert read("train.py", text=SCRIPT.format(step="pass")).normal.limits == []

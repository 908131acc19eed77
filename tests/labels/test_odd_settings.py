"""Settings and messages of another type than the trainer takes are refused in a sentence."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.labels.audit import audit_report
from llmdoctor.labels.options import LabelsOptions

MODEL = Path(__file__).parents[2] / "docs" / "examples" / "qwen2-vl-tiny"
TALK = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
ENTRY = "base_model: m\ndatasets: [{{path: a, type: chat_template, {}}}]\n"


def audited(folder: Path, trainer: str, config: str | None, row: object = TALK) -> None:
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "config.yaml").write_text(config or "")
    audit_report(
        LabelsOptions(
            model=str(MODEL),
            data=str(folder / "rows.jsonl"),
            trainer=trainer,
            config=None if config is None else str(folder / "config.yaml"),
        )
    )


@pytest.mark.parametrize(
    ("trainer", "config", "sentence"),
    [
        ("ms-swift", "model: m\ntuner_type: lora\ntemplate: [1]\n", r"template: expected Optional\[str\], found \[1\]"),
        (
            "ms-swift",
            "model: m\ntuner_type: lora\ntemplate: qwen2_5\nmax_length: -5\ntruncation_strategy: right\n",
            "max_length: -5, expected at least 1",
        ),
        ("trl-sft", "output_dir: o\nmax_length: abc\n", "max_length: expected int"),
        ("trl-sft", "output_dir: o\npacking: [1]\n", "packing: expected bool"),
        ("axolotl", "base_model: m\nspecial_tokens: [1]\n", "special_tokens: expected SpecialTokensConfig"),
        ("axolotl", "base_model: m\nspecial_tokens: {eos_token: [1]}\n", "special_tokens.eos_token: expected a text"),
        ("axolotl", ENTRY.format("roles: 5"), "roles: expected an object"),
        ("axolotl", ENTRY.format("roles_to_train: 5"), "roles_to_train: expected a list of texts"),
        ("axolotl", ENTRY.format("field_messages: [1]"), "field_messages: expected a text"),
        ("axolotl", ENTRY.format("message_property_mappings: 5"), "message_property_mappings: expected an object"),
    ],
)
def test_a_setting_of_another_type(tmp_path: Path, trainer: str, config: str, sentence: str) -> None:
    with pytest.raises(QuestionError, match=sentence):
        audited(tmp_path, trainer, config)


@pytest.mark.parametrize("message", [5, {"role": ["a"], "content": "b"}, {"role": "user", "content": {"b": 1}}], ids=str)
@pytest.mark.parametrize("trainer", ["axolotl", "unsloth", "transformers-clm", "ms-swift", "torchtune"])
def test_messages_that_are_none_are_no_internal_fault(tmp_path: Path, trainer: str, message: object) -> None:
    configs = {
        "axolotl": "base_model: m\ndatasets: [{path: a, type: chat_template}]\n",
        "ms-swift": "model: m\ntuner_type: lora\ntemplate: qwen2_5\n",
        "torchtune": "dataset: {_component_: torchtune.datasets.chat_dataset, conversation_column: messages, conversation_style: openai}\n"
        "tokenizer: {_component_: torchtune.models.qwen2_5.qwen2_5_tokenizer, path: v, merges_file: m}\n",
    }
    with suppress(QuestionError):  # anything else fails the test
        audited(tmp_path, trainer, configs.get(trainer), {"messages": [message]})

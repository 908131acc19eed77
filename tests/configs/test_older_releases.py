"""Files that were written for an older release: names that changed are read and said, defaults that changed are asked for."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest

from llmdoctor.configs import trl
from llmdoctor.configs.reading import read
from llmdoctor.configs.schema import declared
from llmdoctor.configs.types import Configuration, Ignored
from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.keys import check_keys

# The form of alignment-handbook's recipes/zephyr-7b-beta/sft/config_full.yaml.
RECIPE = """
model_name_or_path: m
torch_dtype: bfloat16
attn_implementation: flash_attention_2
chat_template: "{{ messages }}"
dataset_mixer: {a: 1.0}
dataset_splits: [train_sft, test_sft]
preprocessing_num_workers: 12
bf16: true
evaluation_strategy: epoch
gradient_checkpointing: true
learning_rate: 2.0e-05
max_seq_length: 2048
output_dir: o
per_device_eval_batch_size: 8
per_device_train_batch_size: 16
warmup_ratio: 0.1
"""


def readable(text: str) -> Configuration:
    found = read("recipe.yaml", text=text)
    check_keys(found)
    return found


def test_a_recipe_of_the_handbook_is_read_by_the_present_names() -> None:
    found = readable(RECIPE)
    normal = found.normal
    assert (normal.get("sequence_length"), normal.get("load_dtype"), normal.get("evaluation"), normal.get("eval_batch")) == (
        2048, "bfloat16", "epoch", 8,
    )  # fmt: skip
    assert normal.limits == [
        "torch_dtype, evaluation_strategy, max_seq_length read by the present names, as trl 1.0.0 would run it, which rejects the old ones"
    ]
    assert {"dataset_mixer", "chat_template"} <= found.of("memory", Ignored).keys()


@pytest.mark.parametrize("key", ["gradient_checkpointing", "bf16"])
def test_a_default_that_changed_since_is_asked_for(key: str) -> None:
    with pytest.raises(
        QuestionError, match=f"evaluation_strategy is a name of transformers 4.44.2 or older, whose default of {key} is false .*: set {key}"
    ):
        readable("".join(line for line in RECIPE.splitlines(True) if not line.startswith(f"{key}:")))


def test_the_old_and_the_new_name_in_one_file_are_refused() -> None:
    with pytest.raises(QuestionError, match=r"max_seq_length: trl 1\.0\.0 has no such setting any more"):
        readable(RECIPE + "max_length: 512\n")


def test_without_the_handbooks_marks_its_keys_are_unknown() -> None:
    text = "".join(line for line in RECIPE.splitlines(True) if not line.startswith(("chat_template", "dataset_mixer")))
    with pytest.raises(QuestionError, match=r"preprocessing_num_workers: trl 1\.0\.0 has no such setting"):
        readable(text)


@pytest.mark.parametrize(
    ("more", "limit"),
    [
        ("max_length: 9\nbeta: 0.1\n", "read as DPOConfig: KTOConfig, ORPOConfig and"),
        ("max_length: 9\npacking: true\n", None),
        ("max_seq_length: 9\ngradient_checkpointing: true\n", None),
    ],
)
def test_a_file_that_several_classes_accept_says_which_one_is_taken(more: str, limit: str | None) -> None:
    found = read("t.yaml", text=f"output_dir: o\nper_device_train_batch_size: 8\nlearning_rate: 1\n{more}")
    assert [one for one in found.normal.limits if one.startswith("read as")] == [
        one for one in found.normal.limits if limit and one.startswith(limit)
    ]
    assert (limit is None) is not any(one.startswith("read as") for one in found.normal.limits)


@pytest.mark.parametrize("name", ["train_type", "sft_type"])
def test_the_name_of_ms_swifts_tuner_in_release_3(name: str) -> None:
    text = f"model: m\n{name}: full\ndataset: d\nmax_length: 99\ntorch_dtype: bfloat16\nlora_rank: 8\ntemplate: qwen\n"
    found = readable(text)
    assert (found.normal.get("adapter"), found.normal.get("sequence_length")) == ("none", 99)
    assert found.normal.limits == [f"{name} read by the present names, as ms-swift 4.6.0 would run it, which rejects the old ones"]


def test_the_present_defaults_are_others_than_those_of_the_old_names() -> None:
    fields = declared("trl")["classes"]["SFTConfig"]["fields"]
    assert json.dumps([fields["gradient_checkpointing"][1], fields["bf16"][1]]) == "[true, null]"
    assert trl.FORMAT.version == "1.0.0"


@pytest.mark.live
@pytest.mark.parametrize("key", ["max_seq_length", "torch_dtype", "evaluation_strategy"])
def test_the_installed_release_rejects_the_old_names(key: str) -> None:
    real = pytest.importorskip("trl")
    if version("trl") != trl.FORMAT.version:
        pytest.skip("another trl is installed")
    for one in (real.SFTConfig, real.ModelConfig):
        with pytest.raises(TypeError, match=key):
            one(**{key: "x"})

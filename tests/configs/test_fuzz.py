"""Whatever a file holds, reading it ends in a configuration or in one sentence, and no key is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdoctor.configs import axolotl, deepspeed, llamafactory, ms_swift, script, trainer, trl
from llmdoctor.configs.formats import FORMATS
from llmdoctor.configs.reading import flat, read, read_value
from llmdoctor.configs.types import Format, Ignored, Refused, Uses
from llmdoctor.core.errors import QuestionError

LEAVES = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        -1,
        4,
        1.5,
        1e9,
        10**30,
        float("nan"),
        "",
        "auto",
        "none",
        "full",
        "lora",
        "qlora",
        "true",
        "5e8",
        "bf16",
        "x" * 100,
        "all",
    ]
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=6
)
NAMES = {form.name: sorted({key.split(".")[0] for key in form.variant({}).keys}) for form in FORMATS}
NAMES["trl"] = sorted({key.split(".")[0] for name in trl.OBJECTIVES for key in trl.variant_of(name).keys})
# The keys that a settle reads are few among many: they are drawn more often.
OFTEN = {
    "axolotl": sorted(axolotl.OWN.uses), "llamafactory": sorted(llamafactory.OWN.uses), "ms-swift": sorted(ms_swift.OWN.uses),
    "trl": sorted({**trl.MODEL.uses, **trl.TRAINERS.uses}), "transformers": sorted(trainer.ARGUMENTS.uses), "deepspeed": sorted(deepspeed.schema.TOP),
}  # fmt: skip


@pytest.mark.parametrize("format_", FORMATS, ids=lambda one: one.name)
@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_value_makes_reading_fail(format_: Format, data: st.DataObject) -> None:
    keys = st.sampled_from(NAMES[format_.name]) | st.sampled_from(OFTEN.get(format_.name, NAMES[format_.name])) | st.text(max_size=4)
    value: dict[str, Any] = data.draw(st.dictionaries(keys, VALUES, max_size=8))
    without = data.draw(st.lists(keys, max_size=2))
    found = read_value(value, "file", format_, without=without)
    listed = {key for kind in (Uses, Ignored, Refused) for key in found.of("memory", kind)} | {one.key for one in found.unknown}
    rows = {name for name, _, _ in flat(value, found.variant)}
    left = {name for name in rows if any(name == one or name.startswith(f"{one}.") for one in found.without)}
    assert rows - left <= listed
    assert all("\n" not in reason or not reason.isprintable() for reason in found.rejected.values())
    json.dumps(found.assumed(), default=str)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.text(alphabet="TrainingArguments(output_dir=)'x,*{}[]\n 1.:LoraConfig", max_size=80))
def test_no_script_makes_reading_fail(text: str) -> None:
    try:
        read("train.py", text=text)
    except QuestionError:
        return


def test_a_script_of_many_nested_calls_is_refused_in_a_sentence() -> None:
    with pytest.raises(QuestionError):
        script.read_calls("f(" * 3000 + ")" * 3000, "train.py")


ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    3,
    1.5,
    "",
    "auto",
    "none",
    "full",
    "lora",
    "x",
    [],
    [1],
    ["a"],
    {},
    {"a": 1},
    {"dtype": 3},
    [{}],
    10**30,
]
BASES: dict[str, list[dict[str, Any]]] = {
    "axolotl": [{}, {"adapter": "qlora", "load_in_4bit": True}, {"plugins": ["a.liger.B"], "liger_rope": True}],
    "llamafactory": [{}, {"finetuning_type": "lora", "quantization_bit": 4}, {"use_galore": True, "bf16": True}],
    "ms-swift": [{}, {"tuner_type": "lora", "quant_bits": 4}, {"tuner_type": "full", "deepspeed": "zero3"}],
    "trl": [{}, {"use_peft": True, "load_in_4bit": True}, {"model_init": {"peft_config": {"r": 4}}}],
    "transformers": [{}, {"model_init": {"peft_config": {"r": 4}}}],
    "accelerate": [{"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 3}}],
    "peft": [{"peft_type": "LORA"}],
}


@pytest.mark.parametrize("format_", FORMATS, ids=lambda one: one.name)
def test_each_key_that_decides_with_each_odd_value(format_: Format) -> None:
    """No format's settle raises anything but a sentence, for any kind of value of any key that it reads."""
    for base in BASES.get(format_.name, [{}]):
        for key in OFTEN.get(format_.name, NAMES[format_.name]):
            for value in ODD:
                head, _, rest = key.partition(".")
                try:
                    read_value({**base, head: {rest: value} if rest else value}, "file", format_)
                except Exception as error:
                    raise AssertionError(f"{format_.name} {base} {key}: {value!r}: {type(error).__name__}: {error}") from error

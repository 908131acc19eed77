"""Any value at any key: the rules over configurations and requests return findings and never raise."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdoctor.check.kinds import KINDS
from llmdoctor.configs import deepspeed_schema as schema
from llmdoctor.configs.agreement import SAME
from llmdoctor.configs.linked import LinkedFiles
from llmdoctor.core.text import plain
from llmdoctor.files.jsonfile import JsonFile, parse
from llmdoctor.files.pickles import PickledObject
from llmdoctor.files.project import ProjectSettings
from llmdoctor.files.yamlfile import parse_yaml
from llmdoctor.mem.config_rules.trainer import check_pickled

WORDS = sorted(
    {
        *(name for fields in schema.SECTIONS.values() for name in fields),
        *(part for place in schema.SECTIONS for part in place),
        *schema.TOP, *schema.REMOVED, *schema.REMOVED_ZERO, *SAME.values(), *(part for place in SAME for part in place),
        *"enabled deepspeed output_dir base_model datasets sequence_len num_epochs micro_batch_size distributed_type mixed_precision".split(),
        *"compute_environment deepspeed_config deepspeed_config_file zero_stage offload_param_device zero3_init_flag bf16_full_eval".split(),
        *"model messages prompt temperature top_p top_k min_p stop n max_tokens max_completion_tokens ignore_eos url body extra_body".split(),
    }
)  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.integers(10**8, 10**12) | st.floats(allow_nan=True) | st.text(max_size=4)
    | st.sampled_from(["auto", "cpu", "nvme", "5e8", "true", "ds.json", "DEEPSPEED", "/v1/chat/completions", "gpt-4o", 10**400])
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner, max_size=6),
    max_leaves=25,
)
OBJECTS = st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=12)
NEARBY_FILES = LinkedFiles(ProjectSettings(gpu_memory=2**34))


@settings(max_examples=500, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=OBJECTS)
def test_no_rule_raises(value: dict[str, Any]) -> None:
    text = json.dumps(value).encode()
    for file in (parse(text, "a.json", "a.json"), parse_yaml(text, "a.yaml", "a.yaml"), JsonFile("a.json", "a.json", value)):
        for kind in KINDS:
            if file.value is not None and kind.recognise(file.value):
                for finding in kind.judge(file, NEARBY_FILES):
                    assert finding.message
                    assert finding.location is not None
                    json.dumps(plain(finding.evidence), allow_nan=False)
    check_pickled(PickledObject("transformers.training_args.TrainingArguments", None, value), "a.bin", "a.bin", NEARBY_FILES)


@settings(max_examples=200, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=OBJECTS, deepspeed=OBJECTS)
def test_no_rule_raises_where_it_is_certain_to_be_asked(value: dict[str, Any], deepspeed: dict[str, Any]) -> None:
    """The same with the keys that make each kind be one."""
    sure = (
        {"output_dir": "o", "per_device_train_batch_size": 1, **value, "deepspeed": {"zero_optimization": {}, **deepspeed}},
        {"zero_optimization": value, **deepspeed},
        {"distributed_type": "DEEPSPEED", "compute_environment": "x", "deepspeed_config": value},
        {"model": "m", "messages": [], "temperature": 1, **{key: item for key, item in value.items() if key != "model"}},
    )
    for each, kind in zip(sure, (KINDS[1], KINDS[2], KINDS[0], KINDS[3]), strict=True):
        file = JsonFile("a.json", "a.json", each)
        if kind.recognise(each):
            kind.judge(file, NEARBY_FILES)

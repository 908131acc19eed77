"""MEM006 to MEM014: the words of the rules over training configurations. Read in deepspeed 0.19.8, transformers 5.23, accelerate 1.15."""

from __future__ import annotations

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule, declared

PRECISION = Rule(
    code="MEM006",
    fixable=True,
    name="contradictory-precision",
    severity=Severity.ERROR,
    summary="Two settings ask for two precisions.",
    reason="bf16 and fp16 exclude each other: DeepSpeed asserts (runtime/config.py, _initialize_params), the Trainer raises (training_args.py), and where the Trainer's "
    "arguments and its DeepSpeed config differ the run ends after the model was loaded. torch_autocast beside bf16 or fp16 is accepted without a warning: the weights "
    "are 16 bit already, and autocast, which is there to keep them in fp32, saves nothing and rounds twice.",
    bad='{"bf16": {"enabled": true}, "fp16": {"enabled": true}}',
    good='{"bf16": {"enabled": true}, "fp16": {"enabled": false}}',
    fix='Keep one. Under the Trainer write "auto" in the DeepSpeed config and set the precision in the arguments alone.',
)
REFUSED = Rule(
    code="MEM007",
    fixable=True,
    name="refused-configuration",
    severity=Severity.ERROR,
    summary="DeepSpeed or accelerate raises on this configuration.",
    reason="A key that a section does not have, a value of another type, a feature that was removed, batch sizes that no number of devices can satisfy: the run ends at "
    "deepspeed.initialize(), after the job waited for its devices and the model was loaded.",
    bad='{"train_batch_size": 30, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2}',
    good='{"train_batch_size": 32, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2}',
    fix="Correct the setting that the message names.",
)
MISMATCH = Rule(
    code="MEM008",
    fixable=True,
    name="trainer-and-deepspeed-differ",
    severity=Severity.ERROR,
    summary="The Trainer's arguments and the DeepSpeed config that they name differ.",
    reason='The Trainer compares batch sizes, accumulation, clipping, learning rate and optimizer settings with the DeepSpeed config, and raises "Please correct the '
    'following DeepSpeed config values that mismatch TrainingArguments values" (integrations/deepspeed.py, trainer_config_finalize), after the model was loaded.',
    bad='ds.json   {"gradient_accumulation_steps": 4}\ntrain.yaml  gradient_accumulation_steps: 8',
    good='ds.json   {"gradient_accumulation_steps": "auto"}\ntrain.yaml  gradient_accumulation_steps: 8',
    fix='Write "auto" in the DeepSpeed config: the Trainer fills it in.',
)
AUTO = Rule(
    code="MEM009",
    name="auto-that-nobody-fills-in",
    severity=Severity.ERROR,
    summary='"auto" is the value of a setting that neither the Trainer nor accelerate fills in, or it is in a file that DeepSpeed reads itself.',
    reason='DeepSpeed does not know "auto": the Trainer and accelerate replace it, at 24 places that they know. At any other place accelerate raises (utils/dataclasses.py, '
    'fill_match). Where deepspeed.initialize() reads the file itself, a batch size of "auto" is a TypeError, and inside a section it is dropped without a warning: '
    'bf16 {"enabled": "auto"} then trains in fp32, with twice the memory.',
    bad='{"zero_optimization": {"stage": 3, "sub_group_size": "auto"}}',
    good='{"zero_optimization": {"stage": 3, "sub_group_size": 1000000000}}',
    fix="Write the number, or leave the key out for DeepSpeed's default.",
)
UNKNOWN = Rule(
    code="MEM010",
    name="setting-that-nothing-reads",
    severity=Severity.WARNING,
    summary="DeepSpeed reads no such setting.",
    reason="Sections refuse keys they do not know, the top level does not: a misspelt or misplaced key there is ignored without a warning, and the default applies. "
    '"gradient_accumulation_step": 8 trains with 1, "stage3_max_live_parameters" outside zero_optimization limits nothing.',
    bad='{"gradient_accumulation_step": 8}',
    good='{"gradient_accumulation_steps": 8}',
    fix="Correct the name, or move the setting into the section that has it.",
)
DEAD = Rule(
    code="MEM011",
    fixable=True,
    name="setting-without-effect",
    severity=Severity.WARNING,
    summary="A setting does nothing beside the others.",
    reason="offload_param below ZeRO stage 3 is accepted and offloads nothing: the weights stay whole on every device, and the run needs the memory that the setting was to "
    "save. The stage3_ settings below stage 3, and the buckets of stages 1 and 2 at stage 3, are read by nothing (info).",
    bad='{"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}',
    good='{"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}',
    fix="Take the stage that has the setting, or the setting out.",
)
DEPRECATED = Rule(
    code="MEM012",
    fixable=True,
    name="deprecated-setting",
    severity=Severity.INFO,
    summary="A setting has a new name.",
    reason="DeepSpeed still takes the old one with a warning in the log; with both it refuses. The next release may take it away, as 0.19 did with amp and elasticity.",
    bad='{"zero_optimization": {"stage": 2, "cpu_offload": true}}',
    good='{"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}',
    fix="Write the new name.",
)
UNPINNED = Rule(
    code="MEM013",
    fixable=True,
    name="offload-without-pinning",
    severity=Severity.WARNING,
    summary="Something is offloaded to memory that is not pinned.",
    reason='Copies between pageable memory and the device go through a staging buffer and do not overlap with computation: pinned memory is "required for asynchronous, '
    'full-bandwidth transfers" (runtime/zero/offload_config.py). 0.19.8 pins unless told otherwise; older releases do not, so the key is worth writing down.',
    bad='{"offload_optimizer": {"device": "cpu", "pin_memory": false}}',
    good='{"offload_optimizer": {"device": "cpu", "pin_memory": true}}',
    fix='Set "pin_memory" to true; leave it false only where memlock limits (ulimit -l) or the host\'s memory are too small.',
)
BUCKETS = Rule(
    code="MEM014",
    name="buckets-for-a-larger-gpu",
    severity=Severity.WARNING,
    summary="The gradient buckets take a large part of the stated GPU.",
    reason="reduce_bucket_size counts elements and is allocated whole: at stages 1 and 2 during the backward, twice with overlap_comm; at stage 3 for as long as the run "
    "lasts. The default of 500,000,000 is 1 GB in 16 bit, 2 GB with overlap_comm, whatever the model's size. It is held beside the weights, gradients and activations.",
    bad='[tool.llmdoctor] gpu-memory = "16GiB"\n{"zero_optimization": {"stage": 2, "overlap_comm": true, "reduce_bucket_size": 1e9}}',
    good='{"zero_optimization": {"stage": 2, "overlap_comm": true, "reduce_bucket_size": 5e7}}',
    fix='Set "reduce_bucket_size" to 50000000, or to "auto" under the Trainer (hidden_size squared).',
)
RULES = declared(globals())

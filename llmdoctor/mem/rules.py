"""The MEM rules about a training step: what does not fit, and what a configuration holds that it does not need."""

from __future__ import annotations

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule, declared

TOO_LARGE = Rule(
    code="MEM001",
    name="does-not-fit",
    severity=Severity.ERROR,
    summary="The step's peak and what the process takes beside it are more than the device has.",
    reason="The run ends with an out-of-memory error, at the latest in the second step, when the optimizer's states exist. The peak counts, not what is held "
    "between steps: the step of DeepSpeed alone can need half as much again as the weights, masters and moments together.",
    bad="llmdoctor mem compare MODEL --strategy zero2.json --gpu-memory 24GiB\n  needs 50.0 GB",
    good="the same with offload_optimizer on cpu\n  needs 11.4 GB",
    fix="Search for a combination of changes that fits: llmdoctor mem fit MODEL --strategy FILE --gpu-memory SIZE",
)
NO_GRADIENT = Rule(
    code="MEM002",
    name="state-without-gradient",
    severity=Severity.WARNING,
    summary="DeepSpeed holds masters and optimizer state for trained parameters that get no gradient in this step.",
    reason="Text-only batches do not reach the vision tower of a vision-language model. The Trainer's optimizers make no state for a parameter without a gradient; "
    "DeepSpeed updates flat tensors whole, so such a parameter costs its master, its moments and a gradient of zeros: 14 to 20 bytes each.",
    bad="ZeRO-2 on Qwen2-VL with text only: 665 M parameters of the vision tower, 9.3 GB",
    good="the same with --stage llm: the vision tower frozen",
    fix="Freeze what the data does not train: requires_grad_(False) before deepspeed.initialize().",
)
UNSHARDED = Rule(
    code="MEM003",
    name="nothing-to-shard",
    severity=Severity.INFO,
    summary="A ZeRO stage of 1, 2 or 3 on one device shards nothing.",
    reason="ZeRO saves memory by dividing state among processes. On one device stages 1 and 2 hold the same; stage 3 also holds gradients and a bucket between "
    "steps, and all of them hold fp32 masters, which a plain bf16 Trainer does not have.",
    bad='{"zero_optimization": {"stage": 2}} on one GPU',
    good="the Trainer alone, or stage 2 with offload_optimizer, or more devices",
    fix="Leave DeepSpeed out on one device, or offload the optimizer.",
)
BUCKET = Rule(
    code="MEM004",
    name="oversized-bucket",
    severity=Severity.INFO,
    summary="The reduce bucket is larger than all gradients together.",
    reason="reduce_bucket_size counts elements and is allocated whole: the default of 5e8 takes 1 GB in 16 bit for a model of any size: always at stage 3, during "
    "the backward at stages 1 and 2, and twice with overlap_comm.",
    bad='{"zero_optimization": {"stage": 3}} on a model of 0.1 B parameters: 1 GB of bucket for 0.2 GB of gradients',
    good='{"zero_optimization": {"stage": 3, "reduce_bucket_size": 50000000}}',
    fix='Set "reduce_bucket_size" to a tenth, or "auto" under the Trainer.',
)
MISPREDICTED = Rule(
    code="MEM005",
    name="measured-otherwise",
    severity=Severity.WARNING,
    summary="A measured peak, or what is held between steps, is more than five percent away from the prediction.",
    reason="The run was not the one that was described (another batch, padding that adds a mask, kernels of another library, a second process on the device), "
    "or it does something that this tool does not model.",
    bad="predicted 15.5 GB, measured 18.9 GB",
    good="predicted 15.5 GB, measured 15.5 GB",
    fix="Compare the measured components with the predicted ones, and give the options that the run had.",
)
TIGHT = Rule(
    code="MEM020",
    name="tight-fit",
    severity=Severity.WARNING,
    summary="The peak fits into the device, but not with a margin for the allocator's reserve and the context.",
    reason="The caching allocator keeps freed blocks and returns them only as whole segments. A run that needs all but a few percent of the device can end in an "
    "out-of-memory error although the tensors fit, in particular if the lengths of the batches vary or NCCL allocates buffers of its own.",
    bad="llmdoctor mem compare MODEL --strategy zero2.json --world-size 4 --gpu-memory 24GiB\n  needs 26.1 GB with a margin, of 25.8 GB",
    good="the same with --gpu-memory 40GiB",
    fix="Make one of the changes that the report lists, or set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True.",
)
RULES = declared(globals())

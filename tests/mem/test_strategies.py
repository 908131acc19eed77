"""Strategies as people have them, resolved as the libraries resolve them, and the sentences for what is contradictory or unknown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.compare import compare_report
from llmdoctor.mem.keys import StrategyContext
from llmdoctor.mem.options import MemCompareOptions
from llmdoctor.mem.runners import base
from llmdoctor.mem.strategies import read_strategy

GIVEN = StrategyContext(model_dtype="bfloat16", hidden_size=64, world_size=2)
ALONE = StrategyContext(model_dtype="bfloat16", hidden_size=64)
BASE = {"bf16": {"enabled": True}, "optimizer": {"type": "AdamW", "params": {}}, "zero_optimization": {"stage": 2}}


def written(tmp_path: Path, value: Any, name: str = "strategy.json") -> str:
    path = tmp_path / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def test_names() -> None:
    trainer = read_strategy("trainer:adamw_torch,bf16", ALONE)
    assert (trainer.runner, trainer.dtype, trainer.autocast, trainer.optimizer.how) == ("trainer", "bfloat16", None, "foreach")
    amp = read_strategy("trainer:adafactor,amp_bf16,gc", ALONE)
    assert (amp.dtype, amp.autocast, amp.checkpointing, amp.optimizer.kind) == ("float32", "bfloat16", True, "adafactor")
    zero = read_strategy("deepspeed:zero3,offload,offload_param", GIVEN)
    assert zero.engine is not None
    assert (zero.stage, zero.engine.zero.offload_optimizer, zero.engine.zero.offload_param, zero.optimizer.how) == (
        3,
        "cpu",
        "cpu",
        "CPUAdam",
    )


def test_deepspeed_defaults_are_deepspeeds(tmp_path: Path) -> None:
    strategy = read_strategy(written(tmp_path, BASE), GIVEN)
    assert strategy.engine is not None
    zero = strategy.engine.zero
    assert (zero.reduce_bucket_size, zero.overlap_comm, zero.contiguous_gradients, strategy.engine.master) == (
        500_000_000,
        False,
        True,
        "float32",
    )
    third = read_strategy(written(tmp_path, {**BASE, "zero_optimization": {"stage": 3}}), GIVEN)
    assert third.engine is not None
    assert third.engine.zero.overlap_comm


@pytest.mark.live
def test_deepspeed_agrees_on_its_defaults() -> None:
    config = pytest.importorskip("deepspeed.runtime.zero.config")
    from llmdoctor.mem.settings import Zero

    for stage in (0, 1, 2, 3):
        real = config.DeepSpeedZeroConfig(stage=stage)
        mine = Zero(stage=stage, overlap_comm=stage == 3)
        for name in (
            "contiguous_gradients",
            "overlap_comm",
            "reduce_scatter",
            "reduce_bucket_size",
            "allgather_bucket_size",
            "sub_group_size",
            "prefetch_bucket_size",
            "param_persistence_threshold",
            "max_live_parameters",
            "round_robin_gradients",
            "parameter_alignment",
        ):
            assert getattr(mine, name) == getattr(real, name), name


def test_auto_is_filled_in_as_the_trainer_does(tmp_path: Path) -> None:
    deepspeed = {
        "bf16": {"enabled": "auto"}, "gradient_clipping": "auto", "train_micro_batch_size_per_gpu": "auto", "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto", "optimizer": {"type": "AdamW", "params": {"lr": "auto"}},
        "zero_optimization": {"stage": 3, "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
                              "stage3_param_persistence_threshold": "auto"},
    }  # fmt: skip
    arguments = {
        "bf16": True,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 3,
        "max_grad_norm": 0.5,
        "deepspeed": deepspeed,
    }
    strategy = read_strategy(written(tmp_path, arguments), GIVEN)
    assert strategy.engine is not None
    zero = strategy.engine.zero
    assert (strategy.runner, strategy.dtype, strategy.batch, strategy.accumulation, strategy.clip) == (
        "trainer+deepspeed",
        "bfloat16",
        4,
        3,
        0.5,
    )
    assert (zero.reduce_bucket_size, zero.prefetch_bucket_size, zero.param_persistence_threshold) == (4096, 3686, 640)
    assert strategy.config["train_batch_size"] == 24
    beside = {**arguments, "deepspeed": "ds.json"}
    written(tmp_path, deepspeed, "ds.json")
    assert read_strategy(written(tmp_path, beside), GIVEN).engine == strategy.engine


def test_yaml_training_arguments_and_accelerate(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    trainer = read_strategy(
        written(tmp_path, "optim: sgd\nbf16: true\nlearning_rate: 1e-5\nmodel_init: {dtype: bfloat16}\n", "t.yaml"), ALONE
    )
    assert (trainer.optimizer.kind, trainer.autocast, trainer.dtype) == ("sgd", "bfloat16", "bfloat16")
    text = "compute_environment: LOCAL_MACHINE\ndistributed_type: DEEPSPEED\nmixed_precision: bf16\n"
    text += "deepspeed_config: {zero_stage: 3, offload_optimizer_device: cpu}\n"
    accelerate = read_strategy(written(tmp_path, text, "a.yaml"), ALONE)
    assert (accelerate.stage, accelerate.dtype, accelerate.optimizer.name) == (3, "bfloat16", "adamw_torch_fused")


def test_peft_adapters_are_halved_by_deepspeed(tmp_path: Path) -> None:
    peft = {"model_init": {"dtype": "bfloat16", "peft_config": {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]}}}
    plain = read_strategy(written(tmp_path, {"optim": "adamw_torch", **peft}), ALONE)
    engine = read_strategy(written(tmp_path, {**BASE, **peft}), ALONE)
    assert plain.lora is not None
    assert engine.lora is not None
    assert (plain.lora.rank, plain.lora.float32, engine.lora.float32) == (8, True, False)


REFUSED: list[tuple[Any, str]] = [
    ("trainer:lomo,bf16", "'lomo' is not modelled"),
    ("trainer:adamw_torch,bf16,fp16", "exclude each other"),
    ("deepspeed:zero4", "stages 0, 1, 2 and 3"),
    ("deepspeed:bf16", "the ZeRO stage is missing"),
    ("nothing", "neither a file nor a name"),
    ({**BASE, "zero_optimization": {"stage": 4}}, "stage 4"),
    ({**BASE, "fp16": {"enabled": True}}, "accepts only one"),
    ({**BASE, "optimizer": {"type": "OneBitAdam"}}, "'OneBitAdam' is not modelled"),
    ({**BASE, "optimizer": {"type": "AdamW", "params": {"lr": "auto"}}}, "only the Trainer fills in"),
    ({**BASE, "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "nvme"}}}, "expected cpu or none"),
    ({**BASE, "zero_optimization": {"stage": 0}, "data_types": {"grad_accum_dtype": "fp32"}}, "unsupported mix"),
    ({**BASE, "bf16": {"enabled": True, "bf16_optimizer_states": True}}, "needs bf16.bf16_master_weights_and_grads"),
    ({"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}}, "no optimizer"),
    ({"optim": "adamw_torch", "bf16": True, "fp16": True}, "both true"),
    ({"optim": "adamw_torch", "bf16": "maybe"}, "expected true or false"),
    ({"optim": "lomo"}, "'lomo' is not modelled"),
    ({"optim": "adamw_torch", "fsdp": "hybrid_shard auto_wrap"}, "hybrid_shard is not modelled"),
    (
        {"optim": "adamw_torch", "fsdp": "full_shard", "fsdp_config": {"auto_wrap_policy": "SIZE_BASED_WRAP"}},
        "SIZE_BASED_WRAP is not modelled",
    ),
    ({"optim": "adamw_torch", "fsdp": True, "fsdp_config": {"version": 2, "cpu_offlod": True}}, "cpu_offlod is not modelled"),
    ({"optim": "adamw_torch", "fsdp": True, "fsdp_config": {"version": 1, "use_orig_params": False}}, "use_orig_params"),
    ({"optim": "adamw_torch", "fsdp": True, "fsdp_config": "missing.json"}, "no such file"),
    (
        {"optim": "adamw_torch", "bf16": True, "deepspeed": {**BASE, "train_batch_size": "auto", "bf16": {"enabled": False}}},
        "the Trainer refuses this",
    ),
    ({"optim": "adamw_torch", "model_init": {"dtype": "int4"}}, "unknown dtype"),
    ({"optim": "adamw_torch", "gradient_accumulation_steps": 0}, "at least 1"),
    ({"client_optimizer": {"class": "my.Lamb"}, "learning_rate": 1}, "'my.Lamb' is not modelled"),
    ({"lr": 3}, "none of the configurations"),
    ("[1, 2]", "expected"),
    ('{"optim": ', "strategy.json"),
]


@pytest.mark.parametrize(("value", "sentence"), REFUSED, ids=lambda value: value if isinstance(value, str) else None)
def test_refused_in_one_sentence(tmp_path: Path, value: Any, sentence: str) -> None:
    named = isinstance(value, str) and value[0] not in "[{"
    with pytest.raises(QuestionError) as refused:
        read_strategy(value if named else written(tmp_path, value), GIVEN)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_world_size_zero_and_contradicting_ranks(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="at least 1 process"):
        read_strategy("deepspeed:zero2", StrategyContext(world_size=0))
    peft = {"optim": "adamw_torch", "model_init": {"peft_config": {"r": 8}}}
    with pytest.raises(QuestionError, match="contradicts"):
        read_strategy(written(tmp_path, peft), StrategyContext(lora=16))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bf16: &a [*a]", "the alias"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)),
            "aliases",
        ),
        ("optim: " + "x" * 2**18, "at most"),
        ("zero_optimization:\n  stage: 2\n  reduce_bucket_size: 1.2.3e9\n", "whole number"),
        ("zero_optimization:\n  stage: 2\n  reduce_bucket_size: 1e999\n", "whole number"),
        ("zero_optimization:\n  stage: 2\n  reduce_bucket_size: ²\n", "whole number"),
    ],
)
def test_yaml_that_nobody_means(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match=said):
        read_strategy(written(tmp_path, text, "strategy.yaml"), GIVEN)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("changes", [{"bf16": {"enabled": True}}, {}, {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}])
def test_micro_steps_repeat(
    stage: int, changes: dict[str, Any], models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the eighth of many micro steps leaves is what the fortieth leaves: no more are played, however many are asked for."""
    zero = {"stage": stage, **(changes.get("zero_optimization", {}) if stage else {})}
    seen = []
    for steps, played in ((40, 40), (40, 8), (10**9, 8)):
        monkeypatch.setattr(base, "MICRO_STEPS", played)
        config = {**BASE, "bf16": {"enabled": False}, **changes, "zero_optimization": zero, "gradient_accumulation_steps": steps}
        options = MemCompareOptions(model=str(models["qwen2"]), strategy=(written(tmp_path, config),), static=True)
        seen.append((compare_report(options).result or {})["strategies"][0])
        seen[-1].pop("settings")
    assert seen[0] == seen[1] == seen[2]


def test_ddp_holds_its_buckets_and_files_their_gradients() -> None:
    from llmdoctor.mem.runners.trainer import ddp_buckets
    from llmdoctor.mem.weights import Weight

    weights = [Weight("a", (2**20,), "bfloat16"), Weight("b", (30 * 2**20,), "bfloat16"), Weight("c", (10,), "float32")]
    assert ddp_buckets(weights) == [60 * 2**20, 40, 2 * 2**20]
    assert read_strategy("trainer:adamw_torch,bf16", GIVEN).world_size == 2
    assert read_strategy("deepspeed:zero2", GIVEN).world_size == 2


def test_an_accelerate_config_says_how_many_processes(tmp_path: Path) -> None:
    path = tmp_path / "acc.yaml"
    path.write_text("distributed_type: DEEPSPEED\nmixed_precision: bf16\nnum_processes: 8\ndeepspeed_config:\n  zero_stage: 3\n")
    assert read_strategy(str(path), StrategyContext(hidden_size=64)).world_size == 8
    with pytest.raises(QuestionError, match="num_processes is 8"):
        read_strategy(str(path), StrategyContext(hidden_size=64, world_size=2))


def test_a_deepspeed_path_is_looked_for_beside_the_file_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    for folder, stage in ((tmp_path, 1), (tmp_path / "configs", 2)):
        (folder / "ds.json").write_text(
            json.dumps({"zero_optimization": {"stage": stage}, "bf16": {"enabled": "auto"}, "train_batch_size": "auto"})
        )
    arguments = tmp_path / "configs" / "train.json"
    arguments.write_text(json.dumps({"bf16": True, "deepspeed": "ds.json", "output_dir": "out"}))
    monkeypatch.chdir(tmp_path)
    assert read_strategy(str(arguments), GIVEN).stage == 2
    (tmp_path / "configs" / "ds.json").unlink()
    assert read_strategy(str(arguments), GIVEN).stage == 1


@pytest.mark.parametrize(
    ("batch", "ok"),
    [
        ({"train_batch_size": 7, "gradient_accumulation_steps": 2}, False),
        ({"train_batch_size": 8, "gradient_accumulation_steps": 2}, True),
        ({"train_batch_size": 8, "train_micro_batch_size_per_gpu": 4}, True),
        ({"train_batch_size": 8, "train_micro_batch_size_per_gpu": 3}, False),
        ({"train_batch_size": 8, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2}, False),
    ],
)
def test_batches_that_deepspeed_refuses(batch: dict[str, int], ok: bool, tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({**BASE, **batch}))
    if ok:
        assert read_strategy(str(path), GIVEN).batch in (2, 4)
    else:
        with pytest.raises(QuestionError, match=r"runtime/config\.py:602"):
            read_strategy(str(path), GIVEN)


def test_what_an_optimizer_is_told() -> None:
    from llmdoctor.mem.optimizers import state_keys, torch_optimizer

    centered = torch_optimizer("torch.optim.RMSprop", {"centered": True, "momentum": 0.9}, "here")
    assert state_keys(centered) == ("square_avg", "momentum_buffer", "grad_avg")
    with pytest.raises(QuestionError, match="capturable"):
        torch_optimizer("torch.optim.AdamW", {"capturable": True}, "here")


@pytest.mark.live
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("AdamW", {}),
        ("SGD", {}),
        ("SGD", {"weight_decay": 0.1}),
        ("Adagrad", {}),
        ("RMSprop", {"centered": True}),
        ("SGD", {"momentum": 0.9}),
    ],
)
def test_the_scratch_of_a_real_foreach_step(name: str, kwargs: dict[str, Any]) -> None:
    """The largest that lives besides weights, gradients and states during one real step, in bytes."""
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from llmdoctor.mem.ledger import Ledger
    from llmdoctor.mem.optimizers import torch_optimizer
    from llmdoctor.mem.runners.states import step_scratch

    parameters = [torch.nn.Parameter(torch.randn(1024)) for _ in range(4)]
    optimizer = getattr(torch.optim, name)(parameters, foreach=True, lr=0.1, **kwargs)
    for parameter in parameters:
        parameter.grad = torch.randn(1024)
    optimizer.step()
    held = {
        value.untyped_storage()._cdata for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    }
    held |= {tensor.untyped_storage()._cdata for p in parameters for tensor in (p, p.grad) if tensor is not None}
    live: dict[int, int] = {}
    peak = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal peak
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, list | tuple) else [out]:
                if isinstance(tensor, torch.Tensor) and (key := tensor.untyped_storage()._cdata) not in held | set(live):
                    live[key] = tensor.untyped_storage().nbytes()
                    weakref.finalize(tensor, live.pop, key, 0)
                    peak = max(peak, sum(live.values()))
            return out

    with Watch():
        optimizer.step()
    ledger = Ledger(exact=True)
    ledger.phase = "step"
    step_scratch(ledger, torch_optimizer(f"torch.optim.{name}", kwargs, "here"), [(str(at), 1024, "float32") for at in range(4)])
    mine = ledger.peaks["step"].total if "step" in ledger.peaks else 0
    assert mine == pytest.approx(peak, abs=64)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "model_name_or_path: m\nlearning_rate: 1e-6\nnum_generations: 8\nmax_completion_length: 64\nbeta: 0.0\noutput_dir: o\n",
            ["max_completion_length", "generation during training"],
        ),
        ("model_name_or_path: m\nstage: dpo\nfinetuning_type: lora\nuse_dora: true\noutput_dir: o\n", ["stage", "(dpo)"]),
        ("model_name_or_path: m\nstage: sft\nfinetuning_type: freeze\noutput_dir: o\n", ["finetuning_type", "freeze"]),
        ("model: m\ntuner_type: lora\nlora_rank: 8\nsequence_parallel_size: 2\n", ["sequence_parallel_size"]),
        ("output_dir: o\nper_device_train_batch_size: 1\nfsdp: full_shard\n", ["fsdp", "FSDP"]),
        ("base_model: m\nadapter: lora\nlora_r: 8\nsequence_len: 512\nunfrozen_parameters: [a]\n", ["unfrozen_parameters"]),
        (
            "output_dir: o\nper_device_train_batch_size: 1\nlabel_smoothing_factor: 0.1\nuse_cache: true\n",
            ["label_smoothing_factor", "use_cache"],
        ),
    ],
)
def test_settings_of_other_frameworks_are_refused_by_name(text: str, named: list[str], tmp_path: Path) -> None:
    with pytest.raises(QuestionError) as refused:
        read_strategy(written(tmp_path, text, "train.yaml"), StrategyContext(model_type="llama"))
    assert all(name in str(refused.value) for name in named), str(refused.value)


def test_ms_swifts_defaults_are_used(tmp_path: Path) -> None:
    text = "model: m\ntuner_type: lora\nlora_rank: 4\ntarget_modules: [all-linear]\nmax_length: 2048\n"
    strategy = read_strategy(written(tmp_path, text, "swift.yaml"), StrategyContext(model_type="llama"))
    assert (strategy.batch, strategy.accumulation, strategy.checkpointing, strategy.dtype, strategy.autocast) == (
        1,
        16,
        True,
        "bfloat16",
        "bfloat16",
    )
    assert strategy.lora is not None
    assert (strategy.lora.rank, strategy.seq_len) == (4, 2048)
    assert strategy.inputs.assumed


AXOLOTL = """base_model: m
sequence_len: 512
micro_batch_size: 1
flash_attention: true
bf16: true
plugins: [axolotl.integrations.liger.LigerPlugin]
"""


@pytest.mark.parametrize(
    ("switches", "loss"),
    [
        (("rope", "rms_norm", "glu_activation", "fused_linear_cross_entropy"), "liger"),
        (("fused_linear_cross_entropy",), "fused"),
        (("rope", "fused_linear_cross_entropy"), "fused"),
        (("rope",), None),
        ((), None),
    ],
)
def test_each_kernel_of_liger_has_a_switch_of_its_own_in_axolotl(switches: tuple[str, ...], loss: str | None, tmp_path: Path) -> None:
    text = AXOLOTL + "".join(f"liger_{name}: true\n" for name in switches)
    assert read_strategy(written(tmp_path, text, "train.yaml"), StrategyContext(model_type="llama")).loss == loss


@pytest.mark.parametrize("switch", ["rms_norm", "glu_activation", "cross_entropy"])
def test_a_part_of_liger_s_kernels_is_refused_by_name(switch: str, tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match=f"liger_{switch}: the choice of Liger kernels is not modelled"):
        read_strategy(written(tmp_path, f"{AXOLOTL}liger_{switch}: true\n", "train.yaml"), StrategyContext(model_type="llama"))


def test_cut_cross_entropy_in_a_script_is_named(tmp_path: Path) -> None:
    lines = (
        "from cut_cross_entropy.transformers import cce_patch",
        "from transformers import AutoModelForCausalLM, Trainer, TrainingArguments",
        "model = cce_patch(AutoModelForCausalLM.from_pretrained('m'))",
        "Trainer(model=model, args=TrainingArguments(output_dir='o', per_device_train_batch_size=2)).train()",
    )
    with pytest.raises(QuestionError, match="cut cross entropy that the script applies itself on line 1"):
        read_strategy(written(tmp_path, "\n".join(lines), "train.py"), StrategyContext(model_type="llama"))


@pytest.mark.live
@pytest.mark.parametrize(("kind", "sentence"), [("gpt2", "do not exist"), ("gemma2", "are not modelled"), ("qwen3", None)])
def test_liger_has_kernels_for_some_types_of_models(kind: str, sentence: str | None) -> None:
    from llmdoctor.mem.live.liger import check_type

    if sentence is None:
        check_type(kind)
        return
    with pytest.raises(QuestionError, match=sentence):
        check_type(kind)

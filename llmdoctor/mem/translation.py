"""From the settings of a configuration file to a strategy: what memory depends on is taken, what is not modelled is refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmdoctor.configs.agreement import contradictions, misses_batch
from llmdoctor.configs.reading import linked_path, read, read_value
from llmdoctor.configs.types import Configuration
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.release import release
from llmdoctor.mem.adapters import adapters_of, quantization_of
from llmdoctor.mem.deepspeed import deepspeed_strategy, nested, with_autos_filled
from llmdoctor.mem.fsdp import fully_sharded, limits_of
from llmdoctor.mem.keys import StrategyContext, UnmodelledSetting, check_keys, check_modelled, inputs_of, joined
from llmdoctor.mem.optimizers import client_optimizer, trainer_optimizer
from llmdoctor.mem.settings import Optimizer, Strategy, dtype_of
from llmdoctor.mem.workload import COMPARING, Evaluation

# Normalised settings (configs/fields.py) that the prediction uses under the Trainer and the frameworks that extend it.
MODELLED = frozenset(
    "batch accumulation sequence_length world_size load_dtype bf16 fp16 trained_dtype checkpointing attention optimizer "
    "optimizer_arguments weight_decay clip client_optimizer adapter lora_rank lora_targets lora_dropout lora_float32 "
    "lora_modules_to_save lora_dora quantization quantization_bits quantization_method quantization_type quantization_double "
    "quantization_compute deepspeed distributed_type "
    "liger fused_loss prepared text_only evaluation eval_batch eval_loss_only eval_metrics_by_batch eval_accumulation eval_generates "
    "packing packing_strategy padding_free documents fsdp fsdp_config".split()
)
# Objectives of TRL's own trainers that are modelled, and the settings that belong to them.
OBJECTIVES = {"SFTConfig": "sft", "DPOConfig": "dpo", "RewardConfig": "reward", "KTOConfig": "kto"}
OF_PREFERENCES = frozenset({"objective", "reference_model", "reference_dtype", "precomputed_reference"})


def file_strategy(path: str, context: StrategyContext, content: str | None = None) -> Strategy:
    """Return the strategy that the configuration file `path` describes; `content` stands in for the content of the file.

    Raises QuestionError if it cannot be read, UnmodelledSetting if it sets something that could change the answer and is not modelled.
    """
    configuration = read(path, without=context.without, text=content, releases=context.releases)
    check_keys(configuration)
    if not configuration.format.trains:
        raise QuestionError(
            f"{path}: a {configuration.format.title} describes no training: give it as model_init.peft_config in the arguments"
        )
    try:
        if configuration.format.engine:
            missing = f"{path} sets no batch size, for which DeepSpeed raises an error unless the caller adds one"
            limits = (missing,) if misses_batch(configuration.values) else ()
            return replace(deepspeed_strategy(configuration, context), inputs=inputs_of(configuration), limits=limits)
        return trainer_strategy(configuration, context)
    except UnmodelledSetting:
        raise
    except QuestionError as error:
        raise UnmodelledSetting(str(error), inputs_of(configuration)) from None


def trainer_strategy(configuration: Configuration, context: StrategyContext) -> Strategy:
    """Return the strategy of a file of the Trainer or of a framework that extends it, with the DeepSpeed configuration that it names."""
    path, normal = configuration.path, configuration.normal
    objective = OBJECTIVES.get(configuration.variant.name)
    check_modelled(configuration, MODELLED | OF_PREFERENCES if objective is not None else MODELLED)
    quantized = normal.key("quantization_bits") or normal.key("quantization")
    if quantized is not None and quantization_of(configuration) is not None and adapters_of(configuration) is None and context.lora is None:
        raise QuestionError(
            f"{path}: {quantized}: the weights are quantized and no adapters are trained, which the Trainer refuses: add LoRA"
        )
    if normal.get("bf16", False) and normal.get("fp16", False):
        raise QuestionError(f"{path}: bf16 and fp16 are both true, but the Trainer accepts only one of them")
    processes = normal.get("world_size", context.processes)
    if context.world_size is not None and processes != context.world_size:
        raise QuestionError(f"--world-size {context.world_size} contradicts {path}, whose {normal.key('world_size')} is {processes}")
    wanted = normal.get("load_dtype")
    dtype = _load_dtype(wanted, f"{path}: {normal.key('load_dtype') or 'dtype'}") or loaded_dtype(context, auto=wanted == "auto")
    sharded = fully_sharded(configuration)
    strategy = Strategy(
        path,
        "trainer",
        dtype,
        _optimizer(configuration),
        "bfloat16" if normal.get("bf16", False) else "float16" if normal.get("fp16", False) else None,
        accumulation=normal.get("accumulation", 1),
        clip=normal.get("clip", 1.0),
        checkpointing=bool(normal.get("checkpointing", False)) or (sharded is not None and sharded.checkpointing),
        fsdp=sharded,
        lora=adapters_of(configuration),
        batch=normal.get("batch"),
        seq_len=normal.get("sequence_length"),
        world_size=processes,
        attention=normal.get("attention"),
        quantization=quantization_of(configuration),
        loss=_loss(configuration),
        objective=objective,
        reference=dtype_of(normal.get("reference_dtype", dtype), path) if normal.get("reference_model", False) else None,
        compares=objective in COMPARING and not normal.get("precomputed_reference", False),
        evaluation=_evaluation(configuration),
        documents=normal.get("documents"),
        file=path,
        client=normal.get("client_optimizer"),
        inputs=inputs_of(configuration),
        limits=(*normal.limits, *limits_of(sharded)),
        text_only=bool(normal.get("text_only", False)),
    )
    named = normal.get("deepspeed")
    whole = _under_deepspeed(strategy, configuration, named, replace(context, world_size=processes)) if named else strategy
    converts = whole.engine is not None and strategy.autocast is not None  # DeepSpeed converts the weights to bf16 or fp16
    return whole if normal.get("load_dtype") is not None or converts else with_assumed_dtype(whole, context)


def loaded_dtype(context: StrategyContext, *, auto: bool = False) -> str:
    """Return the dtype in which from_pretrained loads a model: config.json's or else the checkpoint's from transformers 5 on, and with "auto".

    It is float32 before, and is assumed to be if neither gives one (transformers 5.23, modeling_utils.py, _get_dtype).
    """
    return context.model_dtype or "float32" if auto or not _before_5(context) else "float32"


def _before_5(context: StrategyContext) -> bool:
    return bool(release(context.releases.get("transformers", "5")) < (5,))


def with_assumed_dtype(strategy: Strategy, context: StrategyContext) -> Strategy:
    """Return `strategy` with the assumption that nothing but the release of transformers decides the dtype of the weights."""
    older = f"as transformers {context.releases.get('transformers')} loads them unless torch_dtype is set"
    why = older if _before_5(context) else _said_by(context)
    assumed = f"{strategy.dtype} ({why if _before_5(context) else f'{context.dtype_place}, as from_pretrained of transformers 5 loads it'})"
    inputs = replace(strategy.inputs, assumed={**strategy.inputs.assumed, "model_init.dtype": assumed})
    return replace(strategy, inputs=inputs, limits=(*strategy.limits, f"weights loaded in {strategy.dtype}, {why}"))


def _said_by(context: StrategyContext) -> str:
    if context.model_dtype is None:
        return "assumed: neither config.json nor a checkpoint here gives a dtype"
    return f"as {context.dtype_place} {'says' if context.dtype_place == 'config.json' else 'is stored'}"


def _load_dtype(name: Any, where: str) -> str | None:
    return None if name in (None, "auto") else dtype_of(name, where)


def _loss(configuration: Configuration) -> str | None:
    """Return the kernels that replace the model's loss. Raises QuestionError for a fused loss that is not modelled."""
    normal = configuration.normal
    fused = normal.get("fused_loss")
    if fused not in (None, "liger"):
        raise QuestionError(f"{configuration.path}: {normal.key('fused_loss')}: the fused loss {fused} is not modelled, expected liger")
    return "liger" if normal.get("liger", False) else "fused" if fused else None


def _evaluation(configuration: Configuration) -> Evaluation | None:
    """Return the evaluation between steps; None if the run makes none. No file says whether metrics are computed from the outputs."""
    normal = configuration.normal
    if normal.is_neutral("evaluation"):
        return None
    kept = (
        not normal.get("eval_loss_only", False)
        and not normal.get("eval_metrics_by_batch", False)
        and normal.get("eval_accumulation") is None
    )
    return Evaluation(normal.get("eval_batch", 8), kept, normal.get("eval_generates", False))


def _optimizer(configuration: Configuration) -> Optimizer:
    path, normal = configuration.path, configuration.normal
    client = normal.get("client_optimizer")
    if client is not None:
        return client_optimizer(client, f"{path}: client_optimizer")
    where = f"{path}: {normal.key('optimizer') or 'optim'}"
    found = trainer_optimizer(normal.get("optimizer"), normal.get("optimizer_arguments"), where)
    return replace(found, decay=found.decay or bool(normal.get("weight_decay", 0.0)))


def _check_agreement(configuration: Configuration, engine: Configuration) -> None:
    """Raise QuestionError for what ends the run of the Trainer under this DeepSpeed configuration."""
    value = nested(engine.values)
    if "zero_optimization" not in value:
        raise QuestionError(f"{engine.path} has no zero_optimization, which accelerate refuses: add it, with stage 0 for none")
    if misses_batch(value):
        raise QuestionError(
            f'{engine.path} sets no batch size, and the Trainer fills in "auto" only, so that DeepSpeed refuses it: add '
            '"train_micro_batch_size_per_gpu": "auto"'
        )
    found = contradictions(configuration.values, value, configuration.format, configuration.variant)
    if found:
        several = "; ".join(f"{one.sentence} in {engine.path}" for one in found)
        raise QuestionError(f'{configuration.path}: {several}: the Trainer refuses this, set the latter to "auto"')


def _under_deepspeed(strategy: Strategy, configuration: Configuration, named: Any, context: StrategyContext) -> Strategy:
    """Return `strategy` as the Trainer runs it under the DeepSpeed configuration `named`: a path or an object."""
    from llmdoctor.configs.deepspeed import FORMAT

    path = configuration.path
    if isinstance(named, str):
        engine = read(linked_path(path, named), without=context.without, releases=context.releases)
        if not engine.format.engine:
            raise QuestionError(f"{path}: deepspeed names {named}, which is not a DeepSpeed configuration ({engine.format.title})")
    elif isinstance(named, dict):
        engine = read_value(named, f"{path}: deepspeed", FORMAT.of(context.releases), without=context.without)
    else:
        raise QuestionError(f"{path}: deepspeed: expected a configuration or the path of one, found {type(named).__name__}")
    check_keys(engine)
    _check_agreement(configuration, engine)
    filled = with_autos_filled(engine, strategy, context)
    made = deepspeed_strategy(filled, context, client=strategy.optimizer)
    return replace(
        made,
        name=strategy.name,
        file=strategy.file,
        runner="trainer+deepspeed",
        accumulation=strategy.accumulation,
        checkpointing=strategy.checkpointing,
        lora=strategy.lora,
        quantization=strategy.quantization,
        loss=strategy.loss,
        objective=strategy.objective,
        reference=None if strategy.reference is None else made.dtype,
        compares=strategy.compares,
        evaluation=strategy.evaluation,
        documents=strategy.documents,
        attention=strategy.attention,
        batch=strategy.batch,
        seq_len=strategy.seq_len,
        clip=strategy.clip,
        client=strategy.client,
        world_size=strategy.world_size,
        inputs=joined((strategy.inputs, inputs_of(engine))),
        limits=strategy.limits,
        text_only=strategy.text_only,
    )

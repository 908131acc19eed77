"""Strategies as people have them: a name, a DeepSpeed JSON, TrainingArguments as JSON or YAML, an accelerate config."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.optimizers import DEFAULT_TRAINER, deepspeed_optimizer, torch_optimizer, trainer_optimizer
from llmdoctor.mem.settings import Engine, Optimizer, Strategy, Zero, check, dtype_of
from llmdoctor.mem.workload import LORA_TARGETS, Lora

DEEPSPEED_KEYS = {
    "zero_optimization",
    "train_micro_batch_size_per_gpu",
    "train_batch_size",
    "zero_allow_untested_optimizer",
    "data_types",
    "torch_autocast",
}
TRAINER_KEYS = {
    "optim",
    "per_device_train_batch_size",
    "learning_rate",
    "deepspeed",
    "gradient_checkpointing",
    "output_dir",
    "num_train_epochs",
    "max_steps",
}
OURS = ("model_init", "client_optimizer")  # keys of ours in a strategy's file, which the libraries do not know
REFUSED_TRAINER = {"fsdp": "fully sharded data parallel", "torch_compile": "torch.compile", "use_liger_kernel": "liger kernels"}


@dataclass(frozen=True, slots=True)
class Given:
    """What a strategy's reader has to know besides the file: the model's own dtype and hidden size, and the command line's options."""

    model_dtype: str | None = None
    hidden_size: int | None = None
    world_size: int = 1
    lora: int | None = None
    checkpointing: bool = False


def read_strategy(text: str, given: Given) -> Strategy:
    """The strategy that `text` names, a file or "RUNNER:SETTING,...".

    Raises QuestionError, one sentence, for what cannot be read, is contradictory or not known.
    """
    if not text:
        raise QuestionError("--strategy is empty; expected a name such as trainer:adamw_torch,bf16 or deepspeed:zero2, or a file")
    runner, colon, rest = text.partition(":")
    if colon and runner in ("trainer", "deepspeed") and not os.path.exists(text):
        strategy = _named(text, runner, rest, given)
    elif text.endswith((".json", ".yaml", ".yml")) or os.path.isfile(text):
        strategy = _from_file(text, given)
    else:
        raise QuestionError(
            f"--strategy {text}: neither a file nor a name; expected trainer:OPTIM[,...], deepspeed:zeroN[,...] or a JSON or YAML file"
        )
    if given.checkpointing:
        strategy = replace(strategy, checkpointing=True)
    return check(replace(strategy, world_size=given.world_size, lora=_lora(strategy, given)))


def _lora(strategy: Strategy, given: Given) -> Lora | None:
    """The file's adapters, else the option's; peft's fp32 adapters become the model's dtype under DeepSpeed's casting (engine.py:1391)."""
    lora = strategy.lora
    if given.lora is not None:
        if given.lora < 1:
            raise QuestionError(f"--lora {given.lora}: expected a rank of at least 1")
        if lora is not None and lora.rank != given.lora:
            raise QuestionError(f"--lora {given.lora} contradicts {strategy.name}: its peft_config has r {lora.rank}")
        lora = lora or Lora(given.lora)
    half = strategy.engine is not None and strategy.dtype != "float32"
    return replace(lora, float32=not half) if lora is not None else None


# --- names


def _named(text: str, runner: str, rest: str, given: Given) -> Strategy:
    words = [word for word in rest.split(",") if word]
    return _named_trainer(text, words, given) if runner == "trainer" else _named_deepspeed(text, words, given)


def _named_trainer(text: str, words: list[str], given: Given) -> Strategy:
    optim, dtype, autocast, checkpointing = DEFAULT_TRAINER, None, None, False
    for word in words:
        if word in ("bf16", "fp32", "fp16", "bfloat16", "float32", "float16"):
            dtype = _once(dtype, dtype_of(word, text), text)
        elif word in ("amp_bf16", "amp_fp16"):
            autocast = _once(autocast, dtype_of(word.removeprefix("amp_"), text), text)
        elif word in ("gc", "gradient_checkpointing"):
            checkpointing = True
        else:
            optim = word
    dtype = dtype or ("float32" if autocast else given.model_dtype or "float32")
    return Strategy(text, "trainer", dtype, trainer_optimizer(optim, None, text), autocast, checkpointing=checkpointing)


def _named_deepspeed(text: str, words: list[str], given: Given) -> Strategy:
    stage, dtype, optim, offload, extra = None, None, "AdamW", [], {}
    for word in words:
        if word.startswith("zero") and word[4:].isdigit():
            stage = _once(stage, int(word[4:]), text)
        elif word in ("bf16", "fp32", "fp16"):
            dtype = _once(dtype, word, text)
        elif word in ("offload", "offload_optimizer", "offload_param"):
            offload.append("offload_optimizer" if word == "offload" else word)
        elif word in ("bf16_states", "gc"):
            extra[word] = True
        elif word == "torch_adam":
            extra["torch_adam"] = True
        else:
            optim = word
    if stage is None:
        raise QuestionError(f"{text}: which ZeRO stage? Expected deepspeed:zero0 to deepspeed:zero3")
    config: dict[str, Any] = {"zero_optimization": {"stage": stage}, "gradient_clipping": 1.0}
    config["optimizer"] = {"type": optim, "params": {"torch_adam": True} if extra.get("torch_adam") else {}}
    for name in offload:
        config["zero_optimization"][name] = {"device": "cpu"}
    dtype = dtype or "bf16"
    if dtype != "fp32":
        config[dtype] = {"enabled": True}
    if extra.get("bf16_states"):
        config["bf16"] = {"enabled": True, "bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}
    strategy = _deepspeed(text, config, given, None)
    return replace(strategy, checkpointing=extra.get("gc", False))


def _once(before: Any, now: Any, text: str) -> Any:
    if before is not None and before != now:
        raise QuestionError(f"{text}: {before} and {now} exclude each other")
    return now


# --- files


def _from_file(path: str, given: Given) -> Strategy:
    value = read_mapping(path)
    if "compute_environment" in value or "distributed_type" in value:
        return _accelerate(path, value, given)
    if DEEPSPEED_KEYS & set(value) or isinstance(value.get("bf16"), dict) or isinstance(value.get("fp16"), dict):
        return _deepspeed(path, value, given, path)
    if TRAINER_KEYS & set(value) or isinstance(value.get("bf16", value.get("fp16")), bool):
        return _trainer(path, value, given)
    raise QuestionError(f"{path}: neither a DeepSpeed config nor TrainingArguments nor an accelerate config: none of their keys is in it")


def read_mapping(path: str) -> dict[str, Any]:
    """A JSON or YAML file's object; QuestionError where it is none."""
    if path.endswith((".yaml", ".yml")):
        return _yaml(path)
    from llmdoctor.modeldir.jsonfile import read_json_file

    file = read_json_file(path)
    if not isinstance(file.value, dict):
        reason = next((problem.message for problem in file.problems), f"{path}: expected a JSON object")
        raise QuestionError(reason if path in reason else f"{path}: {reason}")
    return file.value


def _yaml(path: str) -> dict[str, Any]:
    from llmdoctor.modeldir.files import Refusal, read_bytes

    data = read_bytes(path, 2**20)
    if data is None or isinstance(data, Refusal):
        raise QuestionError(f"{path}: no such file" if data is None else f"{path} {data.reason}")
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise QuestionError(f"{path}: reading YAML needs PyYAML, which transformers brings along: install the 'live' extra") from None
    try:
        value = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise QuestionError(f"{path}: not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise QuestionError(f"{path}: expected a mapping of settings, found {type(value).__name__}")
    return value


# --- TrainingArguments


def _trainer(path: str, value: Mapping[str, Any], given: Given) -> Strategy:
    for key, what in REFUSED_TRAINER.items():
        if value.get(key):
            raise QuestionError(f"{path}: {key}: {what} changes what is held in memory and is not modelled")
    if _flag(path, value, "bf16") and _flag(path, value, "fp16"):
        raise QuestionError(f"{path}: bf16 and fp16 are both true, the Trainer takes one of them")
    autocast = "bfloat16" if _flag(path, value, "bf16") else "float16" if _flag(path, value, "fp16") else None
    dtype = _init_dtype(path, value) or given.model_dtype or "float32"
    optimizer = _trainer_optimizer(path, value)
    strategy = Strategy(
        path, "trainer", dtype, optimizer, autocast,
        accumulation=_count(path, value, "gradient_accumulation_steps", 1),
        clip=_number(path, value, "max_grad_norm", 1.0),
        checkpointing=_flag(path, value, "gradient_checkpointing"),
        lora=_peft(path, value), batch=_count(path, value, "per_device_train_batch_size", 8), file=path, client=value.get("client_optimizer"),
    )  # fmt: skip
    config = value.get("deepspeed")
    if not config:
        return strategy
    if isinstance(config, str):
        config = read_mapping(config if os.path.isabs(config) else os.path.join(os.path.dirname(path), config))
    if not isinstance(config, dict):
        raise QuestionError(f"{path}: deepspeed: expected a config or the path of one, found {type(config).__name__}")
    return _under_trainer(path, strategy, config, value, given)


def _trainer_optimizer(path: str, value: Mapping[str, Any]) -> Optimizer:
    client = value.get("client_optimizer")
    if client is not None:
        return _client(path, client)
    return trainer_optimizer(value.get("optim", DEFAULT_TRAINER), value.get("optim_args"), f"{path}: optim")


def _client(path: str, client: Any) -> Optimizer:
    if not isinstance(client, dict) or "class" not in client:
        raise QuestionError(f"{path}: client_optimizer: expected an object with class and kwargs")
    kwargs = client.get("kwargs") or {}
    return torch_optimizer(client["class"], kwargs if isinstance(kwargs, dict) else {}, f"{path}: client_optimizer.class")


def _under_trainer(path: str, strategy: Strategy, config: dict[str, Any], value: Mapping[str, Any], given: Given) -> Strategy:
    """A DeepSpeed config with every "auto" filled in as transformers 5.23 does (integrations/deepspeed.py, trainer_config_process)."""
    batch, steps = strategy.batch or 8, strategy.accumulation
    fill = {
        ("train_micro_batch_size_per_gpu",): batch,
        ("gradient_accumulation_steps",): steps,
        ("train_batch_size",): batch * steps * given.world_size,
        ("gradient_clipping",): strategy.clip,
        ("bf16", "enabled"): _flag(path, value, "bf16"),
        ("fp16", "enabled"): _flag(path, value, "fp16"),
        ("zero_optimization", "reduce_bucket_size"): _square(given, 1.0),
        ("zero_optimization", "stage3_prefetch_bucket_size"): _square(given, 0.9),
        ("zero_optimization", "stage3_param_persistence_threshold"): None if given.hidden_size is None else 10 * given.hidden_size,
    }
    resolved = _filled(path, config, fill)
    for (section, key), wanted in ((("bf16", "enabled"), fill["bf16", "enabled"]), (("fp16", "enabled"), fill["fp16", "enabled"])):
        said = resolved.get(section, {}).get(key) if isinstance(resolved.get(section), dict) else None
        if said is not None and bool(said) != wanted:
            raise QuestionError(
                f"{path}: deepspeed has {section}.enabled {said} and TrainingArguments {section} {wanted}: the Trainer refuses this, set it to auto"
            )
    engine = _deepspeed(path, {**resolved, "model_init": value.get("model_init")}, given, path, client=strategy.optimizer)
    return replace(
        engine,
        client=strategy.client,
        runner="trainer+deepspeed",
        accumulation=steps,
        checkpointing=strategy.checkpointing,
        lora=strategy.lora,
        batch=batch,
        clip=strategy.clip,
    )


def _square(given: Given, factor: float) -> int | None:
    return None if given.hidden_size is None else int(factor * given.hidden_size * given.hidden_size)


def _filled(path: str, config: dict[str, Any], fill: Mapping[tuple[str, ...], Any], at: tuple[str, ...] = ()) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in config.items():
        place = (*at, key)
        if isinstance(value, dict):
            out[key] = _filled(path, value, fill, place)
        elif value == "auto":
            if place[0] in ("scheduler", "optimizer") and place[-1] != "type":
                continue  # lr, betas, eps, weight_decay, warm-up: nothing that is held
            if fill.get(place) is None:
                raise QuestionError(f"{path}: deepspeed has {'.'.join(place)}: auto, which the Trainer does not fill in for this model")
            out[key] = fill[place]
        else:
            out[key] = value
    return out


# --- DeepSpeed


def _deepspeed(path: str, config: Mapping[str, Any], given: Given, file: str | None, client: Optimizer | None = None) -> Strategy:
    _no_auto(path, config)
    half = {name: _enabled(path, config, name) for name in ("bf16", "fp16")}
    if half["bf16"] and half["fp16"]:
        raise QuestionError(f"{path}: bf16.enabled and fp16.enabled are both true, DeepSpeed takes one of them")
    autocast = _torch_autocast(path, config)
    if autocast and any(half.values()):
        raise QuestionError(f"{path}: torch_autocast and bf16 or fp16 are both enabled, DeepSpeed takes one of them")
    dtype = "bfloat16" if half["bf16"] else "float16" if half["fp16"] else _init_dtype(path, config) or "float32"
    zero = _zero(path, config.get("zero_optimization", {}))
    bf16 = _section(path, config, "bf16")
    fp16 = _section(path, config, "fp16")
    _check_masters(path, bf16, fp16, zero)
    low = bool(bf16.get("bf16_master_weights_and_grads") or fp16.get("fp16_master_weights_and_grads"))
    types = _section(path, config, "data_types")
    accum = types.get("grad_accum_dtype")
    model = "bfloat16" if half["bf16"] else "float16" if half["fp16"] else "float32"
    engine = Engine(
        zero,
        master=dtype if low else "float32",
        grad_accum=dtype_of(accum, f"{path}: data_types.grad_accum_dtype") if accum else model,
        immediate_update=bool(bf16.get("immediate_grad_update")),
        overflow_check=half["fp16"],
    )
    return Strategy(
        path, "deepspeed", dtype, _deepspeed_optimizer(path, config, zero, bf16, client), autocast,
        accumulation=_count(path, config, "gradient_accumulation_steps", 1), clip=_number(path, config, "gradient_clipping", 0.0),
        engine=engine, lora=_peft(path, config), batch=_micro_batch(path, config, given), file=file,
        config={key: value for key, value in config.items() if key not in OURS}, client=config.get("client_optimizer"),
    )  # fmt: skip


def _check_masters(path: str, bf16: Mapping[str, Any], fp16: Mapping[str, Any], zero: Zero) -> None:
    """What DeepSpeed asserts about low-precision masters (runtime/config.py:703 to :714, zero/stage_1_and_2.py:331)."""
    masters, states = bf16.get("bf16_master_weights_and_grads"), bf16.get("bf16_optimizer_states")
    half = fp16.get("fp16_master_weights_and_grads")
    if states and not masters:
        raise QuestionError(f"{path}: bf16.bf16_optimizer_states needs bf16.bf16_master_weights_and_grads, which is not set")
    if (masters or half) and zero.stage == 0:
        raise QuestionError(f"{path}: low-precision master weights need ZeRO stage 1, 2 or 3, this is stage 0")
    if ((masters and not states) or half) and zero.offload_optimizer is None:
        raise QuestionError(
            f"{path}: low-precision master weights without low-precision states need zero_optimization.offload_optimizer on cpu"
        )


def _no_auto(path: str, value: Any, at: str = "") -> None:
    if value == "auto":
        raise QuestionError(
            f'{path}: {at} is "auto", which only the Trainer fills in: give the TrainingArguments file that names this config under deepspeed'
        )
    for key, item in value.items() if isinstance(value, dict) else ():
        _no_auto(path, item, f"{at}.{key}" if at else key)


def _deepspeed_optimizer(path: str, config: Mapping[str, Any], zero: Zero, bf16: Mapping[str, Any], client: Optimizer | None) -> Optimizer:
    section = config.get("optimizer")
    if section is None:
        if config.get("client_optimizer") is not None:
            return _client(path, config["client_optimizer"])
        if client is not None:
            return client
        raise QuestionError(f"{path}: no optimizer: expected an optimizer section, or client_optimizer for one that the caller made")
    if not isinstance(section, dict) or "type" not in section:
        raise QuestionError(f"{path}: optimizer: expected an object with type and params")
    params = section.get("params")
    half_states = bool(bf16.get("bf16_optimizer_states"))
    return deepspeed_optimizer(
        section["type"],
        params if isinstance(params, dict) else {},
        offload=zero.offload_optimizer is not None,
        half_states=half_states,
        where=f"{path}: optimizer.type",
    )


def _zero(path: str, section: Any) -> Zero:
    if not isinstance(section, dict):
        raise QuestionError(f"{path}: zero_optimization: expected an object, found {type(section).__name__}")
    stage = section.get("stage", 0)
    if isinstance(stage, bool) or not isinstance(stage, int) or not 0 <= stage <= 3:
        raise QuestionError(f"{path}: zero_optimization.stage {stage!r}: DeepSpeed has stages 0, 1, 2 and 3")
    overlap = section.get("overlap_comm")
    where = f"{path}: zero_optimization"
    default = Zero()
    return Zero(
        stage=stage,
        contiguous_gradients=bool(section.get("contiguous_gradients", True)),
        overlap_comm=bool(stage == 3 if overlap is None else overlap),
        reduce_scatter=bool(section.get("reduce_scatter", True)),
        reduce_bucket_size=_count(where, section, "reduce_bucket_size", default.reduce_bucket_size),
        allgather_bucket_size=_count(where, section, "allgather_bucket_size", default.allgather_bucket_size),
        sub_group_size=_count(where, section, "sub_group_size", default.sub_group_size),
        prefetch_bucket_size=_count(where, section, "stage3_prefetch_bucket_size", default.prefetch_bucket_size, least=0),
        param_persistence_threshold=_count(
            where, section, "stage3_param_persistence_threshold", default.param_persistence_threshold, least=0
        ),
        max_live_parameters=_count(where, section, "stage3_max_live_parameters", default.max_live_parameters, least=0),
        round_robin_gradients=bool(section.get("round_robin_gradients", False)),
        parameter_alignment=bool(section.get("parameter_alignment", False)),
        offload_optimizer=_offload(where, section, "offload_optimizer"),
        offload_param=_offload(where, section, "offload_param"),
    )


def _offload(where: str, section: Mapping[str, Any], key: str) -> str | None:
    target = section.get(key)
    if target is None:
        return "cpu" if section.get("cpu_offload") and key == "offload_optimizer" else None
    device = target.get("device", "none") if isinstance(target, dict) else target
    if device == "none":
        return None
    if device != "cpu":
        raise QuestionError(f"{where}.{key}.device {device!r}: only cpu and none are modelled here (DeepSpeed also knows nvme)")
    return "cpu"


def _torch_autocast(path: str, config: Mapping[str, Any]) -> str | None:
    section = _section(path, config, "torch_autocast")
    return dtype_of(section.get("dtype", "bfloat16"), f"{path}: torch_autocast.dtype") if section.get("enabled") else None


def _micro_batch(path: str, config: Mapping[str, Any], given: Given) -> int | None:
    if "train_micro_batch_size_per_gpu" in config:
        return _count(path, config, "train_micro_batch_size_per_gpu", 1)
    if "train_batch_size" not in config:
        return None
    total, steps = _count(path, config, "train_batch_size", 1), _count(path, config, "gradient_accumulation_steps", 1)
    return max(1, total // steps // given.world_size)


# --- accelerate


def _accelerate(path: str, value: Mapping[str, Any], given: Given) -> Strategy:
    """`accelerate config`'s YAML: precision and ZeRO stage; the optimizer is the Trainer's default, for the file names none."""
    kind = str(value.get("distributed_type", "NO")).upper()
    precision = str(value.get("mixed_precision", "no")).lower()
    if precision not in ("no", "bf16", "fp16"):
        raise QuestionError(f"{path}: mixed_precision {precision!r} is not modelled, expected no, bf16 or fp16")
    arguments: dict[str, Any] = {
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "model_init": value.get("model_init"),
        "per_device_train_batch_size": 1,
    }
    if kind in ("NO", "MULTI_GPU"):
        return replace(_trainer(path, arguments, given), batch=None)
    if kind != "DEEPSPEED":
        raise QuestionError(f"{path}: distributed_type {kind} is not modelled, expected NO, MULTI_GPU or DEEPSPEED")
    section = _section(path, value, "deepspeed_config")
    named = section.get("deepspeed_config_file")
    if named:
        arguments["deepspeed"] = str(named)
        return replace(_trainer(path, arguments, given), batch=None)
    zero: dict[str, Any] = {"stage": section.get("zero_stage", 2)}
    for key in ("offload_optimizer", "offload_param"):
        device = section.get(f"{key}_device", "none")
        if device != "none":
            zero[key] = {"device": device}
    steps = section.get("gradient_accumulation_steps", 1)
    arguments["gradient_accumulation_steps"] = 1 if steps == "auto" else steps
    arguments["deepspeed"] = {
        "zero_optimization": zero, "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"},
        "gradient_accumulation_steps": "auto", "gradient_clipping": "auto",
    }  # fmt: skip
    return replace(_trainer(path, arguments, given), batch=None)


# --- what the readers share


def _section(path: str, value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = value.get(key)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise QuestionError(f"{path}: {key}: expected an object, found {type(section).__name__}")
    return section


def _enabled(path: str, value: Mapping[str, Any], key: str) -> bool:
    return bool(_section(path, value, key).get("enabled", False))


def _flag(path: str, value: Mapping[str, Any], key: str) -> bool:
    flag = value.get(key, False)
    if flag is None or isinstance(flag, bool):
        return bool(flag)
    raise QuestionError(f"{path}: {key}: expected true or false, found {flag!r}")


def _count(path: str, value: Mapping[str, Any], key: str, default: int, least: int = 1) -> int:
    number = value.get(key, default)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, str) and number.replace(".", "").replace("e", "").replace("+", "").isdigit():
        number = int(float(number))  # YAML reads 5e8 as text
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise QuestionError(f"{path}: {key}: expected a whole number of at least {least}, found {number!r}")
    return number


def _number(path: str, value: Mapping[str, Any], key: str, default: float) -> float:
    number = value.get(key, default)
    if number is None:
        return 0.0
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise QuestionError(f"{path}: {key}: expected a number, found {number!r}")
    return float(number)


def _init_dtype(path: str, value: Mapping[str, Any]) -> str | None:
    init = _section(path, value, "model_init")
    return None if init.get("dtype") in (None, "auto") else dtype_of(init["dtype"], f"{path}: model_init.dtype")


def _peft(path: str, value: Mapping[str, Any]) -> Lora | None:
    peft = _section(path, value, "model_init").get("peft_config")
    if peft is None:
        return None
    if not isinstance(peft, dict) or str(peft.get("peft_type", "LORA")).upper() != "LORA":
        raise QuestionError(f"{path}: model_init.peft_config: only LORA is known here")
    for key in ("use_dora", "modules_to_save", "trainable_token_indices", "rank_pattern"):
        if peft.get(key):
            raise QuestionError(f"{path}: model_init.peft_config.{key} changes what is trained and is not modelled")
    if peft.get("bias", "none") != "none":
        raise QuestionError(f"{path}: model_init.peft_config.bias {peft['bias']!r} is not modelled, expected none")
    targets = peft.get("target_modules") or LORA_TARGETS
    if not isinstance(targets, list | tuple) or not all(isinstance(name, str) for name in targets):
        raise QuestionError(f"{path}: model_init.peft_config.target_modules: expected a list of names")
    rank = _count(f"{path}: model_init.peft_config", peft, "r", 8)
    return Lora(rank, tuple(targets), float(peft.get("lora_dropout", 0.0) or 0.0))

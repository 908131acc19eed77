"""Predicts the strategies of one model; what two strategies share is traced once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmdoctor.configs.versions import LibraryVersion
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.inputs import Inputs
from llmdoctor.core.installed import installed_version
from llmdoctor.core.report import Skipped
from llmdoctor.mem.batch import DEFAULT_LENGTH, FLASH, base_workload, resized
from llmdoctor.mem.fsdp import check_sharded
from llmdoctor.mem.keys import StrategyContext, joined
from llmdoctor.mem.model_config import config_of, dtype_name, hidden_size, model_directory, stored_dtype, text_part
from llmdoctor.mem.options import MemOptions
from llmdoctor.mem.predict import predict, workload_of
from llmdoctor.mem.releases import release_limits, releases_for
from llmdoctor.mem.runners.base import Job
from llmdoctor.mem.settings import Strategy
from llmdoctor.mem.strategies import read_strategy
from llmdoctor.mem.timeline import Event, Traced
from llmdoctor.mem.trained import unreached_of
from llmdoctor.mem.types import Comparison, Estimate
from llmdoctor.mem.workload import PREFERENCES, Workload

NCCL = "they lie outside the allocator, and their size depends on the devices and the links between them"
OUTLIERS = (
    "bitsandbytes keeps a copy of the columns whose values exceed 6.0, and their number depends on the data (with random weights on an H200 "
    "the peak was 5% higher)"
)
EVALUATED = (
    "if the script passes compute_metrics, each batch of the evaluation leaves {:.1f} GB of logits on the device, and they are concatenated: set "
    "eval_accumulation_steps, prediction_loss_only or preprocess_logits_for_metrics (trainer.py, evaluation_loop)"
)
PADDING = "none; with sdpa each layer of a padded batch also keeps a mask (--lengths)"
ADAPTERS = "new ones (peft_config); of a PeftModel that is handed to DPOTrainer a copy of the adapters is kept too (dpo_trainer.py:581)"
GENERATED = "its key-value cache is not counted here: llmdoctor mem kvcache gives it"
PAGED = "they lie in managed memory, which the allocator does not count: on the device while it has room, else in the host's memory"


class Predictor:
    """Estimates of one model. `live` is true if its code can be traced here."""

    def __init__(self, options: MemOptions) -> None:
        self.options = options
        self.directory = model_directory(options.model)
        self.config = config_of(self.directory)
        self.live = not options.static and installed_version("torch") is not None and installed_version("transformers") is not None
        self.releases: dict[str, LibraryVersion] = {}  # that the strategies were read for
        self._traces: dict[Workload, Traced] = {}
        if self.live:
            _silence_libraries()

    def strategy(self, text: str, content: str | None = None) -> Strategy:
        """Return the strategy that `text` names, a file or a name, combined with the options; `content` stands in for that of the file."""
        options = self.options
        chosen = releases_for(text if os.path.exists(text) else options.model, options.deepspeed)
        self.releases |= {f"{library} {version.version}": version for library, version in chosen.items()}
        named = dtype_name(self.config)
        context = StrategyContext(
            model_dtype=named or stored_dtype(self.directory),
            dtype_place="config.json" if named is not None else "the checkpoint",
            model_type=str(self.config.get("model_type")),
            hidden_size=hidden_size(self.config),
            world_size=options.world_size,
            lora=options.lora,
            checkpointing=options.gradient_checkpointing,
            without=options.without,
            releases={library: version.version for library, version in chosen.items()},
        )
        strategy = read_strategy(text, context, content)
        return replace(strategy, limits=(*strategy.limits, *release_limits(strategy, chosen, traced=self.live)))

    def estimate(self, strategy: Strategy, batch: int | None = None, seq_len: int | None = None) -> Estimate:
        """Return the estimate of one strategy; `batch` and `seq_len` replace those of the options."""
        check_sharded(strategy)
        base = base_workload(self.options, strategy, self.config)
        workload = workload_of(strategy, resized(base, batch or base.batch, seq_len or base.seq_len))
        traced = self._traced(workload)
        reference = tuple(weight.nbytes for weight in traced.reference)
        job = Job(
            strategy,
            traced.weights,
            buffers=traced.buffers,
            events=traced.events,
            rank=self.options.rank,
            reference=reference,
            unreached=traced.unreached,
            evaluation=self._evaluation(strategy, workload),
            units=traced.units,
        )
        return Estimate(strategy, workload, predict(job), traced.layers, job)

    def _evaluation(self, strategy: Strategy, workload: Workload) -> tuple[Event, ...]:
        """Return the events of one batch of the evaluation; none if the run makes none or nothing is traced."""
        if strategy.evaluation is None or not self.live:
            return ()
        return self._traced(replace(workload, batch=strategy.evaluation.batch, checkpointing=False, evaluation=True)).events

    def _traced(self, workload: Workload) -> Traced:
        if workload not in self._traces:
            self._traces[workload] = self._trace(workload) if self.live else self._states_alone(workload)
        return self._traces[workload]

    def _trace(self, workload: Workload) -> Traced:
        from llmdoctor.mem.live.trace import trace
        from llmdoctor.mem.shapes import check_headers

        traced = trace(self.directory.path, workload)
        if workload.lora is None:
            check_headers(self.directory, traced.weights)
        return traced

    def _states_alone(self, workload: Workload) -> Traced:
        from llmdoctor.mem.shapes import check_headers, weights_without_torch

        positions = self.config.get("n_positions")
        if isinstance(positions, int) and workload.seq_len > positions:
            raise QuestionError(f"--seq-len {workload.seq_len}: the model has {positions} learned positions (n_positions)")
        weights = weights_without_torch(self.directory, workload)
        check_headers(self.directory, weights)
        other = None if workload.reference is None else replace(workload, dtype=workload.reference, lora=None, trainable=(), frozen=())
        reference = () if other is None else weights_without_torch(self.directory, other)
        return Traced(weights, reference=reference, unreached=unreached_of(weights, workload, self.config))


def compare_strategies(options: MemOptions) -> tuple[Comparison, Predictor]:
    """Return the estimates of every strategy that the options name, and the predictor for further ones.

    Raises QuestionError if a file, a strategy or an option cannot be understood.
    """
    if not options.strategy:
        raise QuestionError("no --strategy: expected at least one, such as --strategy trainer:adamw_torch,bf16 --strategy deepspeed:zero2")
    predictor = Predictor(options)
    strategies = [predictor.strategy(text) for text in options.strategy]
    world = min((strategy.world_size for strategy in strategies), default=1)
    if not 0 <= options.rank < world:
        raise QuestionError(f"--rank {options.rank}: expected a process of {world}, from 0 to {world - 1}")
    estimates = tuple(predictor.estimate(strategy) for strategy in strategies)
    needed = tuple(
        one for one in predictor.releases.values() if one.library != "deepspeed" or any(each.strategy.engine for each in estimates)
    )
    comparison = Comparison(
        options=options,
        directory=predictor.directory,
        estimates=estimates,
        skipped=_skipped(predictor, estimates),
        inputs=_inputs(options, estimates, predictor.config),
        releases=needed,
    )
    return comparison, predictor


def _inputs(options: MemOptions, estimates: Sequence[Estimate], config: Mapping[str, Any]) -> Inputs:
    """Return what the options and files set, and what nothing sets and the answer depends on."""
    strategies = [estimate.strategy for estimate in estimates]
    inputs = joined(strategy.inputs for strategy in strategies)
    assumed = dict(inputs.assumed)
    if options.seq_len is None and not options.lengths and not options.packed and any(strategy.seq_len is None for strategy in strategies):
        assumed["--seq-len"] = DEFAULT_LENGTH
    if options.batch is None and not options.lengths and any(strategy.batch is None for strategy in strategies):
        assumed["--batch"] = 1
    if options.image is None and "vision_config" in config:
        assumed["--image"] = "none; a sequence with images holds more"
    if any(strategy.objective == "dpo" and strategy.lora is not None for strategy in strategies):
        assumed["adapters"] = ADAPTERS
    if any(_would_pad(options, estimate) for estimate in estimates):
        assumed["padding"] = PADDING
    unread = [key for key in options.without if key not in inputs.ignored]
    if unread:
        raise QuestionError(f"--without {unread[0]}: no --strategy file sets this key")
    return Inputs(used=inputs.used, ignored=inputs.ignored, assumed=assumed)


def _would_pad(options: MemOptions, estimate: Estimate) -> bool:
    """Return whether a real batch would have padding that nothing describes, and attention would be handed a mask for it."""
    workload, strategy = estimate.workload, estimate.strategy
    masked = (options.attn or strategy.attention) not in FLASH
    return masked and workload.sequences > 1 and not (workload.lengths or workload.packed or workload.flat)


def _skipped(predictor: Predictor, estimates: Sequence[Estimate]) -> tuple[Skipped, ...]:
    """Return what is missing from the numbers, and why."""
    paged = max((sum(estimate.prediction.host.values()) for estimate in estimates if estimate.strategy.optimizer.paged), default=0)
    out = [Skipped(f"{paged / 1e9:.1f} GB of paged optimizer states", PAGED)] if paged else []
    most = max((_outliers(estimate) for estimate in estimates), default=0)
    if predictor.live and most:
        out.append(Skipped(f"outlier columns of 8-bit products (at most {most / 1e9:.1f} GB)", OUTLIERS))
    out += _of_evaluation(predictor, estimates)
    if any(estimate.strategy.world_size > 1 for estimate in estimates):
        out.append(Skipped("NCCL's own buffers", NCCL))
    if not predictor.live:
        reason = "--static was given" if predictor.options.static else _missing()
        what = "activations, logits, loss and temporary tensors of the backward"
        out.append(Skipped(what, f"{reason}, so the model's code was not traced"))
    return tuple(out)


def _missing() -> str:
    from llmdoctor.core.installing import install_line

    return f"torch and transformers are not installed here ({install_line('live')})"


def _outliers(estimate: Estimate) -> int:
    """Return the bytes of all inputs of 8-bit layers, which bitsandbytes would keep if each column had a large value; 0 without such layers."""
    workload = estimate.workload
    quantization = workload.quantization
    if quantization is None or quantization.bits != 8:
        return 0
    columns = sum(weight.shape[1] for weight in estimate.job.weights if weight.dtype == "int8" and len(weight.shape) == 2)
    return columns * workload.sequences * workload.seq_len * (4 if quantization.prepared else 2)


def _of_evaluation(predictor: Predictor, estimates: Sequence[Estimate]) -> list[Skipped]:
    """Return what an evaluation can hold beyond one batch's forward: no configuration file says whether the script asks for it."""
    kept = [estimate for estimate in estimates if estimate.strategy.evaluation is not None and estimate.strategy.evaluation.outputs]
    vocabulary = text_part(predictor.config).get("vocab_size")
    out: list[Skipped] = []
    if kept and isinstance(vocabulary, int) and all(estimate.workload.objective not in PREFERENCES for estimate in kept):
        each = max(_logits(estimate, vocabulary) for estimate in kept)
        out.append(Skipped("logits that compute_metrics asks for", EVALUATED.format(each / 1e9)))
    if any(estimate.strategy.evaluation is not None and estimate.strategy.evaluation.generates for estimate in estimates):
        out.append(Skipped("text generated in the evaluation (predict_with_generate)", GENERATED))
    return out


def _logits(estimate: Estimate, vocabulary: int) -> int:
    """Return the bytes of the logits that one batch of the evaluation returns."""
    evaluation, workload = estimate.strategy.evaluation, estimate.workload
    each = 4 if workload.float_outputs or workload.dtype == "float32" else 2
    return (0 if evaluation is None else evaluation.batch) * workload.seq_len * vocabulary * each


def _silence_libraries() -> None:
    """Keep transformers and torch from writing to the terminal or to the network."""
    import logging

    for name, value in (("TRANSFORMERS_VERBOSITY", "error"), ("HF_HUB_OFFLINE", "1"), ("TOKENIZERS_PARALLELISM", "false")):
        os.environ.setdefault(name, value)
    for name in ("transformers", "torch._subclasses.fake_tensor"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

"""From the words of a command line to predictions: which model, which strategies, which batch."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.installed import installed_version
from llmdoctor.core.report import Skipped
from llmdoctor.mem.fields import Given
from llmdoctor.mem.predict import Prediction, predict, with_dtype, workload_of
from llmdoctor.mem.runners.base import Job
from llmdoctor.mem.settings import Strategy
from llmdoctor.mem.strategies import read_strategy
from llmdoctor.mem.workload import Workload

if TYPE_CHECKING:
    from llmdoctor.mem.weights import Weight
    from llmdoctor.modeldir.directory import ModelDir

STAGES = ("vision", "all", "llm")
VISION = "visual"
FLASH = ("flash_attention_2", "flash_attention_3")
DEFAULT_LENGTH = 512


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `mem compare` and `mem measure`, None for one that was not used."""

    model: str
    strategies: tuple[str, ...]
    batch: int | None = None
    seq_len: int | None = None
    image: str | None = None
    attention: str | None = None
    world_size: int | None = None
    rank: int = 0
    trainable: tuple[str, ...] = ()
    stage: str | None = None
    lora: int | None = None
    checkpointing: bool = False
    gpu_memory: str | None = None
    static: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One strategy on one batch, and what it comes to."""

    strategy: Strategy
    workload: Workload
    prediction: Prediction
    traced: str | None
    job: Job


@dataclass(frozen=True, slots=True)
class Answer:
    """All cases of a question. `skipped` says what could not be told and why."""

    asked: Asked
    directory: ModelDir
    cases: tuple[Case, ...]
    skipped: tuple[Skipped, ...] = ()


class Predictor:
    """Predicts cases of one model; what two strategies share is traced once."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.directory = model_directory(asked.model)
        self.config = config_of(self.directory)
        self.live = not asked.static and installed_version("torch") is not None and installed_version("transformers") is not None
        self.masked = False
        self._traces: dict[Workload, tuple[tuple[Weight, ...], tuple[int, ...], tuple[Any, ...], str | None]] = {}
        if self.live:
            _quiet()

    def strategy(self, text: str) -> Strategy:
        """A strategy by its text, with the command line's options."""
        text_config = self.config.get("text_config")
        hidden = self.config.get("hidden_size") or (text_config.get("hidden_size") if isinstance(text_config, dict) else None)
        dtype = self.config.get("dtype") or self.config.get("torch_dtype")
        given = Given(
            model_dtype=dtype if isinstance(dtype, str) and dtype in ("float32", "bfloat16", "float16") else None,
            hidden_size=hidden if isinstance(hidden, int) and not isinstance(hidden, bool) else None,
            world_size=1 if self.asked.world_size is None else self.asked.world_size,
            asked_world=self.asked.world_size is not None,
            lora=self.asked.lora,
            checkpointing=self.asked.checkpointing,
        )
        return read_strategy(text, given)

    def case(self, strategy: Strategy, batch: int | None = None) -> Case:
        """The prediction for one strategy; `batch` replaces the one asked for."""
        base = base_workload(self.asked, strategy, self.config)
        workload = workload_of(strategy, replace(base, batch=batch or base.batch))
        weights, buffers, events, said = self._traced(workload)
        job = Job(strategy, weights, buffers, events, self.asked.rank)
        return Case(strategy, workload, predict(job), said, job)

    def _traced(self, workload: Workload) -> tuple[tuple[Weight, ...], tuple[int, ...], tuple[Any, ...], str | None]:
        if workload not in self._traces:
            self._traces[workload] = self._trace(workload) if self.live else self._states(workload)
        return self._traces[workload]

    def _trace(self, workload: Workload) -> tuple[tuple[Weight, ...], tuple[int, ...], tuple[Any, ...], str | None]:
        from llmdoctor.mem.live.trace import trace
        from llmdoctor.mem.shapes import check_headers

        traced = trace(self.directory.path, workload)
        self.masked = self.masked or traced.masked
        if workload.lora is None:
            check_headers(self.directory, traced.weights)
        return traced.weights, traced.buffers, traced.events, traced.traced_layers

    def _states(self, workload: Workload) -> tuple[tuple[Weight, ...], tuple[int, ...], tuple[Any, ...], str | None]:
        from llmdoctor.mem.shapes import check_headers, weights_without_torch

        positions = self.config.get("n_positions")
        if isinstance(positions, int) and workload.seq_len > positions:
            raise QuestionError(f"--seq-len {workload.seq_len}: the model has learned {positions} positions (n_positions), and no more")
        weights = weights_without_torch(self.directory, workload)
        check_headers(self.directory, weights)
        return with_dtype(weights, workload.dtype), (), (), None


def ask(asked: Asked) -> tuple[Answer, Predictor]:
    """Read what `asked` names and predict every strategy.

    Raises QuestionError where a file, a strategy or an option cannot be understood.
    """
    if not asked.strategies:
        raise QuestionError("no --strategy: expected at least one, such as --strategy trainer:adamw_torch,bf16 --strategy deepspeed:zero2")
    predictor = Predictor(asked)
    strategies = [predictor.strategy(text) for text in asked.strategies]
    if not 0 <= asked.rank < (asked.world_size or 1):
        raise QuestionError(f"--rank {asked.rank}: expected a process of --world-size {asked.world_size or 1}, from 0")
    cases = tuple(predictor.case(strategy) for strategy in strategies)
    return Answer(asked, predictor.directory, cases, _skipped(predictor)), predictor


MASKED = (
    "this model hands its attention kernels a mask or a bias, whose copies and gradients on CUDA are not modelled: the peak can be higher "
    "(on an H100 by 14% for Falcon, by 30% for T5)"
)


def _skipped(predictor: Predictor) -> tuple[Skipped, ...]:
    if predictor.live and predictor.masked:
        return (Skipped("what attention keeps of a mask", MASKED),)
    if predictor.live:
        return ()
    reason = (
        "asked for with --static"
        if predictor.asked.static
        else "torch and transformers are not installed here (pip install 'llmdoctor-toolkit[live]')"
    )
    return (Skipped("activations, logits, loss and the backward's temporaries", f"{reason}, so the model's code was not traced"),)


def base_workload(asked: Asked, strategy: Strategy, config: dict[str, Any]) -> Workload:
    """The batch that the options ask for; what they leave open is the strategy's, else 1 sequence of 512 tokens."""
    batch = asked.batch if asked.batch is not None else strategy.batch or 1
    length = DEFAULT_LENGTH if asked.seq_len is None else asked.seq_len
    for name, value in (("--batch", batch), ("--seq-len", length)):
        if value < 1:
            raise QuestionError(f"{name} {value}: expected at least 1")
    return Workload(
        batch=batch,
        seq_len=length,
        attention=_attention(asked.attention, strategy),
        image=image_size(asked.image),
        trainable=_trainable(asked, config),
        frozen=(VISION,) if asked.stage == "llm" else (),
    )


def _attention(name: str | None, strategy: Strategy) -> str | None:
    """The attention that is traced. flash-attn's kernels, which need not be installed, keep what torch's own flash kernel keeps: the output and
    one number a row.
    """
    if name is None or name in ("sdpa", "eager"):
        return name
    if name not in FLASH:
        raise QuestionError(f"--attn {name}: expected sdpa, eager or one of {', '.join(FLASH)}")
    if strategy.dtype == "float32" and strategy.autocast is None:
        raise QuestionError(f"--attn {name}: {strategy.name} computes in float32, flash attention has 16-bit kernels only")
    return "sdpa"


def _trainable(asked: Asked, config: dict[str, Any]) -> tuple[str, ...]:
    if asked.stage is None:
        return asked.trainable
    if asked.stage not in STAGES:
        raise QuestionError(f"--stage {asked.stage}: expected one of {', '.join(STAGES)}")
    if "vision_config" not in config:
        raise QuestionError(f"--stage {asked.stage}: this model ({config.get('model_type')}) has no vision part")
    if asked.trainable and asked.stage != "all":
        raise QuestionError(f"--stage {asked.stage} and --trainable both say what is trained: use one of them")
    return (VISION,) if asked.stage == "vision" else asked.trainable


def image_size(text: str | None) -> tuple[int, int] | None:
    """ "448x448" as (width, height)."""
    if text is None:
        return None
    width, cross, height = text.lower().partition("x")
    if (
        not cross
        or not width.isdecimal()
        or not height.isdecimal()
        or not int(width)
        or not int(height)
        or max(int(width), int(height)) > 2**15
    ):
        raise QuestionError(f"--image {text}: expected WIDTHxHEIGHT in pixels, such as 448x448")
    return int(width), int(height)


def model_directory(name: str) -> ModelDir:
    """The directory, or the config.json, that `name` means; QuestionError where there is no config."""
    from llmdoctor.modeldir.directory import read_model_dir

    directory = read_model_dir(os.path.dirname(name) or "." if os.path.basename(name) == "config.json" and os.path.isfile(name) else name)
    if directory.config is None:
        raise QuestionError(f"{directory.shown_name}: no config.json, so there is no model to train")
    return directory


def config_of(directory: ModelDir) -> dict[str, Any]:
    """config.json's object; QuestionError where it is none, or names a model whose weights are quantized."""
    file = directory.config
    if file is None:
        raise QuestionError(f"{directory.shown_name}: no config.json")
    if not isinstance(file.value, dict):
        reason = next((problem.message for problem in file.problems), "expected a JSON object")
        raise QuestionError(reason if file.shown_name in reason else f"{file.shown_name}: {reason}")
    if file.value.get("quantization_config"):
        raise QuestionError(f"{file.shown_name}: the weights are quantized (quantization_config): what training them takes is not modelled")
    if not isinstance(file.value.get("model_type"), str) or not file.value["model_type"]:
        raise QuestionError(f"{file.shown_name}: no model_type, so it is not known which model this is")
    value: dict[str, Any] = file.value
    return value


def _quiet() -> None:
    import logging

    for name, value in (("TRANSFORMERS_VERBOSITY", "error"), ("HF_HUB_OFFLINE", "1"), ("TOKENIZERS_PARALLELISM", "false")):
        os.environ.setdefault(name, value)
    for name in ("transformers", "torch._subclasses.fake_tensor"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

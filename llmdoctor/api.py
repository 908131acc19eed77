"""Every command as a function: options in, a report out.

Written by docs/generate_api.py from the options of each command; `make docs` renews it. A function raises QuestionError if its question cannot be
answered (exit 2 of the command); the sentence is the error's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmdoctor.printable import PrintableReport

__all__ = (
    "check_tree",
    "environment",
    "explain_rule",
    "gencfg_check",
    "gencfg_diff",
    "gencfg_presets",
    "gencfg_runaway",
    "gencfg_show",
    "gencfg_trace",
    "labels_audit",
    "labels_inspect",
    "look_at",
    "mask_inspect",
    "mask_test",
    "mem_compare",
    "mem_fit",
    "mem_kvcache",
    "mem_measure",
    "mem_oom",
    "prompt_diff",
    "sample_compare",
    "sample_draw",
    "sample_engines",
    "sample_replay",
)


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return `value` as a tuple; a single string is one item."""
    return (value,) if isinstance(value, str) else tuple(value)


def gencfg_show(
    *,
    model: str,
    config: str | None = None,
    sets: str | Sequence[str] = (),
    mutate: str | Sequence[str] = (),
    mutate_config: str | Sequence[str] = (),
    presets: str | Sequence[str] = (),
    transformers: str | None = None,
    engine: str | None = None,
    prompt_length: int | None = None,
    without: str | Sequence[str] = (),
) -> PrintableReport:
    """Return the effective generation config of a call, each field with its origin.

    Raises QuestionError if a file, a version, a preset or an option cannot be understood.

    One call: a model and what is passed to generate(). None or () is an option that was not given.

    `model` is a model directory, a hub id in the local cache, a generation_config.json or a trace. `config` is the file of the
    GenerationConfig that is passed; `sets`, `mutate` and `mutate_config` hold texts such as "eos_token_id=[2]": keyword arguments of
    generate(), assignments on model.generation_config, and assignments on model.config. `presets` name trainers, `transformers`
    and `engine` what to answer for ("vllm", "vllm@0.33.0"). `prompt_length` is in tokens. `without` names keys of
    generation_config.json and config.json that count as not set.
    """
    from llmdoctor.gencfg.options import GencfgOptions
    from llmdoctor.gencfg.show import show_report

    return PrintableReport.of(
        show_report(
            GencfgOptions(
                model=model,
                config=config,
                sets=_texts(sets),
                mutate=_texts(mutate),
                mutate_config=_texts(mutate_config),
                presets=_texts(presets),
                transformers=transformers,
                engine=engine,
                prompt_length=prompt_length,
                without=_texts(without),
            )
        )
    )


def gencfg_diff(
    *,
    left: str,
    right: str,
    left_config: str | None = None,
    left_sets: str | Sequence[str] = (),
    left_mutate: str | Sequence[str] = (),
    left_mutate_config: str | Sequence[str] = (),
    left_presets: str | Sequence[str] = (),
    left_transformers: str | None = None,
    left_engine: str | None = None,
    left_prompt_length: int | None = None,
    left_without: str | Sequence[str] = (),
    right_config: str | None = None,
    right_sets: str | Sequence[str] = (),
    right_mutate: str | Sequence[str] = (),
    right_mutate_config: str | Sequence[str] = (),
    right_presets: str | Sequence[str] = (),
    right_transformers: str | None = None,
    right_engine: str | None = None,
    right_prompt_length: int | None = None,
    right_without: str | Sequence[str] = (),
) -> PrintableReport:
    """Return what differs between two calls, why, and whether either of them never stops.

    A trace alone is compared with a plain generate() of its own model. Raises QuestionError like show_report.

    The two calls of `gencfg diff`.

    One call: a model and what is passed to generate(). None or () is an option that was not given.

    `model` is a model directory, a hub id in the local cache, a generation_config.json or a trace. `config` is the file of the
    GenerationConfig that is passed; `sets`, `mutate` and `mutate_config` hold texts such as "eos_token_id=[2]": keyword arguments of
    generate(), assignments on model.generation_config, and assignments on model.config. `presets` name trainers, `transformers`
    and `engine` what to answer for ("vllm", "vllm@0.33.0"). `prompt_length` is in tokens. `without` names keys of
    generation_config.json and config.json that count as not set.
    """
    from llmdoctor.gencfg.diff import diff_report
    from llmdoctor.gencfg.options import DiffOptions, GencfgOptions

    return PrintableReport.of(
        diff_report(
            DiffOptions(
                left=GencfgOptions(
                    model=left,
                    config=left_config,
                    sets=_texts(left_sets),
                    mutate=_texts(left_mutate),
                    mutate_config=_texts(left_mutate_config),
                    presets=_texts(left_presets),
                    transformers=left_transformers,
                    engine=left_engine,
                    prompt_length=left_prompt_length,
                    without=_texts(left_without),
                ),
                right=GencfgOptions(
                    model=right,
                    config=right_config,
                    sets=_texts(right_sets),
                    mutate=_texts(right_mutate),
                    mutate_config=_texts(right_mutate_config),
                    presets=_texts(right_presets),
                    transformers=right_transformers,
                    engine=right_engine,
                    prompt_length=right_prompt_length,
                    without=_texts(right_without),
                ),
            )
        )
    )


def gencfg_check(
    *,
    paths: str | Sequence[str],
    select: str | Sequence[str] = (),
    ignore: str | Sequence[str] = (),
    transformers: str | None = None,
    without: str | Sequence[str] = (),
) -> PrintableReport:
    """Return the findings of every GEN and DIR rule over every directory; for a folder without a model, its subfolders are checked.

    Raises QuestionError if a path or a version cannot be understood.

    The directories of `gencfg check`; `select` and `ignore` are prefixes of rule codes.
    """
    from llmdoctor.gencfg.check import check_report
    from llmdoctor.gencfg.options import GencfgCheckOptions

    return PrintableReport.of(
        check_report(
            GencfgCheckOptions(
                paths=_texts(paths), select=_texts(select), ignore=_texts(ignore), transformers=transformers, without=_texts(without)
            )
        )
    )


def gencfg_trace(*, path: str) -> PrintableReport:
    """Return what happened in a traced run. Raises QuestionError if the trace cannot be read.

    A trace to report on: `path` is the JSON lines file that a traced command, `recording()` or `TraceCallback` has written.
    """
    from llmdoctor.gencfg.trace.options import TraceOptions
    from llmdoctor.gencfg.trace.trace import trace_report

    return PrintableReport.of(trace_report(TraceOptions(path=path)))


def gencfg_runaway(
    *,
    path: str,
    model: str | None = None,
    terminators: str | Sequence[str] = (),
    max_new_tokens: int | None = None,
    ids: str | None = None,
    text: str | None = None,
) -> PrintableReport:
    """Read the outputs once and return how they ended. Raises QuestionError if the file, the model or an option cannot be used.

    Recorded outputs, and what is known about them.

    `path` is the file ("-" for standard input). `model` is the model directory or hub id that made them. `terminators` are ids or texts that
    end a sequence. `max_new_tokens` is the limit in tokens, for records that give none. `ids` and `text` name the columns of token ids
    and of text; None finds them by their usual names.
    """
    from llmdoctor.gencfg.runaway.options import RunawayOptions
    from llmdoctor.gencfg.runaway.runaway import runaway_report

    return PrintableReport.of(
        runaway_report(
            RunawayOptions(path=path, model=model, terminators=_texts(terminators), max_new_tokens=max_new_tokens, ids=ids, text=text)
        )
    )


def gencfg_presets(*, name: str | None = None) -> PrintableReport:
    """Return the trainers that --preset takes, or what one of them does. Raises QuestionError for an unknown name or version.

    The trainer that `gencfg presets` describes; without a name it lists all of them.
    """
    from llmdoctor.gencfg.options import PresetsOptions
    from llmdoctor.gencfg.presets import presets_report

    return PrintableReport.of(presets_report(PresetsOptions(name=name)))


def mask_inspect(
    *,
    model: str,
    shape: str | None = None,
    lengths: str | None = None,
    pad: str | None = None,
    packed: str | None = None,
    image: str | None = None,
    backend: str | Sequence[str] = (),
    phase: str | None = None,
    past: int | None = None,
    cache: str | None = None,
    dtype: str | None = None,
    mask: str | None = None,
    input_ids: str | None = None,
    messages: str | None = None,
    weights: bool = False,
    budget: int | None = None,
    without: str | Sequence[str] = (),
    eos: tuple[int, ...] = (),
    mode: str = "plan",
    query: int | None = None,
) -> PrintableReport:
    """Return what each layer of the model receives for the inputs that `options` describe.

    Raises QuestionError if the model, the inputs or an option cannot be understood.

    The options that both commands have: which model, which inputs, which backends.

    `model` is a model directory, a hub id in the local cache, or `module:function`. `shape`, `lengths`, `packed`,
    `input_ids`, `messages` and `mask` describe the inputs, at most one of the first five. `without` names fields of the inputs file that are
    treated as absent; `eos` are token ids that end a packed document.

    The options of `mask inspect`: `mode` is plan or run, `query` the query whose keys are listed.
    """
    from llmdoctor.mask.inspect import inspect_report
    from llmdoctor.mask.options import MaskInspectOptions

    return PrintableReport.of(
        inspect_report(
            MaskInspectOptions(
                model=model,
                shape=shape,
                lengths=lengths,
                pad=pad,
                packed=packed,
                image=image,
                backend=_texts(backend),
                phase=phase,
                past=past,
                cache=cache,
                dtype=dtype,
                mask=mask,
                input_ids=input_ids,
                messages=messages,
                weights=weights,
                budget=budget,
                without=_texts(without),
                eos=eos,
                mode=mode,
                query=query,
            )
        )
    )


def mask_test(
    *,
    model: str,
    shape: str | None = None,
    lengths: str | None = None,
    pad: str | None = None,
    packed: str | None = None,
    image: str | None = None,
    backend: str | Sequence[str] = (),
    phase: str | None = None,
    past: int | None = None,
    cache: str | None = None,
    dtype: str | None = None,
    mask: str | None = None,
    input_ids: str | None = None,
    messages: str | None = None,
    weights: bool = False,
    budget: int | None = None,
    without: str | Sequence[str] = (),
    eos: tuple[int, ...] = (),
    static: bool = False,
    select: str | Sequence[str] = (),
    ignore: str | Sequence[str] = (),
) -> PrintableReport:
    """Return the findings of every MSK rule over the inputs that `options` describe, or over a small suite if they describe none.

    Raises QuestionError if the model, the inputs or an option cannot be understood.

    The options that both commands have: which model, which inputs, which backends.

    `model` is a model directory, a hub id in the local cache, or `module:function`. `shape`, `lengths`, `packed`,
    `input_ids`, `messages` and `mask` describe the inputs, at most one of the first five. `without` names fields of the inputs file that are
    treated as absent; `eos` are token ids that end a packed document.

    The options of `mask test`: `static` leaves out everything that runs the model, `select` and `ignore` are prefixes of rule codes.
    """
    from llmdoctor.mask.options import MaskTestOptions
    from llmdoctor.mask.test import test_report

    return PrintableReport.of(
        test_report(
            MaskTestOptions(
                model=model,
                shape=shape,
                lengths=lengths,
                pad=pad,
                packed=packed,
                image=image,
                backend=_texts(backend),
                phase=phase,
                past=past,
                cache=cache,
                dtype=dtype,
                mask=mask,
                input_ids=input_ids,
                messages=messages,
                weights=weights,
                budget=budget,
                without=_texts(without),
                eos=eos,
                static=static,
                select=_texts(select),
                ignore=_texts(ignore),
            )
        )
    )


def mem_compare(
    *,
    model: str,
    strategy: str | Sequence[str] = (),
    batch: int | None = None,
    seq_len: int | None = None,
    image: str | None = None,
    lengths: str | None = None,
    packed: str | None = None,
    attn: str | None = None,
    world_size: int | None = None,
    rank: int = 0,
    trainable: str | Sequence[str] = (),
    stage: str | None = None,
    lora: int | None = None,
    gradient_checkpointing: bool = False,
    without: str | Sequence[str] = (),
    static: bool = False,
    deepspeed: str | None = None,
    gpu_memory: str | None = None,
    measured: str | None = None,
) -> PrintableReport:
    """Predict every strategy, explain the differences, and set them beside what was measured.

    A setting that is not modelled is an error in the report, which lists what was read until then. Raises QuestionError if a file, a strategy
    or an option cannot be understood.

    What the commands about training memory have in common; None or an empty tuple for an option that was not given.

    `model` is a directory or a hub id in the local cache, `strategy` holds names or files, `image` is WIDTHxHEIGHT in pixels, `lengths` and
    `packed` are numbers of tokens separated by commas: of the sequences of a padded batch, of the documents in each sequence. `trainable`
    holds patterns of parameter names, `lora` is a rank, `without` holds keys that the configuration files are read without.
    `deepspeed` is the release of DeepSpeed to answer for.

    Options of `mem compare`: `gpu_memory` is a size such as 80GiB, `measured` a file that `mem measure` wrote.
    """
    from llmdoctor.mem.compare import compare_report
    from llmdoctor.mem.options import MemCompareOptions

    return PrintableReport.of(
        compare_report(
            MemCompareOptions(
                model=model,
                strategy=_texts(strategy),
                batch=batch,
                seq_len=seq_len,
                image=image,
                lengths=lengths,
                packed=packed,
                attn=attn,
                world_size=world_size,
                rank=rank,
                trainable=_texts(trainable),
                stage=stage,
                lora=lora,
                gradient_checkpointing=gradient_checkpointing,
                without=_texts(without),
                static=static,
                deepspeed=deepspeed,
                gpu_memory=gpu_memory,
                measured=measured,
            )
        )
    )


def mem_fit(
    *,
    model: str,
    strategy: str | Sequence[str] = (),
    batch: int | None = None,
    seq_len: int | None = None,
    image: str | None = None,
    lengths: str | None = None,
    packed: str | None = None,
    attn: str | None = None,
    world_size: int | None = None,
    rank: int = 0,
    trainable: str | Sequence[str] = (),
    stage: str | None = None,
    lora: int | None = None,
    gradient_checkpointing: bool = False,
    without: str | Sequence[str] = (),
    static: bool = False,
    deepspeed: str | None = None,
    gpu_memory: str = "",
) -> PrintableReport:
    """Search for the changes that make the one strategy of `options` fit into `gpu_memory`.

    Raises QuestionError if an option, the strategy or the model cannot be understood, MissingExtra without torch and transformers.

    What the commands about training memory have in common; None or an empty tuple for an option that was not given.

    `model` is a directory or a hub id in the local cache, `strategy` holds names or files, `image` is WIDTHxHEIGHT in pixels, `lengths` and
    `packed` are numbers of tokens separated by commas: of the sequences of a padded batch, of the documents in each sequence. `trainable`
    holds patterns of parameter names, `lora` is a rank, `without` holds keys that the configuration files are read without.
    `deepspeed` is the release of DeepSpeed to answer for.

    Options of `mem fit`: `gpu_memory` is the memory of each device, such as 24GiB.
    """
    from llmdoctor.mem.fit import fit_report
    from llmdoctor.mem.options import FitOptions

    return PrintableReport.of(
        fit_report(
            FitOptions(
                model=model,
                strategy=_texts(strategy),
                batch=batch,
                seq_len=seq_len,
                image=image,
                lengths=lengths,
                packed=packed,
                attn=attn,
                world_size=world_size,
                rank=rank,
                trainable=_texts(trainable),
                stage=stage,
                lora=lora,
                gradient_checkpointing=gradient_checkpointing,
                without=_texts(without),
                static=static,
                deepspeed=deepspeed,
                gpu_memory=gpu_memory,
            )
        )
    )


def mem_measure(
    *,
    model: str,
    strategy: str | Sequence[str] = (),
    batch: int | None = None,
    seq_len: int | None = None,
    image: str | None = None,
    lengths: str | None = None,
    packed: str | None = None,
    attn: str | None = None,
    world_size: int | None = None,
    rank: int = 0,
    trainable: str | Sequence[str] = (),
    stage: str | None = None,
    lora: int | None = None,
    gradient_checkpointing: bool = False,
    without: str | Sequence[str] = (),
    static: bool = False,
    deepspeed: str | None = None,
    output: str | None = None,
    steps: int = 3,
) -> PrintableReport:
    """Run real steps of every strategy and report what they held; a step that runs out of memory is a result.

    Raises QuestionError if a case cannot be run or its process is killed.

    What the commands about training memory have in common; None or an empty tuple for an option that was not given.

    `model` is a directory or a hub id in the local cache, `strategy` holds names or files, `image` is WIDTHxHEIGHT in pixels, `lengths` and
    `packed` are numbers of tokens separated by commas: of the sequences of a padded batch, of the documents in each sequence. `trainable`
    holds patterns of parameter names, `lora` is a rank, `without` holds keys that the configuration files are read without.
    `deepspeed` is the release of DeepSpeed to answer for.

    Options of `mem measure MODEL`: `output` is the file of records, `steps` the optimizer steps of each strategy.
    """
    from llmdoctor.mem.measure import measure_report
    from llmdoctor.mem.options import MeasureOptions

    return PrintableReport.of(
        measure_report(
            MeasureOptions(
                model=model,
                strategy=_texts(strategy),
                batch=batch,
                seq_len=seq_len,
                image=image,
                lengths=lengths,
                packed=packed,
                attn=attn,
                world_size=world_size,
                rank=rank,
                trainable=_texts(trainable),
                stage=stage,
                lora=lora,
                gradient_checkpointing=gradient_checkpointing,
                without=_texts(without),
                static=static,
                deepspeed=deepspeed,
                output=output,
                steps=steps,
            )
        )
    )


def mem_kvcache(*, model: str, batch: int = 1, length: int = 1024, cache: str = "dynamic", dtype: str | None = None) -> PrintableReport:
    """Return the key-value cache of `options.batch` sequences of `options.length` tokens.

    Raises QuestionError for a model or a cache that is not understood.

    Options of `mem kvcache`: `cache` is dynamic, static:N, gpt-fast:N or quantized:BITS; `dtype` is that of keys and values.
    """
    from llmdoctor.mem.kvcache import kvcache_report
    from llmdoctor.mem.options import KvcacheOptions

    return PrintableReport.of(kvcache_report(KvcacheOptions(model=model, batch=batch, length=length, cache=cache, dtype=dtype)))


def mem_oom(
    *,
    log: str,
    model: str = "",
    strategy: str | Sequence[str] = (),
    batch: int | None = None,
    seq_len: int | None = None,
    image: str | None = None,
    lengths: str | None = None,
    packed: str | None = None,
    attn: str | None = None,
    world_size: int | None = None,
    rank: int = 0,
    trainable: str | Sequence[str] = (),
    stage: str | None = None,
    lora: int | None = None,
    gradient_checkpointing: bool = False,
    without: str | Sequence[str] = (),
    static: bool = False,
    deepspeed: str | None = None,
) -> PrintableReport:
    """Explain the last out-of-memory message of a log, with MODEL and --strategy by the tensors of that model and batch.

    A log in which something else ran out of memory (the host, a library of CUDA, a serving engine) is explained by its own message. Raises
    QuestionError if the log cannot be read, holds no such message, or only messages that are cut short or cannot be true.

    What the commands about training memory have in common; None or an empty tuple for an option that was not given.

    `model` is a directory or a hub id in the local cache, `strategy` holds names or files, `image` is WIDTHxHEIGHT in pixels, `lengths` and
    `packed` are numbers of tokens separated by commas: of the sequences of a padded batch, of the documents in each sequence. `trainable`
    holds patterns of parameter names, `lora` is a rank, `without` holds keys that the configuration files are read without.
    `deepspeed` is the release of DeepSpeed to answer for.

    Options of `mem oom`: `log` is the file with the message; `model` is empty if no model was given.
    """
    from llmdoctor.mem.oom import oom_report
    from llmdoctor.mem.options import OomOptions

    return PrintableReport.of(
        oom_report(
            OomOptions(
                model=model,
                strategy=_texts(strategy),
                batch=batch,
                seq_len=seq_len,
                image=image,
                lengths=lengths,
                packed=packed,
                attn=attn,
                world_size=world_size,
                rank=rank,
                trainable=_texts(trainable),
                stage=stage,
                lora=lora,
                gradient_checkpointing=gradient_checkpointing,
                without=_texts(without),
                static=static,
                deepspeed=deepspeed,
                log=log,
            )
        )
    )


def sample_replay(
    *,
    logits: str | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    typical_p: float | None = None,
    top_h: float | None = None,
    epsilon_cutoff: float | None = None,
    eta_cutoff: float | None = None,
    repetition_penalty: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    penalty_last_n: int | None = None,
    logit_bias: Mapping[int, float] | None = None,
    suppress_tokens: tuple[int, ...] | None = None,
    min_tokens: int | None = None,
    stop_token_ids: tuple[int, ...] | None = None,
    do_sample: bool = True,
    tokens: str | None = None,
    claim: str | None = None,
    engine: str | None = None,
    model: str | None = None,
    prompt: str | None = None,
    sequence: int | None = None,
    step: int | None = None,
    rows: int = 8,
    alpha: float = 0.01,
    tolerance: float | None = None,
    dtype: str | None = None,
    versus: str | None = None,
    logprobs: str | None = None,
    images: str | Sequence[str] = (),
    eos: Sequence[int] = (),
    scores: bool | None = None,
    kind: str | None = None,
    without: str | Sequence[str] = (),
) -> PrintableReport:
    """Return the replay, judged. Raises QuestionError.

    What all sample commands share: `logits` is a file (or numbers), `settings` are the sampling parameters that options set.

    Options of `sample replay`; paths as given.

    `alpha` is the share of true claims that may be called inconsistent, `tolerance` a mass beyond the nucleus, `step` and `sequence` count
    from 0. `scores` is True for --scores, False for --raw; `kind` is that of listed log-probabilities.

    The sampling parameters of a call. None means "not set": the stage is off, whatever an engine's own default is.

    A value that an engine reads as off (top_k 0, top_p 1.0) is still set: another engine may refuse it.
    The ids of `suppress_tokens` are never drawn, those of `stop_token_ids` not among the first `min_tokens` tokens.
    """
    from llmdoctor.sample.options import ReplayOptions
    from llmdoctor.sample.replay import replay_report
    from llmdoctor.sample.types import SamplingParams

    return PrintableReport.of(
        replay_report(
            ReplayOptions(
                logits=logits,
                settings=SamplingParams(
                    temperature=temperature,
                    top_k=top_k,
                    top_p=top_p,
                    min_p=min_p,
                    typical_p=typical_p,
                    top_h=top_h,
                    epsilon_cutoff=epsilon_cutoff,
                    eta_cutoff=eta_cutoff,
                    repetition_penalty=repetition_penalty,
                    frequency_penalty=frequency_penalty,
                    presence_penalty=presence_penalty,
                    penalty_last_n=penalty_last_n,
                    logit_bias=logit_bias,
                    suppress_tokens=suppress_tokens,
                    min_tokens=min_tokens,
                    stop_token_ids=stop_token_ids,
                    do_sample=do_sample,
                ),
                tokens=tokens,
                claim=claim,
                engine=engine,
                model=model,
                prompt=prompt,
                sequence=sequence,
                step=step,
                rows=rows,
                alpha=alpha,
                tolerance=tolerance,
                dtype=dtype,
                versus=versus,
                logprobs=logprobs,
                images=_texts(images),
                eos=eos,
                scores=scores,
                kind=kind,
                without=_texts(without),
            )
        )
    )


def sample_compare(*, trainer: str, engine: str | None = None, temperature: float | None = None) -> PrintableReport:
    """Return the comparison of two sides. Raises QuestionError.

    Options of `sample compare`: the files of the two sides (without `engine`, `trainer` holds both); `temperature` is the requested one.
    """
    from llmdoctor.sample.compare import compare_report
    from llmdoctor.sample.options import SampleCompareOptions

    return PrintableReport.of(compare_report(SampleCompareOptions(trainer=trainer, engine=engine, temperature=temperature)))


def sample_engines(
    *,
    logits: str | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    typical_p: float | None = None,
    top_h: float | None = None,
    epsilon_cutoff: float | None = None,
    eta_cutoff: float | None = None,
    repetition_penalty: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    penalty_last_n: int | None = None,
    logit_bias: Mapping[int, float] | None = None,
    suppress_tokens: tuple[int, ...] | None = None,
    min_tokens: int | None = None,
    stop_token_ids: tuple[int, ...] | None = None,
    do_sample: bool = True,
    prompt: tuple[int, ...] = (),
    output: tuple[int, ...] = (),
    step: int = 0,
    model: str | None = None,
    defaults: bool = False,
    engines: str | Sequence[str] = (),
) -> PrintableReport:
    """Return one step's logits through every engine, or through those that are named. Raises QuestionError.

    What all sample commands share: `logits` is a file (or numbers), `settings` are the sampling parameters that options set.

    Options of `sample engines`: `context` holds the tokens in front of the step, `engines` the names (all if empty).

    The sampling parameters of a call. None means "not set": the stage is off, whatever an engine's own default is.

    A value that an engine reads as off (top_k 0, top_p 1.0) is still set: another engine may refuse it.
    The ids of `suppress_tokens` are never drawn, those of `stop_token_ids` not among the first `min_tokens` tokens.

    The tokens in front of a step: those of the prompt, and those that the call has produced.
    """
    from llmdoctor.sample.engines import engines_report
    from llmdoctor.sample.options import EnginesOptions
    from llmdoctor.sample.types import SamplingParams, TokenContext

    return PrintableReport.of(
        engines_report(
            EnginesOptions(
                logits=logits,
                settings=SamplingParams(
                    temperature=temperature,
                    top_k=top_k,
                    top_p=top_p,
                    min_p=min_p,
                    typical_p=typical_p,
                    top_h=top_h,
                    epsilon_cutoff=epsilon_cutoff,
                    eta_cutoff=eta_cutoff,
                    repetition_penalty=repetition_penalty,
                    frequency_penalty=frequency_penalty,
                    presence_penalty=presence_penalty,
                    penalty_last_n=penalty_last_n,
                    logit_bias=logit_bias,
                    suppress_tokens=suppress_tokens,
                    min_tokens=min_tokens,
                    stop_token_ids=stop_token_ids,
                    do_sample=do_sample,
                ),
                context=TokenContext(prompt=prompt, output=output),
                step=step,
                model=model,
                defaults=defaults,
                engines=_texts(engines),
            )
        )
    )


def sample_draw(
    *,
    logits: str | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    typical_p: float | None = None,
    top_h: float | None = None,
    epsilon_cutoff: float | None = None,
    eta_cutoff: float | None = None,
    repetition_penalty: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    penalty_last_n: int | None = None,
    logit_bias: Mapping[int, float] | None = None,
    suppress_tokens: tuple[int, ...] | None = None,
    min_tokens: int | None = None,
    stop_token_ids: tuple[int, ...] | None = None,
    do_sample: bool = True,
    probs: str | None = None,
    engine: str = "transformers",
    step: int = 0,
    count: int = 1000,
    seed: int = 0,
    only_counts: bool = False,
    sampler: str | None = None,
    draws: str | None = None,
    output: str | None = None,
    alpha: float = 0.01,
) -> PrintableReport:
    """Draw, or test a sampler or a file of draws. Raises QuestionError.

    What all sample commands share: `logits` is a file (or numbers), `settings` are the sampling parameters that options set.

    Options of `sample draw`: `count` draws with `seed`, or a `sampler` (module:function) or a file of `draws` to test.

    The sampling parameters of a call. None means "not set": the stage is off, whatever an engine's own default is.

    A value that an engine reads as off (top_k 0, top_p 1.0) is still set: another engine may refuse it.
    The ids of `suppress_tokens` are never drawn, those of `stop_token_ids` not among the first `min_tokens` tokens.
    """
    from llmdoctor.sample.draw import draw_report
    from llmdoctor.sample.options import DrawOptions
    from llmdoctor.sample.types import SamplingParams

    return PrintableReport.of(
        draw_report(
            DrawOptions(
                logits=logits,
                settings=SamplingParams(
                    temperature=temperature,
                    top_k=top_k,
                    top_p=top_p,
                    min_p=min_p,
                    typical_p=typical_p,
                    top_h=top_h,
                    epsilon_cutoff=epsilon_cutoff,
                    eta_cutoff=eta_cutoff,
                    repetition_penalty=repetition_penalty,
                    frequency_penalty=frequency_penalty,
                    presence_penalty=presence_penalty,
                    penalty_last_n=penalty_last_n,
                    logit_bias=logit_bias,
                    suppress_tokens=suppress_tokens,
                    min_tokens=min_tokens,
                    stop_token_ids=stop_token_ids,
                    do_sample=do_sample,
                ),
                probs=probs,
                engine=engine,
                step=step,
                count=count,
                seed=seed,
                only_counts=only_counts,
                sampler=sampler,
                draws=draws,
                output=output,
                alpha=alpha,
            )
        )
    )


def labels_inspect(
    *,
    model: str,
    data: str,
    trainer: str = "trl-sft",
    config: str | None = None,
    row: int | None = None,
    text_column: str | None = None,
    max_length: int | None = None,
    rows: int | None = None,
    without: str | Sequence[str] = (),
    transformers: str | None = None,
) -> PrintableReport:
    """Return the labels of each sequence that a trainer makes of a dataset.

    Raises QuestionError if the tokenizer, the rows or the settings cannot be read, or a setting is not known.

    The options of `labels inspect` and `labels audit`.

    `data` is a file of rows, `trainer` NAME or NAME@VERSION, `config` the trainer's own settings as JSON or YAML, `row` the one dataset row
    to show (from 0), `rows` the most rows that an audit reads, `without` keys of the configuration to answer without, `transformers` the
    release whose tokenizers are meant ("4.57.6", "5").
    """
    from llmdoctor.labels.inspect import inspect_report
    from llmdoctor.labels.options import LabelsOptions

    return PrintableReport.of(
        inspect_report(
            LabelsOptions(
                model=model,
                data=data,
                trainer=trainer,
                config=config,
                row=row,
                text_column=text_column,
                max_length=max_length,
                rows=rows,
                without=_texts(without),
                transformers=transformers,
            )
        )
    )


def labels_audit(
    *,
    model: str,
    data: str,
    trainer: str = "trl-sft",
    config: str | None = None,
    row: int | None = None,
    text_column: str | None = None,
    max_length: int | None = None,
    rows: int | None = None,
    without: str | Sequence[str] = (),
    transformers: str | None = None,
) -> PrintableReport:
    """Return the counts over all rows, in memory that does not grow with their number.

    The trainer's function runs over batches of 1,000 rows, as `datasets.map` hands them over. Raises QuestionError if the tokenizer, the rows
    or the settings cannot be read, or a setting is not known.

    The options of `labels inspect` and `labels audit`.

    `data` is a file of rows, `trainer` NAME or NAME@VERSION, `config` the trainer's own settings as JSON or YAML, `row` the one dataset row
    to show (from 0), `rows` the most rows that an audit reads, `without` keys of the configuration to answer without, `transformers` the
    release whose tokenizers are meant ("4.57.6", "5").
    """
    from llmdoctor.labels.audit import audit_report
    from llmdoctor.labels.options import LabelsOptions

    return PrintableReport.of(
        audit_report(
            LabelsOptions(
                model=model,
                data=data,
                trainer=trainer,
                config=config,
                row=row,
                text_column=text_column,
                max_length=max_length,
                rows=rows,
                without=_texts(without),
                transformers=transformers,
            )
        )
    )


def prompt_diff(
    *,
    model: str,
    messages: str | None = None,
    left: str = "trl-sft",
    left_kwargs: str | None = None,
    right: str = "vllm",
    right_kwargs: str | None = None,
    transformers: str | None = None,
) -> PrintableReport:
    """Return whether two sides build the same prompt, and why not.

    Without messages, the tokenizer of `model` is compared with that of the right side's directory. Raises QuestionError if a side, a file or
    the messages cannot be read, or a template raises.

    The options of `prompt diff`. Without `messages`, two tokenizer directories are compared.

    How one side of `prompt diff` builds its prompt.

    `name` is a builder ("trl-sft", "vllm", "template:FILE", "ids:FILE", "model:DIR" ...), `kwargs` are the chat template's own variables as JSON
    text ('{"enable_thinking": false}').
    """
    from llmdoctor.labels.options import PromptOptions, SideOptions
    from llmdoctor.labels.prompt_diff import prompt_diff_report

    return PrintableReport.of(
        prompt_diff_report(
            PromptOptions(
                model=model,
                messages=messages,
                left=SideOptions(name=left, kwargs=left_kwargs),
                right=SideOptions(name=right, kwargs=right_kwargs),
                transformers=transformers,
            )
        )
    )


def check_tree(
    *,
    paths: str | Sequence[str] = (".",),
    select: str | Sequence[str] = (),
    ignore: str | Sequence[str] = (),
    baseline: str | None = None,
    write_baseline: str | None = None,
    fix: bool = False,
    unsafe_fixes: bool = False,
    allow_nothing: bool = False,
    stdin_filename: str | None = None,
) -> PrintableReport:
    """Return the findings of every static rule in `options.paths`.

    `settings` are those of the project, which are read if they are not given. With `options.fix` the files are changed first, and the report
    is about what is left. Raises QuestionError if a path or the baseline does not exist, or the options contradict each other.

    The options of `check`.

    `paths` are folders and files. `select` and `ignore` are prefixes of rule codes, as the user wrote them. `baseline` is the file of the
    findings that are accepted, `write_baseline` the file to write them to. `fix` changes the files, `unsafe_fixes` also makes the fixes
    that change a behaviour on which a user may rely. `allow_nothing` accepts a tree without anything to check. `stdin_filename` is the file
    whose content an editor passes on standard input: it is the only path, and it need not exist.
    """
    from llmdoctor.check.check import check_report
    from llmdoctor.check.options import CheckOptions

    return PrintableReport.of(
        check_report(
            CheckOptions(
                paths=_texts(paths),
                select=_texts(select),
                ignore=_texts(ignore),
                baseline=baseline,
                write_baseline=write_baseline,
                fix=fix,
                unsafe_fixes=unsafe_fixes,
                allow_nothing=allow_nothing,
                stdin_filename=stdin_filename,
            )
        )
    )


def look_at(*, path: str = ".", versions: bool = False) -> PrintableReport:
    """Return what `options.path` is. Raises QuestionError if nothing of that name can be read.

    What `look` was asked: `path` is a file, a folder or a hub id in the local cache.

    `versions` adds the versions of the installed libraries and the names of the GPUs, as `llmdoctor` without a command shows them.
    """
    from llmdoctor.look.look import look_report
    from llmdoctor.look.options import LookOptions

    return PrintableReport.of(look_report(LookOptions(path=path, versions=versions)))


def environment() -> PrintableReport:
    """Return the versions, the machine and the environment variables that matter for a bug report."""
    from llmdoctor.look.env import env_report

    return PrintableReport.of(env_report())


def explain_rule(*, code: str | None = None) -> PrintableReport:
    """Return the page of the rule `code` (its code or its name), the list of a family such as GEN, or without `code` the list of all rules.

    Raises QuestionError if there is no such rule or family.
    """
    from llmdoctor.rules import rule_report

    return PrintableReport.of(rule_report(code))

"""Every command as a function: options in, a report out.

Written by docs/generate_api.py from the options of each command; `make docs` renews it. A function raises QuestionError if its question cannot be
answered (exit 2 of the command); the sentence is the error's text.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmdoctor.printable import PrintableReport

__all__ = (
    "environment",
    "gencfg_check",
    "gencfg_diff",
    "gencfg_presets",
    "gencfg_show",
    "look_at",
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
    """Return the findings of every GEN and DIR rule over every directory; a folder without a model stands for its subfolders.

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


def gencfg_presets(*, name: str | None = None) -> PrintableReport:
    """Return the trainers that --preset takes, or what one of them does. Raises QuestionError for an unknown name or version.

    The trainer that `gencfg presets` describes; without a name it lists all of them.
    """
    from llmdoctor.gencfg.options import PresetsOptions
    from llmdoctor.gencfg.presets import presets_report

    return PrintableReport.of(presets_report(PresetsOptions(name=name)))


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

"""The settings of a check: those of the project, overridden by the options."""

from __future__ import annotations

import json
import os
from dataclasses import replace

from llmdoctor.check.options import CheckOptions
from llmdoctor.check.results import CheckSettings
from llmdoctor.core.document import Table
from llmdoctor.core.report import Report, Verdict
from llmdoctor.files.project import ProjectSettings, load_settings


def read_settings(options: CheckOptions) -> ProjectSettings:
    """Return the settings that hold for `options`.

    The project settings are those of the working directory if every path is below it, else those nearest to the paths. Raises QuestionError
    if they cannot be read, or name a rule or a version that does not exist.
    """
    from llmdoctor.rules import code_prefixes

    settings = _of_project(options.paths)
    where = f"{settings.source}: [tool.llmdoctor]"
    if settings.transformers is not None:
        from llmdoctor.gencfg.versions import parse

        parse(settings.transformers)
    return replace(
        settings,
        select=code_prefixes(options.select, "--select") or code_prefixes(settings.select, f"{where} select"),
        ignore=(*code_prefixes(settings.ignore, f"{where} ignore"), *code_prefixes(options.ignore, "--ignore")),
        per_path={pattern: code_prefixes(codes, f"{where} per-path-ignores.{pattern}") for pattern, codes in settings.per_path.items()},
    )


def _of_project(paths: tuple[str, ...]) -> ProjectSettings:
    places = [os.path.abspath(path if os.path.isdir(path) else os.path.dirname(path) or ".") for path in paths]
    here = os.getcwd()
    settings = ProjectSettings()
    if all(place == here or place.startswith(here.rstrip(os.sep) + os.sep) for place in places):
        settings = load_settings(here)
    return settings if settings.source is not None else load_settings(os.path.commonpath(places))


def accepted_baseline(options: CheckOptions, settings: ProjectSettings) -> str | None:
    """Return the baseline file to read; None without one, and if one is written."""
    if options.baseline is not None or options.write_baseline is not None or settings.baseline is None:
        return options.baseline
    return os.path.join(settings.root, settings.baseline)


def settings_report(options: CheckOptions, fail_on: str | None = None) -> Report:
    """Return the settings that a check with `options` follows, and their file; nothing is checked. `fail_on` is the value of --fail-on."""
    from llmdoctor.gencfg.calls import default_version

    settings = read_settings(options)
    values: CheckSettings = {
        "select": list(settings.select),
        "ignore": list(settings.ignore),
        "exclude": list(settings.exclude),
        "fail-on": fail_on or settings.fail_on or "error",
        "baseline": accepted_baseline(options, settings),
        "transformers": settings.transformers or default_version(),
        "gpu-memory": settings.gpu_memory,
        "per-path-ignores": {pattern: list(codes) for pattern, codes in settings.per_path.items()},
    }
    rows = tuple((name, json.dumps(value)) for name, value in values.items())
    where = settings.source or "defaults, because no pyproject.toml here or above has a table [tool.llmdoctor]"
    return Report(
        "check",
        subject={"settings": settings.source},
        result={"subjects": [], "settings": values},
        document=(Table(("setting", "value"), rows),),
        verdict=Verdict(f"Settings: {where}."),
    )

"""The one table of all commands: the function that answers, its options, the type of its result, and its name in the Python API.

Names are given as "module:name" below llmdoctor, so that reading the table imports nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command.

    `function` is its name in the Python API, `report` the function from options to a Report, `options` its dataclass ("" if the command has none),
    `result` the TypedDict of `Report.result`.
    """

    name: str
    function: str
    report: str
    options: str
    result: str


def _command(name: str, report: str, options: str, result: str, function: str = "") -> Command:
    return Command(name=name, function=function or name.replace(" ", "_"), report=report, options=options, result=result)


# `check`, `look` and the like are packages, so that the functions of these commands have names of their own.
COMMANDS = (
    _command("gencfg show", "gencfg.show:show_report", "gencfg.options:GencfgOptions", "gencfg.results:ShowResult"),
    _command("gencfg diff", "gencfg.diff:diff_report", "gencfg.options:DiffOptions", "gencfg.results:DiffResult"),
    _command("gencfg check", "gencfg.check:check_report", "gencfg.options:GencfgCheckOptions", "gencfg.results:GencfgCheckResult"),
    _command("gencfg trace", "gencfg.trace.trace:trace_report", "gencfg.trace.options:TraceOptions", "gencfg.trace.results:TraceResult"),
    _command(
        "gencfg runaway",
        "gencfg.runaway.runaway:runaway_report",
        "gencfg.runaway.options:RunawayOptions",
        "gencfg.runaway.results:RunawayResult",
    ),
    _command("gencfg presets", "gencfg.presets:presets_report", "gencfg.options:PresetsOptions", "gencfg.results:PresetsResult"),
    _command("mask inspect", "mask.inspect:inspect_report", "mask.options:MaskInspectOptions", "mask.results:MaskInspectResult"),
    _command("mask test", "mask.test:test_report", "mask.options:MaskTestOptions", "mask.results:MaskTestResult"),
    _command("mem compare", "mem.compare:compare_report", "mem.options:MemCompareOptions", "mem.results:MemCompareResult"),
    _command("mem fit", "mem.fit:fit_report", "mem.options:FitOptions", "mem.results:FitResult"),
    _command("mem measure", "mem.measure:measure_report", "mem.options:MeasureOptions", "mem.results:MeasureResult"),
    _command("mem kvcache", "mem.kvcache:kvcache_report", "mem.options:KvcacheOptions", "mem.results:KvcacheResult"),
    _command("mem oom", "mem.oom:oom_report", "mem.options:OomOptions", "mem.results:OomResult"),
    _command("sample replay", "sample.replay:replay_report", "sample.options:ReplayOptions", "sample.results:ReplayResult"),
    _command(
        "sample compare", "sample.compare:compare_report", "sample.options:SampleCompareOptions", "sample.results:SampleCompareResult"
    ),
    _command("sample engines", "sample.engines:engines_report", "sample.options:EnginesOptions", "sample.results:EnginesResult"),
    _command("sample draw", "sample.draw:draw_report", "sample.options:DrawOptions", "sample.results:DrawResult"),
    _command("labels inspect", "labels.inspect:inspect_report", "labels.options:LabelsOptions", "labels.results:LabelsInspectResult"),
    _command("labels audit", "labels.audit:audit_report", "labels.options:LabelsOptions", "labels.results:AuditResult"),
    _command("prompt diff", "labels.prompt_diff:prompt_diff_report", "labels.options:PromptOptions", "labels.results:PromptDiffResult"),
    _command("check", "check.check:check_report", "check.options:CheckOptions", "check.results:CheckResult", "check_tree"),
    _command("look", "look.look:look_report", "look.options:LookOptions", "look.results:LookResult", "look_at"),
    _command("env", "look.env:env_report", "", "look.results:EnvResult", "environment"),
    _command("rule", "rules:rule_report", "", "rules:RuleResult", "explain_rule"),
)


def load(name: str) -> Any:
    """Return the object "module:name" below llmdoctor; None if the module or the name does not exist."""
    module, _, attribute = name.partition(":")
    path = "llmdoctor"
    for part in module.split("."):
        path = f"{path}.{part}"
        if find_spec(path) is None:
            return None
    return getattr(import_module(path), attribute, None)

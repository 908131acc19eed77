"""PYC016: trainers of trl that take the policy's eos_token_id away.

Read in trl 0.9.2 to 1.12.0: PPOv2Trainer, PPOTrainer from 0.12 and RLOOTrainer up to 0.21 set `generation_config.eos_token_id = None` as they are
created; from 0.14, PPOTrainer sets args.stop_token_id, or the tokenizer's eos if stop_token is "eos" (trainer/ppo_trainer.py:137-143 of 0.15.0,
rloo_trainer.py:105). tests/callsites/test_trainers.py compares these releases with those of gencfg's presets.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from llmdoctor.callsites.dicts import entry, passed_names, unpacked
from llmdoctor.callsites.module import Module, Scope
from llmdoctor.callsites.names import called, dotted, is_literal, keyword, last
from llmdoctor.callsites.rules import EOS_TAKEN
from llmdoctor.callsites.types import Pitfall
from llmdoctor.core.finding import Severity
from llmdoctor.core.release import release

STOPS_SINCE = "0.14.0"  # the first release in which stop_token reaches PPOTrainer's generate()
_STOPS = ("stop_token", "stop_token_id")
_OLDER = frozenset({"config", "policy", "ref_policy"})  # parameters of releases before 0.13 (PPO) and before 0.22 (RLOO)
_PARSERS = ("parse_args_into_dataclasses", "parse_args_and_config", "parse_dict", "parse_json_file", "parse_yaml_file")


def find(module: Module, path: str) -> Iterator[Pitfall]:
    """Yield each trainer that is created without a stop token; `path` is the file, whose repository may pin a release of trl."""
    if not module.imports("trl"):
        return
    for scope in module.scopes:
        for call in scope.calls:
            name, names = _trainer(call, module), passed_names(call, scope, module)
            if name is None or names is None or not _takes_eos_away(name, names) or _is_given_back(module):
                continue
            arguments = keyword(call, "args") or keyword(call, "config")
            stop = "unknown" if arguments is None else _stop_of(arguments, call, scope, module)
            older = name != "PPOTrainer" or bool(_OLDER & names) or _is_older(path)
            yield from _finding(name, call, stop, older=older)


def _trainer(call: ast.Call, module: Module) -> str | None:
    origin = module.origin(call).split(".")
    return origin[-1] if origin[0] == "trl" and origin[-1] in ("PPOTrainer", "PPOv2Trainer", "RLOOTrainer") else None


def _takes_eos_away(name: str, names: set[str]) -> bool:
    """Return whether the arguments are those of a release that does: PPO up to 0.11 and RLOO from 0.22 have no reward model and no policy."""
    return bool(names & {"policy", "ref_policy"}) if name == "RLOOTrainer" else bool(names & {"reward_model", "value_model"})


def _is_given_back(module: Module) -> bool:
    """Return whether the file sets a stop token, or an eos_token_id of a generation config, by an assignment."""
    given = [each.target for each in module.assignments() if isinstance(each.target, ast.Attribute) and not is_literal(each.value, None)]
    if any(target.attr in _STOPS or (target.attr == "eos_token_id" and last(target.value).endswith("config")) for target in given):
        return True
    calls = (call for scope in module.scopes for call in scope.calls if called(call) == "setattr" and len(call.args) == 3)
    return any(is_literal(call.args[1], name) for call in calls for name in (*_STOPS, "eos_token_id"))


def _stop_of(arguments: ast.expr, call: ast.Call, scope: Scope, module: Module) -> str:
    """Return what the trainer's arguments say of a stop token: "none", "set", "parsed" (by the command line) or "unknown"."""
    made = module.meaning(arguments, call, scope) or arguments
    if called(made) in _PARSERS or _is_parsed(arguments, scope):
        return "parsed"
    if not isinstance(made, ast.Call) or not module.origin(made).startswith("trl."):
        return "unknown"
    names = passed_names(made, scope, module)
    if names is None:
        return "unknown"
    parts = (made, *(inner for _, inner in unpacked(made, scope, module) if inner is not None))
    values = [entry(part, name) for part in parts for name in _STOPS]
    return "set" if any(value is not None and not is_literal(value, None) for value in values) else "none"


def _is_parsed(arguments: ast.expr, scope: Scope) -> bool:
    """Return whether a name is one of several that a parser's call gives: script_args, training_args = parser.parse_args_into_dataclasses()."""
    name = dotted(arguments)
    parsed = (each.target for each in scope.assignments if called(each.value) in _PARSERS and isinstance(each.target, ast.Tuple))
    return name is not None and any(name in map(dotted, target.elts) for target in parsed)


def _is_older(path: str) -> bool:
    """Return whether the repository pins a release of trl in which stop_token does not reach generate(), or has one installed."""
    from llmdoctor.configs.versions import version_of

    return release(version_of("trl", known=(STOPS_SINCE,), near=path).version) < release(STOPS_SINCE)


def _finding(name: str, call: ast.Call, stop: str, *, older: bool) -> Iterator[Pitfall]:
    config = name.replace("Trainer", "Config")
    if stop == "none":
        text = f"{name} sets the policy's eos_token_id to None, and {config} has no stop_token: every response runs to response_length"
        yield Pitfall(EOS_TAKEN, call, text)
    elif stop == "set" and older:
        text = (
            f"{name} sets the policy's eos_token_id to None: every response runs to response_length and is cut at the stop token afterwards"
        )
        yield Pitfall(EOS_TAKEN, call, text, severity=Severity.INFO)
    elif stop == "parsed":
        text = f"{name} sets the policy's eos_token_id to None unless the command line has --stop_token eos: every response runs to response_length"
        yield Pitfall(EOS_TAKEN, call, text, severity=Severity.INFO)

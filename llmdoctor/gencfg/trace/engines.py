"""Rollouts that do not go through generate(): vLLM's SamplingParams, in this process or behind TRL's client."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from llmdoctor.attach.session import Session
from llmdoctor.gencfg.trace.sites import caller

_PLUMBING = frozenset({"vllm", "contextlib", "llmdoctor", "msgspec", "torch"})
LIMIT = 1000


def watch_engines(session: Session) -> None:
    """Record each SamplingParams that is made (vllm/sampling_params.py), and what TRL's client asks a vLLM server for."""
    session.hook.after("vllm.sampling_params", lambda module: _watch_params(session, module))
    for name in ("trl.extras.vllm_client", "trl.generation.vllm_client"):
        session.hook.after(name, lambda module: _watch_client(session, module))


def _watch_params(session: Session, module: ModuleType) -> None:
    """SamplingParams is a msgspec struct, whose __post_init__ calls _verify_args by name in every release; that one can be replaced."""
    kind = module.SamplingParams
    verify = kind._verify_args
    count = 0

    @functools.wraps(verify)
    def _verify_args(params: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count <= LIMIT:
            with session.guard("SamplingParams"):
                fields = {name: getattr(params, name, None) for name in kind.__struct_fields__ if not name.startswith("_")}
                _write(session, "vllm.SamplingParams", fields)
        return verify(params, *args, **kwargs)

    session.patches.set(kind, "_verify_args", _verify_args)


def _watch_client(session: Session, module: ModuleType) -> None:
    kind = module.VLLMClient
    ask = kind.generate

    @functools.wraps(ask)
    def generate(client: Any, *args: Any, **kwargs: Any) -> Any:
        with session.guard("VLLMClient.generate"):
            _write(session, "trl VLLMClient.generate", {name: value for name, value in kwargs.items() if name not in ("prompts", "images")})
        return ask(client, *args, **kwargs)

    session.patches.set(kind, "generate", generate)


def _write(session: Session, what: str, fields: dict[str, Any]) -> None:
    site, stack = caller(lambda _, package: package in _PLUMBING)
    params = {name: value for name, value in fields.items() if value is not None}
    session.write("vllm", what=what, sampling_params=params, **site.fields(), source=site.source, stack=stack)

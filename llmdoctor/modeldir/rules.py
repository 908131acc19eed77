"""The DIR rules about a model directory: its chat template, its own code, an adapter's base model. files/rules.py has those about files."""

from __future__ import annotations

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule, declared

TEMPLATE_SYNTAX = Rule(
    code="DIR008",
    name="template-syntax",
    severity=Severity.ERROR,
    summary="The chat template is not valid Jinja.",
    reason="apply_chat_template() raises on the first message.",
    bad="{% for message in messages %}{{ message.content }}",
    good="{% for message in messages %}{{ message.content }}{% endfor %}",
    fix="Correct the template at the line given.",
)
TEMPLATE_LIMITS = Rule(
    code="DIR009",
    name="template-limits",
    severity=Severity.ERROR,
    summary="The chat template takes more time or memory than the limit.",
    reason="It was rendered in a sandbox and stopped. A server that renders it for each request would hang.",
    bad="{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    good="loops over messages and tools only",
    fix="Do not use the template.",
)
REMOTE_CODE = Rule(
    code="DIR010",
    name="remote-code",
    severity=Severity.INFO,
    summary="config.json names classes of the directory's own (auto_map), which trust_remote_code=True imports.",
    reason="llmdoctor never imports them, so it does not know what they do: a remote chat() may pass its own stop ids, a remote generate() may have its own loop.",
    bad='{"auto_map": {"AutoModelForCausalLM": "modeling_x.XForCausalLM"}}',
    good="a model class that transformers has",
    fix="Read the code before you trust it.",
)
MISSING_BASE = Rule(
    code="DIR011",
    name="base-not-here",
    severity=Severity.WARNING,
    summary="An adapter's base model is neither a local path nor in the hub cache.",
    reason="The config.json and generation_config.json of a call come from the base model, so the call cannot be judged without them.",
    bad='{"base_model_name_or_path": "org/model"}   and no such model in the cache',
    good="the same with the base model in the cache",
    fix="Download the base model, or set HF_HUB_CACHE to the cache that has it.",
)
RULES = declared(globals())

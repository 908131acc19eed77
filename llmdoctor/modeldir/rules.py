"""The DIR rules about a model directory: its chat template, its own code, an adapter's base model. files/rules.py has those about files."""

from __future__ import annotations

from llmdoctor.core.finding import Severity
from llmdoctor.core.rule import Rule

TEMPLATE_SYNTAX = Rule(
    "DIR008",
    "template-syntax",
    Severity.ERROR,
    "The chat template is not valid Jinja.",
    "apply_chat_template() raises on the first message.",
    "{% for message in messages %}{{ message.content }}",
    "{% for message in messages %}{{ message.content }}{% endfor %}",
    "Correct the template at the line given.",
)
TEMPLATE_LIMITS = Rule(
    "DIR009",
    "template-limits",
    Severity.ERROR,
    "The chat template takes more time or memory than the limit.",
    "It was rendered in a sandbox and stopped. A server that renders it for each request would hang.",
    "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "loops over messages and tools only",
    "Do not use the template.",
)
REMOTE_CODE = Rule(
    "DIR010",
    "remote-code",
    Severity.INFO,
    "config.json names classes of the directory's own (auto_map), which trust_remote_code=True imports.",
    "llmdoctor never imports them, so it does not know what they do: a remote chat() may pass its own stop ids, a remote generate() may have its own loop.",
    '{"auto_map": {"AutoModelForCausalLM": "modeling_x.XForCausalLM"}}',
    "a model class that transformers has",
    "Read the code before you trust it.",
)
MISSING_BASE = Rule(
    "DIR011",
    "base-not-here",
    Severity.WARNING,
    "An adapter's base model is neither a local path nor in the hub cache.",
    "The config.json and generation_config.json of a call come from the base model, so the call cannot be judged without them.",
    '{"base_model_name_or_path": "org/model"}   and no such model in the cache',
    "the same with the base model in the cache",
    "Download the base model, or set HF_HUB_CACHE to the cache that has it.",
)
RULES = (TEMPLATE_SYNTAX, TEMPLATE_LIMITS, REMOTE_CODE, MISSING_BASE)

"""What ends an answer in one model directory: its chat template rendered in a worker process."""

from __future__ import annotations

from llmdoctor.core.finding import Finding
from llmdoctor.gencfg.terminator import Messages, Terminator, find_terminator
from llmdoctor.modeldir.directory import ModelDir
from llmdoctor.modeldir.template import TEMPLATE_RULES, Rendering, TemplateWorker, template_problem


def terminator_of(directory: ModelDir, worker: TemplateWorker) -> tuple[Terminator | None, tuple[Finding, ...]]:
    """Return what ends an answer, and what is wrong with the template (DIR008 for its syntax, DIR009 for its time and memory)."""
    template = directory.chat_template
    if template is None:
        return None, ()
    failures: dict[str, Rendering] = {}

    def render(messages: Messages) -> str | None:
        rendering = worker.render(template, messages)
        if rendering.error in TEMPLATE_RULES:
            failures[rendering.error] = rendering
        return rendering.text

    terminator = find_terminator(render, directory.tokenizer.special_ids(), directory.tokenizer.id_of)
    return terminator, tuple(template_problem(template, failure) for failure in failures.values())

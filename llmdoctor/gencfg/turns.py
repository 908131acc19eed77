"""What ends an answer in one model directory: its chat template, rendered in a worker process."""

from __future__ import annotations

from llmdoctor.core.finding import Finding
from llmdoctor.gencfg.terminator import TemplateVariables, Terminator, find_terminator
from llmdoctor.modeldir.directory import ModelDir
from llmdoctor.modeldir.template import TEMPLATE_RULES, ChatTemplate, Rendering, TemplateWorker, template_problem
from llmdoctor.modeldir.tokenizer import Tokenizer


def terminator_of(directory: ModelDir, worker: TemplateWorker) -> tuple[Terminator | None, tuple[Finding, ...]]:
    """Return what ends an answer, and what is wrong with the template (DIR008 for its syntax, DIR009 for its time and memory)."""
    template = directory.chat_template
    return (None, ()) if template is None else terminator_in(template, directory.tokenizer, worker)


def terminator_in(template: ChatTemplate, tokenizer: Tokenizer, worker: TemplateWorker) -> tuple[Terminator | None, tuple[Finding, ...]]:
    """Return what ends an answer in a chat template with the tokens of a tokenizer, and what is wrong with the template."""
    failures: dict[str, Rendering] = {}

    def render(conversations: list[TemplateVariables]) -> list[str | None]:
        renderings = worker.render_many(template, conversations)
        failures.update({rendering.error: rendering for rendering in renderings if rendering.error in TEMPLATE_RULES})
        return [rendering.text for rendering in renderings]

    eos = tokenizer.special("eos_token")
    terminator = find_terminator(render, tokenizer.special_ids(), tokenizer.id_of, tokenizer.added, eos.token if eos is not None else None)
    return terminator, tuple(template_problem(template, failure) for failure in failures.values())

"""Texts filled in from a shape are those of a whole rendering, for templates that only write contents and for those that look into them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from llmdoctor.labels.shapes import TalkShapes, key_of
from llmdoctor.modeldir.template import ChatTemplate, TemplateWorker

HEAD = "{%- for m in messages %}{{- '<' + m.role + '>' }}"
END = "{{- '</>' }}{%- endfor %}"
WRITES = {
    "plain": HEAD + "{{- m.content }}" + END,
    "or": HEAD + "{{- (m['content'] or 'nothing') ~ eos_token }}" + END,
    "trim": HEAD + "{{- m.content | trim + '\\n' }}" + END,
    "strips": HEAD + "{{- m.content.lstrip() }}{{ '|' ~ m['content'].rstrip() }}" + END,
    "tests": HEAD + "{%- if m.content is string and m.content is defined and m.content is not none %}{{- m.content }}{%- endif %}" + END,
    "macro": "{%- macro w(t) %}{{- '[' ~ t ~ ']' }}{%- endmacro %}" + HEAD + "{{- w(m.content) }}" + END,
    "set": "{%- set s = namespace(t='') %}" + HEAD + "{%- set s.t = s.t + m.content %}" + END + "{{- s.t }}",
    "select": "{%- for m in messages | selectattr('role', 'equalto', 'user') | list %}{{- m.content }}{{ loop.last }}{%- endfor %}",
    "first": "{%- if messages[0].role == 'system' %}{{- messages[0].content }}{%- set messages = messages[1:] %}{%- endif %}"
    + HEAD
    + "{{- m.content }}"
    + END,
    "generation": HEAD + "{% generation %}{{- m.content + eos_token }}{% endgeneration %}" + END,
    "inside": HEAD + "{% generation %}{{- ' ' + m.content | trim }}{% endgeneration %}{{ m.content }}" + END,
    "twice": HEAD + "{{- m.content ~ m.content }}" + END,
}
LOOKS = {
    "in": HEAD + "{%- if 'a' in m.content %}A{%- endif %}{{- m.content }}" + END,
    "split": HEAD + "{{- m.content.split('a')[-1] }}" + END,
    "length": HEAD + "{{- m.content | length }}" + END,
    "equal": HEAD + "{%- if m.content == 'a' %}A{%- else %}{{- m.content }}{%- endif %}" + END,
    "starts": HEAD + "{%- if m.content.startswith('a') %}A{%- endif %}" + END,
    "slice": HEAD + "{{- m.content[:1] }}" + END,
    "json": HEAD + "{{- m | tojson }}" + END,
    "replace": HEAD + "{{- m.content | replace('a', 'b') }}" + END,
    "upper": HEAD + "{{- m.content | upper }}" + END,
    "loop": HEAD + "{%- for c in m.content %}{{- c ~ ',' }}{%- endfor %}" + END,
    "strip of more": HEAD + "{{- (' ' + m.content) | trim }}" + END,
    "strip of a join": HEAD + "{{- (m.content ~ ' ').strip() }}" + END,
    "strip of a block": HEAD + "{%- set x %} {{ m.content }} {% endset %}{{- x | trim }}" + END,
    "strip of a macro": "{%- macro w(t) %} {{ t }}{%- endmacro %}" + HEAD + "{{- w(m.content) | trim }}" + END,
    "strip characters": HEAD + "{{- m.content.strip('a') }}" + END,
    "filter block": HEAD + "{%- filter upper %}{{ m.content }}{%- endfilter %}" + END,
    "map": "{{- messages | map(attribute='content') | join('-') }}",
    "format": HEAD + "{{- '%5s' % m.content }}" + END,
    "str format": HEAD + "{{- '{:>5}'.format(m.content) }}" + END,
    "changed": "{%- for m in messages %}{%- if loop.changed(m.content) %}{{- m.content }}{%- endif %}{%- endfor %}",
    "grouped": "{%- for k, v in messages | groupby('content') %}{{- k }}{%- endfor %}",
    "number": HEAD + "{{- m.content | int(7) }}" + END,
    "times": HEAD + "{{- m.content * 2 }}" + END,
    "raise": HEAD + "{{- raise_exception(m.content) }}" + END,
    "sorted": "{%- for m in messages | sort(attribute='content') %}{{- m.content }}{%- endfor %}",
    "inside a literal": HEAD + "{%- if m.content in 'a b' %}A{%- endif %}{{- m.content }}" + END,
}
TEXTS = ("a", "b a", " a", "b ", "", "banana", "\na\n", "<user>", "1", "\ue0000\ue001", "{{ x }}", "é")


@pytest.fixture(scope="module")
def worker() -> Iterator[TemplateWorker]:
    with TemplateWorker() as worker:
        yield worker


def talks(seed: int, count: int) -> Iterator[list[dict[str, Any]]]:
    draw = random.Random(seed)
    for _ in range(count):
        roles = draw.choice((("user", "assistant"), ("system", "user", "assistant"), ("user",)))
        yield [{"role": role, "content": draw.choice(TEXTS)} for role in roles]


def agreeing(worker: TemplateWorker, source: str) -> int:
    """Return how many of 40 conversations with a content were filled in; each must be what the whole rendering gives."""
    shapes, template, filled = TalkShapes(), ChatTemplate("t", source, "t"), 0
    given = {"eos_token": "</s>"}
    for talk in talks(len(source), 40):
        made = shapes.render(worker, template, talk, given, spans=True)
        if made is not None:
            filled += any(one["content"] for one in talk)
            assert made == worker.render(template, talk, True, **given)
    return filled


@pytest.mark.parametrize("source", WRITES.values(), ids=WRITES)
def test_a_template_that_only_writes_contents_is_filled_in(worker: TemplateWorker, source: str) -> None:
    assert agreeing(worker, source) > 10


@pytest.mark.parametrize("source", LOOKS.values(), ids=LOOKS)
def test_a_template_that_looks_into_contents_is_rendered_as_a_whole(worker: TemplateWorker, source: str) -> None:
    assert agreeing(worker, source) == 0


def test_messages_with_more_than_texts_and_blanks_have_no_shape() -> None:
    assert key_of([{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]) == (("user", True), ("assistant", False))
    for odd in ({"role": "user", "content": " "}, {"role": "user"}, {"role": "user", "content": None}, {"role": 1, "content": "a"}, "a"):
        assert key_of([odd]) is None
    assert key_of([{"role": "user", "content": "a", "name": "b"}]) is None


def test_other_variables_are_another_shape(worker: TemplateWorker) -> None:
    shapes, template = TalkShapes(), ChatTemplate("t", WRITES["or"], "t")
    talk = [{"role": "user", "content": "a"}]
    for eos in ("</s>", "<end>"):
        shapes.render(worker, template, talk, {"eos_token": eos}, spans=False)
        made = shapes.render(worker, template, talk, {"eos_token": eos}, spans=False)
        assert made is not None
        assert made.text == f"<user>a{eos}</>"

"""Chat templates: which one counts, what it renders to, and that none can hang, leak or leave something behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.modeldir.directory import ModelDir
from llmdoctor.modeldir.template import ChatTemplate, Rendering, TemplateWorker

MESSAGES = [{"role": "user", "content": "Hi <b> é 😀"}, {"role": "assistant", "content": "  Hello  "}]


@pytest.fixture(scope="module")
def worker() -> Iterator[TemplateWorker]:
    with TemplateWorker() as worker:
        yield worker


def template(source: str, **variables: str) -> ChatTemplate:
    return ChatTemplate("default", source, "x.jinja", None, variables)


def rendered(worker: TemplateWorker, source: str, messages: Any = MESSAGES, **variables: Any) -> Rendering:
    return worker.render(template(source), messages, **variables)


def write(path: Path, **files: Any) -> ModelDir:
    path.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (path / name.replace("__", ".")).write_text(value if isinstance(value, str) else json.dumps(value))
    return ModelDir(str(path), "model")


def test_precedence_of_the_sources(tmp_path: Path) -> None:
    files: dict[str, Any] = {"chat_template__json": {"chat_template": "processor"}}
    assert write(tmp_path, **files).chat_template.source == "processor"  # type: ignore[union-attr]
    files["tokenizer_config__json"] = {"chat_template": "config"}
    assert write(tmp_path, **files).chat_template.source == "config"  # type: ignore[union-attr]
    files["chat_template__jinja"] = "file"
    found = write(tmp_path, **files).chat_template
    assert found is not None
    assert (found.source, found.pointer) == ("file", None)


def test_named_templates(tmp_path: Path) -> None:
    entries = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}, {"name": 7, "template": "x"}, "y"]
    directory = write(tmp_path, tokenizer_config__json={"chat_template": entries})
    assert {name: found.source for name, found in directory.templates.items()} == {"default": "d", "tool_use": "t"}
    assert directory.chat_template is directory.templates["default"]
    assert write(tmp_path / "none").chat_template is None


def test_files_take_the_place_of_all_templates_in_the_config(tmp_path: Path) -> None:
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("r")
    directory = write(tmp_path, tokenizer_config__json={"chat_template": "config"})
    assert {name: found.source for name, found in directory.templates.items()} == {"rag": "r"}


def test_a_linked_folder_of_templates_is_not_followed_out(tmp_path: Path) -> None:
    write(tmp_path / "out", secret__jinja="secret")
    directory = write(tmp_path / "model", config__json={})
    (tmp_path / "model" / "additional_chat_templates").symlink_to("../out")
    assert directory.templates == {}
    assert "DIR004" in {problem.code for problem in directory.problems()}


@pytest.mark.parametrize("text", [b"\xff\xfeh\x00i\x00", b"\x80"], ids=["utf-16", "binary"])
def test_a_template_that_is_not_utf8(text: bytes, tmp_path: Path) -> None:
    directory = write(tmp_path, config__json={})
    (tmp_path / "chat_template.jinja").write_bytes(text)
    assert directory.chat_template is None
    assert "DIR001" in {problem.code for problem in directory.problems()}


EACH = "{% for m in messages %}"
TEMPLATES = {
    "chatml": EACH + "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "special tokens": "{{ bos_token }}" + EACH + "{{ m.content }}{{ eos_token }}{% endfor %}",
    "white space": EACH
    + "\n    {% if m.role == 'user' %}\n  U: {{ m.content | trim }}\n    {% else %}\n  A\n    {% endif %}\n{% endfor %}\n",
    "tools is none": "{% if tools is not none %}TOOLS{% endif %}{% if tools is defined %}D{% endif %}{% if not documents %}N{% endif %}",
    "tojson": "{{ messages | tojson }}{{ messages | tojson(indent=2) }}",
    "namespace": "{% set ns = namespace(n=0) %}" + EACH + "{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "macro": "{% macro say(m) %}[{{ m.role | upper }}]{% endmacro %}" + EACH + "{{ say(m) }}{% endfor %}",
    "break": EACH + "{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "generation": EACH + "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}",
    "undefined": "{{ nothing }}{% if nothing is defined %}x{% endif %}{{ messages[0].name }}",
    "year": "{{ strftime_now('%Y') }}",
    "dict": "{% set d = dict(a=1) %}{{ d.a }}{{ dict.fromkeys(['x']) }}",
}


@pytest.fixture(scope="module")
def real() -> Any:
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")), bos_token="<s>", eos_token="</s>")


@pytest.mark.live
@pytest.mark.parametrize("source", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("prompt", [False, True])
def test_renders_as_transformers_does(source: str, prompt: bool, real: Any, worker: TemplateWorker) -> None:
    expected = real.apply_chat_template(MESSAGES, chat_template=source, tokenize=False, add_generation_prompt=prompt)
    found = worker.render(template(source, bos_token="<s>", eos_token="</s>"), MESSAGES, add_generation_prompt=prompt)
    assert (found.text, found.error) == (expected, None)


def test_what_a_template_raises(worker: TemplateWorker) -> None:
    found = rendered(worker, "{{ raise_exception('Roles must alternate') }}")
    assert (found.error, found.text) == ("raised", None)
    assert "Roles must alternate" in (found.message or "")
    assert rendered(worker, "{{ messages[0].content + 1 }}").error == "raised"


@pytest.mark.parametrize(
    ("source", "line"), [("a\n{% for m in messages %}\n{{ m }}", 3), ("{{ 1 +\n}}", 2), ("\n\n{% nothing %}", 3), ("{{ x | nofilter }}", 1)]
)
def test_syntax_errors_have_their_line(source: str, line: int, worker: TemplateWorker) -> None:
    found = rendered(worker, source)
    assert (found.error, found.line) == ("syntax", line)


LIMITS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "200 MB string": "{{ 'x' * 200000000 }}",
    "200 MB string, doubled": "{% set x = 'x' * 200000000 %}{% set y = x ~ x %}{{ y }}",
    "many small strings": "{% for a in range(99999) %}{{ 'x' * 999 }}{% endfor %}",
    "a power": "{{ 9 ** (9 ** 9) }}",
    "a list": "{{ [0] * 900000000 }}",
    "recursion": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "deep expression": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "too long": "x" * (2**20 + 1),
}


@pytest.mark.timeout(40)
@pytest.mark.parametrize("source", LIMITS.values(), ids=LIMITS)
def test_no_template_passes_the_limits(source: str) -> None:
    with TemplateWorker(seconds=1.0) as worker:
        start = time.monotonic()
        found = rendered(worker, source)
        assert time.monotonic() - start < 15  # 1 s of the worker's own time, 8 times that and its start on a busy machine
        assert found.error in ("limit", "syntax", "raised")
        assert found.text is None
        start = time.monotonic()
        if found.error == "limit":
            assert rendered(worker, source) == found  # not tried again
            assert time.monotonic() - start < 0.1
        assert rendered(worker, "{{ 1 + 1 }}").text == "2"  # the next worker, or the same


def test_a_worker_is_replaced_after_a_kill_and_leaves_no_process() -> None:
    before = {int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _parent(entry) == os.getpid()}
    with TemplateWorker(seconds=1.0) as worker:
        assert rendered(worker, "a").text == "a"
        process = worker._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        assert rendered(worker, "b").error == "limit"
        assert rendered(worker, "c").text == "c"
    assert {int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _parent(entry) == os.getpid()} <= before


def _parent(pid: str) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def test_a_worker_ends_with_its_parent() -> None:
    code = (
        "from llmdoctor.modeldir.template import TemplateWorker\nworker = TemplateWorker()\nworker.start()\n"
        "print(worker._process.pid, flush=True)\nimport os\nos._exit(0)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    for _ in range(50):
        if not os.path.exists(f"/proc/{pid}") or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent")


def test_an_endless_loop_is_ended_from_inside_too() -> None:
    from llmdoctor.modeldir import template_worker

    assert 0 < template_worker.LAST_SECONDS <= 60
    code = (
        "import llmdoctor.modeldir.template_worker as worker\nworker._last_resort(1)\n"
        "list(worker._answers(worker._environment(), {}, {'template': " + repr(LIMITS["nested loops"]) + ", 'variables': {}}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=10).returncode == -signal.SIGALRM


def test_the_parents_environment_stays_with_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    with TemplateWorker() as worker:
        worker.start()
        rendered(worker, "a")
        assert worker._process is not None
        entries = Path(f"/proc/{worker._process.pid}/environ").read_bytes().split(b"\0")
        assert {entry.partition(b"=")[0] for entry in entries if entry} <= {b"PATH", b"TZ", b"LC_CTYPE"}
        descriptors = [os.readlink(f"/proc/{worker._process.pid}/fd/{number}") for number in (0, 1, 2)]
        assert descriptors[2] == "/dev/null"
        assert all(target.startswith("pipe:") for target in descriptors[:2])


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['json'] }}",
    "{{ (messages | attr('__class__')) }}",
    "{{ ''['__class__'] }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].system('id') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends '/etc/passwd' %}",
    "{% set _ = messages.append(1) %}",
    "{% set _ = messages[0].update(role='x') %}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_the_sandbox_holds(source: str, worker: TemplateWorker) -> None:
    found = rendered(worker, source)
    assert found.error == "raised" or found.text == ""
    assert "root:" not in (found.message or "")


@pytest.mark.parametrize("content", ["\ud800", "\x00", "\u2028", "a" * 100_000, "}}{{ 7 * 7 }}", "\n\n"])
def test_any_message_comes_back(content: str, worker: TemplateWorker) -> None:
    assert rendered(worker, "{{ messages[0].content }}", [{"role": "user", "content": content}]).text == content


def test_any_source_is_taken(worker: TemplateWorker) -> None:
    for source in ("\ud800", "\x00", "é😀\u2028", "", "{", "{{", "{#"):
        found = rendered(worker, source)
        assert found.text is not None or found.error in ("syntax", "raised")
    assert rendered(worker, "{{ 1 }}").text == "1"


def test_generation_blocks_are_located() -> None:
    source = "{% for m in messages %}<{{ m.role }}>{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    template = ChatTemplate("default", source, "t")
    messages = [{"role": "u", "content": "ab"}, {"role": "a", "content": ""}, {"role": "a", "content": "xyz"}]
    with TemplateWorker() as worker:
        one = worker.render(template, messages, spans=True)
        assert one.text is not None
        assert [one.text[start:stop] for start, stop in one.spans] == ["ab", "", "xyz"]
        assert worker.render(template, messages).spans == ()


def test_many_renderings_are_those_of_one_after_the_other() -> None:
    template = ChatTemplate(
        "default", "{{ messages[0].content }}{{ tail }}{% if messages | length > 1 %}{{ raise_exception('no') }}{% endif %}", "t"
    )
    rows = [{"messages": [{"content": text}]} for text in ("a", "b")] + [{"messages": [{"content": "c"}, {"content": "d"}], "tail": "!"}]
    with TemplateWorker() as worker:
        many = worker.render_many(template, rows, tail="?")
        assert [one.text for one in many] == ["a?", "b?", None]
        assert many[2].error == "raised"
        assert many == [
            worker.render(template, row["messages"], **{"tail": "?", **{k: v for k, v in row.items() if k != "messages"}}) for row in rows
        ]


HUNGRY = LIMITS["nested loops"]


def test_a_template_without_end_is_tried_once_and_the_conversations_before_it_are_rendered() -> None:
    source = "{{ messages[0].content }}{% if messages[0].content == 'c' %}" + HUNGRY + "{% endif %}"
    rows = [{"messages": [{"content": text}]} for text in "abcde"]
    with TemplateWorker(seconds=0.3) as worker:
        found = worker.render_many(template(source), rows)
        assert [one.text for one in found] == ["a", "b", None, None, None]
        assert {one.error for one in found[2:]} == {"limit"}
        assert worker._lost == pytest.approx(0.3)
        assert worker.probe(template(source), [("user", True)]) is None
        assert worker._lost == pytest.approx(0.3)
        assert worker.render_many(template("x"), []) == []


def test_many_templates_without_end_take_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{TemplateWorker.__module__}.LOST_SECONDS", 0.5)
    monkeypatch.setattr(f"{TemplateWorker.__module__}.HURRIED", 0.05)
    with TemplateWorker(seconds=0.25) as worker:
        errors = [rendered(worker, HUNGRY + str(number)).message for number in range(4)]
        assert worker._lost == pytest.approx(0.25 + 0.25 + 0.05 + 0.05)
        assert [message for message in errors if message and "0.05 s" in message] == errors[2:]
        assert rendered(worker, "still").text == "still"


def test_a_long_answer_does_not_fail_the_template_for_the_other_conversations() -> None:
    given = template("{{ messages[0].content }}")
    rows = [{"messages": [{"content": "x" * 2**20 + "y"}]}, {"messages": [{"content": "b"}]}]
    with TemplateWorker() as worker:
        assert [one.error for one in worker.render_many(given, rows)] == ["limit", None]


def test_two_sides_of_one_command_try_a_template_without_end_once() -> None:
    source = HUNGRY + "{# of two sides #}"
    with TemplateWorker() as left, TemplateWorker() as right:
        assert rendered(left, source) == rendered(right, source)
        assert (left._lost, right._lost) == (1.0, 0.0)
        assert right._process is None

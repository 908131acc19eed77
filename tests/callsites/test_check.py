"""One file: ignoring, order, notebooks, what does not parse, and whatever bytes there are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdoctor.callsites import check as module
from llmdoctor.callsites.check import check_file, check_source
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.fingerprint import fingerprints

BAD = "model.generate(ids, do_sample=False, temperature=0.7)"
WORDS = [
    "do_sample=True",
    "model.generate(",
    ")",
    "\n",
    "    ",
    "labels[labels == tokenizer.pad_token_id] = -100",
    "tokenizer.pad_token = tokenizer.eos_token",
]
WORDS += [
    "for t in probs:",
    "if random.random() < t:",
    "c = t",
    "softmax(x) / temperature",
    "log_softmax(o.scores)",
    "output_scores=True",
    "(",
    "[",
    "\x00",
    "'",
]


def codes(text: str | bytes) -> list[str]:
    return [finding.code for finding in check_source(text, "x.py")]


@pytest.mark.parametrize("comment", ["ignore[PYC010]", "ignore[PYC]", "ignore[GEN001, pyc010]", " ignore[PYC010] it is a demo"])
def test_ignored(comment: str) -> None:
    assert codes(BAD) == ["PYC010"]
    assert codes(f"{BAD}  # llmdoctor: {comment.strip()}") == []


@pytest.mark.parametrize("comment", ["ignore[PYC001]", "ignore[]", "ignore", "ignore[PYC010"])
def test_not_ignored(comment: str) -> None:
    assert codes(f"{BAD}  # llmdoctor: {comment}") == ["PYC010"]
    assert codes(f"# llmdoctor: ignore[PYC010]\n{BAD}") == ["PYC010"]


def test_ignored_on_any_line_of_the_call() -> None:
    assert codes("model.generate(\n    ids,\n    do_sample=False,  # llmdoctor: ignore[PYC010]\n    temperature=0.7,\n)") == []


def test_line_and_bytes_with_a_coding_line() -> None:
    (finding,) = check_source(b"# -*- coding: latin-1 -*-\ns = '\xe9'\r\n" + BAD.encode(), "a/b.py")
    assert (finding.location.file, finding.location.line) == ("a/b.py", 3)  # type: ignore[union-attr]


def test_what_matters_not_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_parse", lambda text: pytest.fail("parsed"))
    assert codes("def f(:\n    attention_mask") == []


SPELLED = {
    "PYC001": [
        "model.generation_config.eos_token_id: int | None = None",
        "a.generation_config.eos_token_id, b = None, 1",
        "self['gen_config'].eos_token_id = x = None",
        "model.generate(\n    **batch,\n    eos_token_id = None,\n)",
    ],
    "PYC002": [
        "tokenizer.pad_token_id = (\n    tokenizer.eos_token_id\n)\nattention_mask = input_ids.ne(tokenizer.pad_token_id)",
        "pad_token_id: int = tokenizer.eos_token_id\nattention_mask = torch.ne(input_ids, pad_token_id).long()",
    ],
    "PYC003": [
        "ids = input_ids.masked_fill_(\n    attention_mask.logical_not(),\n    0,\n)",
        "ids = torch.masked_fill(responses, attn_mask == 0, 0)",
    ],
    "PYC006": [
        "tok.padding_side = 'right'\nb = tok(p, padding='longest')\nmodel.generate(b['input_ids'], attention_mask=b['attention_mask'])"
    ],
    "PYC007": [
        "for token, p in probs:\n    if p > rng.random():\n        chosen = token",
        "for i, p in enumerate(probs):\n    r = torch.rand(1)\n    # keep\n    if r < p:\n        chosen = i",
        "for i in order:\n    if torch.rand(1).item() < probs[i]:\n        chosen = i",
        "for i, p in enumerate(ps):\n    if np.random.uniform(0, 1) <= p:\n        chosen = i",
    ],
    "PYC008": [
        "p = F.softmax(x, -1) / self.temperature",
        "p = softmax(x) / (\n    cfg['temperature'])",
        "p = softmax(x)\nq = p / temp",
        "p = softmax(x)\np /= temp",
        "p = softmax(x)\np = p.div(self.temperature)",
        "p = torch.div(softmax(x), temperature)",
    ],
    "PYC009": [
        "from transformers import x\nkw = {'do_sample': True, 'top_k': -1}",
        "model.generate(a, do_sample = True, temperature=0)",
        "from transformers import pipeline\npipe(a, do_sample=True, temperature=0)",
    ],
    "PYC010": ["model.generate(a, top_k=5, do_sample=False)"],
}


@pytest.mark.parametrize(("code", "text"), [(code, text) for code, texts in SPELLED.items() for text in texts])
def test_spelled_otherwise(code: str, text: str, tmp_path: Path) -> None:
    """What is told from the bytes alone does not throw out another way to write the same, in a notebook neither."""
    assert code in codes(text)
    for name, source in (("one.ipynb", text), ("lines.ipynb", text.splitlines(keepends=True))):
        assert code in [finding.code for finding in check_file(notebook(tmp_path / name, source))]


@pytest.mark.parametrize("text", [f"{BAD}\ndef f(:", f"{BAD}\x00", f"{BAD}\n" + "(" * 5000, f"{BAD}\n".encode() + b"\xff"])
def test_not_parsed_is_one_finding(text: str | bytes) -> None:
    assert codes(text) == ["PYC012"]


def test_deep_expressions_are_walked() -> None:
    assert codes("x = " + "a.b(" * 60 + ")" * 60 + "\ny = " + "1 + " * 3000 + "1\n" + BAD) in (["PYC010"], ["PYC012"])


LOADS = "tok = AutoTokenizer.from_pretrained(a)"
PADS = "tok.pad_token = tok.eos_token"
TAKES = "DataCollatorForLanguageModeling(tok, mlm=False)"


@pytest.mark.parametrize(
    ("one", "other", "line"),
    [((LOADS, PADS), (TAKES,), None), ((LOADS, PADS), (LOADS, TAKES), None), ((LOADS, PADS), (LOADS, PADS, TAKES), 7)],
)
def test_a_tokenizer_is_its_functions_own(one: tuple[str, ...], other: tuple[str, ...], line: int | None) -> None:
    """Another function's tokenizer is another one, whatever it is called."""
    functions = [f"def f{number}(a, tok=None):\n    " + "\n    ".join(lines) for number, lines in enumerate((one, other))]
    found = check_source("from transformers import DataCollatorForLanguageModeling\n" + "\n".join(functions), "x.py")
    assert [finding.cause for finding in found] == ([] if line is None else [f"line {line} makes the eos token the pad token"])


IMPORT = "from transformers import DataCollatorForLanguageModeling\n"
SELF = f"class A:\n    def a(self):\n        self.{PADS.replace('= ', '= self.')}\n"
TAKES_SELF = f"    def b(self):\n        {TAKES.replace('tok', 'self.tok')}"
PADS_TOO = "tok.add_special_tokens({'pad_token': tok.eos_token})"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (f"{PADS}\n{TAKES}", 2),
        (f"{PADS}\ndef f():\n    {TAKES}", 2),
        (f"{PADS}\ndef f(tok):\n    {TAKES}", None),
        (f"{SELF}{TAKES_SELF}", 4),
        (f"{SELF}class B:\n{TAKES_SELF}", None),
        (f"def a(tok):\n    {PADS}\nclass B:\n{TAKES_SELF}", None),
        (f"{PADS}\ntok.pad_token = '<pad>'\n{TAKES}", None),
        (f"{PADS}\ntok.add_special_tokens({{'pad_token': '<pad>'}})\n{TAKES}", None),
        (f"{PADS}\nnew = dict(pad_token='<pad>')\ntok.add_special_tokens(new)\n{TAKES}", None),
        (f"{PADS}\ntok.add_special_tokens({{'additional_special_tokens': ['<a>']}})\n{TAKES}", 2),
        (f"{PADS}\n{LOADS}\n{TAKES}", None),
        (f"{PADS}\ntok = prepare(tok)\n{TAKES}", 2),
        (f"{PADS}\nother = tok\n{TAKES.replace('tok', 'other')}", 2),
        (f"{TAKES}\n{PADS}", None),
        (f"tok.pad_token = '<pad>'\n{PADS_TOO}\n{TAKES}", 3),
        (f"{LOADS[:-1]}, pad_token='<pad>')\n{TAKES}\n{PADS}", None),
    ],
)
def test_the_last_write_before_the_collator_decides(text: str, cause: int | None) -> None:
    found = [finding for finding in check_source(IMPORT + text, "x.py") if finding.code == "PYC005"]
    assert [finding.cause for finding in found] == ([] if cause is None else [f"line {cause} makes the eos token the pad token"])


BATCH = "b = tok({}, padding=True)\nmodel.generate(b.input_ids)"
SIDE = "tok.padding_side = 'right'\n"


@pytest.mark.parametrize(
    ("imported", "found"),
    [
        ("DataCollatorForSeq2Seq", True),
        ("Seq2SeqTrainer", True),
        ("Qwen2VLForConditionalGeneration", True),
        ("Mistral3ForConditionalGeneration", True),
        ("AutoModelForSeq2SeqLM", False),
        ("T5ForConditionalGeneration", False),
        ("WhisperForConditionalGeneration as W", False),
        ("MarianMTModel", False),
    ],
)
def test_an_encoder_reads_padding_on_the_right(imported: str, found: bool) -> None:
    assert codes(f"from transformers import {imported}\n{SIDE}{BATCH.format('p')}") == (["PYC006", "PYC011"] if found else [])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (BATCH.format("p"), True),
        (BATCH.format("[a, b]"), True),
        (BATCH.format("text=p"), True),
        (BATCH.format("'one'"), False),
        (BATCH.format("text=[one]"), False),
        ("one = f'{a}'\n" + BATCH.format("one"), False),
        ("def f(one: str):\n    " + BATCH.format("one").replace("\n", "\n    "), False),
        ("def f(one: list[str]):\n    " + BATCH.format("one").replace("\n", "\n    "), True),
        ("for one in prompts:\n    " + BATCH.format("one").replace("\n", "\n    "), False),
        ("for batch in prompts:\n    " + BATCH.format("batch").replace("\n", "\n    "), True),
        ("for each in loader:\n    " + BATCH.format("each['text']").replace("\n", "\n    "), True),
        ("if model.config.is_encoder_decoder:\n    " + BATCH.format("p").replace("\n", "\n    "), False),
    ],
)
def test_one_text_is_no_batch(text: str, found: bool) -> None:
    assert codes(text) == (["PYC011"] if found else [])


GENERATE = "b = tok(p, padding=True)\nmodel.generate(**b)"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{SIDE}{GENERATE}", True),
        (f"tok = AutoTokenizer.from_pretrained(a, padding_side='right')\n{GENERATE}", True),
        (f"tok = AutoTokenizer.from_pretrained(a, padding_side='right')\ntok.padding_side = 'left'\n{GENERATE}", False),
        (f"{SIDE}tok = AutoTokenizer.from_pretrained(a)\n{GENERATE}", False),
        (f"{SIDE}def f(p):\n    " + GENERATE.replace("\n", "\n    "), True),
        (f"{SIDE}def f(tok, p):\n    " + GENERATE.replace("\n", "\n    "), False),
        ("processor.tokenizer.padding_side = 'right'\n" + GENERATE.replace("tok", "processor"), True),
        (f"if model.config.is_encoder_decoder:\n    {SIDE}{GENERATE}", False),
        (f"if model.config.is_encoder_decoder:\n    {SIDE}else:\n    tok.padding_side = 'left'\n{GENERATE}", False),
        (GENERATE.replace("padding=True", "padding=True, padding_side='right'"), True),
        (SIDE + GENERATE.replace("padding=True", "padding=True, padding_side='left'"), False),
    ],
)
def test_which_side(text: str, found: bool) -> None:
    assert codes(text) == (["PYC006"] if found else [])


def notebook(path: Path, source: object, language: str = "python") -> str:
    cells = [{"cell_type": "markdown", "source": "text"}, {"cell_type": "code", "source": source}]
    path.write_text(json.dumps({"cells": cells, "metadata": {"kernelspec": {"language": language}}}, indent=1))
    return str(path)


def test_notebook_places(tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", ["!nvidia-smi\n", BAD])
    (finding,) = check_file(path)
    assert finding.location is not None
    assert finding.location.pointer == "/cells/1/source/1"
    assert finding.location.line is not None
    assert "temperature" in Path(path).read_text().splitlines()[finding.location.line - 1]
    assert finding.message.startswith("cell 1, line 2: ")
    assert check_file(notebook(tmp_path / "b.ipynb", f"%%bash\n{BAD}")) == ()
    assert len(check_file(notebook(tmp_path / "c.ipynb", f"%%time\n{BAD}"))) == 1
    assert check_file(notebook(tmp_path / "d.ipynb", BAD, "R")) == ()
    assert check_file(notebook(tmp_path / "e.ipynb", f"{BAD}  # llmdoctor: ignore[PYC010]")) == ()
    assert [finding.code for finding in check_file(notebook(tmp_path / "f.ipynb", BAD + "("))] == ["PYC012"]


@pytest.mark.parametrize(
    "text", ["do_sample=False temperature {", "[]", '{"do_sample=False": "top_p"}', '{"cells": 3, "x": "do_sample=False top_k"}']
)
def test_no_notebook(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(text + " " * 0)
    assert {finding.code for finding in check_file(str(path))} <= {"PYC012"}


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="does not exist"):
        check_file(str(tmp_path / "none.py"))
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(QuestionError, match="is a FIFO, not a file"):
        check_file(str(tmp_path / "pipe.py"))


def test_one_file_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.py").write_text(BAD)
    Path("y.ipynb").write_text(Path(notebook(tmp_path / "z.ipynb", BAD)).read_text())
    for name in ("x.py", "y.ipynb"):
        said = {check_file(path)[0].location for path in (name, f"./{name}", str(tmp_path / name))}
        assert {place.file for place in said if place} == {name}


def test_two_findings_of_a_rule_on_a_line() -> None:
    found = check_source("model.generate(ids, do_sample=True, temperature=2, top_k=50.0)", "x.py")
    assert [finding.message.partition("=")[0] for finding in found] == ["temperature", "top_k"]


@pytest.mark.parametrize(
    ("later", "found"),
    [
        ("kw['do_sample'] = True", False),
        ("kw.do_sample = True", False),
        ("kw.update(do_sample=True)", False),
        ("kw.update({'do_sample': flag})", False),
        ("kw['top_k'] = 5", True),
        ("other['do_sample'] = True", True),
        ("other.update(do_sample=True)", True),
    ],
)
@pytest.mark.parametrize("kw", ["dict(do_sample=False, temperature=0.7)", "{'do_sample': False, 'temperature': 0.7}"])
def test_do_sample_may_be_set_later(kw: str, later: str, found: bool) -> None:
    assert codes(f"kw = {kw}\nif not greedy:\n    {later}\nmodel.generate(ids, **kw)") == (["PYC010"] if found else [])


NO_EOS = "model.generation_config.eos_token_id = None"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (NO_EOS, True),
        (f"config = model.generation_config\n{NO_EOS.replace('model.generation_config', 'config')}", True),
        ("model.generation_config.update(max_length=5, eos_token_id=None)", True),
        ("setattr(model.generation_config, 'eos_token_id', None)", True),
        ("model.generation_config = GenerationConfig(eos_token_id=None)", True),
        ("config = GenerationConfig()\nconfig.eos_token_id = None\nmodel.generation_config = config", True),
        ("config = GenerationConfig()\nconfig.eos_token_id = None\nmodel.generate(ids, generation_config=config)", False),
        ("generation_config = GenerationConfig()\ngeneration_config.eos_token_id = None", False),
        ("model.generate(ids, generation_config=GenerationConfig(eos_token_id=None))", False),
        (f"{NO_EOS}\nmodel.generation_config.update(eos_token_id=saved)", False),
        (f"{NO_EOS}\nmodel.generation_config = saved", False),
        ("settings.update(eos_token_id=None)\ngeneration_config = 1", False),
    ],
)
def test_only_a_models_own_config_loses_its_eos(text: str, found: bool) -> None:
    assert codes(text) == (["PYC001"] if found else [])


def test_one_more_is_the_one_that_is_new(tmp_path: Path) -> None:
    """Known findings stay known where lines move, in a notebook too, and another function's is new."""
    old = f"class A:\n    def old(self):\n        {BAD}\n"
    before = check_source(old, "x.py")
    assert before[0].evidence == {"scope": "A.old", "source": BAD}
    for more, kept in (
        (f"def new():\n    {BAD}\n{old}", [False, True]),
        (f"{BAD.replace('ids', 'x')}\n\n{old}", [False, True]),
        ("\n\n" + old, [True]),
    ):
        after = check_source(more, "x.py")
        assert [mark in fingerprints(before) for mark in fingerprints(after)] == kept
    lines = [check_file(notebook(tmp_path / "a.ipynb", source)) for source in ([BAD], ["import a\n", "\n", BAD])]
    assert fingerprints(lines[0]) == fingerprints(lines[1])


@given(st.lists(st.sampled_from(WORDS), max_size=25).map("".join), st.binary(max_size=20))
def test_whatever_stands_in_it(text: str, data: bytes) -> None:
    check_source(text, "x.py")
    module.check_notebook(text.encode() + data, "x.ipynb")
    check_source(text.encode() + data, "x.py")


@pytest.mark.parametrize(
    "test", ["tokenizer.pad_token is None", "not tokenizer.pad_token", "getattr(tokenizer, 'pad_token', None) is None"]
)
def test_a_guarded_pad_is_a_condition(test: str) -> None:
    """The line does nothing for a tokenizer with a pad token, so the finding says "if" and is a note."""
    source = (
        "from transformers import DataCollatorForLanguageModeling\n"
        f"if {test}:\n    tokenizer.pad_token = tokenizer.eos_token\n"
        "collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)\n"
    )
    (found,) = check_source(source, "train.py")
    assert (found.code, found.severity.value) == ("PYC005", "info")
    assert "if the tokenizer has no pad token of its own, the pad token is the eos token" in found.message
    (plain,) = check_source(source.replace(f"if {test}:\n    ", ""), "train.py")
    assert (plain.severity.value, "if the tokenizer" in plain.message) == ("warning", False)

"""Hostile directories through the command: the contract's exit code, soon, no traceback, nothing unsafe printed, nothing executed."""

from __future__ import annotations

import json
import os
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome, run_command, write_model

EVIL = "\x1b[2J\x1b]0;t\x07\u202eabc\u2066\u200b[/INST][bold red]x[/]\n::error::gotcha\r##[error]x\x9b31m\x00"
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
JSON_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
Build = Callable[[Path], None]


def put(data: bytes | str) -> Build:
    """Every file of the model holds `data`."""

    def build(model: Path) -> None:
        for name in JSON_FILES:
            (model / name).write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))

    return build


def _sparse(model: Path) -> None:
    for name in (*JSON_FILES, "model.safetensors"):
        with (model / name).open("wb") as file:
            file.truncate(2**30)


def _fifos(model: Path) -> None:
    for name in (*JSON_FILES, "adapter_config.json", "model.safetensors", "model.safetensors.index.json", "preprocessor_config.json"):
        (model / name).unlink(missing_ok=True)
        os.mkfifo(model / name)


def _links(target: str) -> Build:
    def build(model: Path) -> None:
        for name in JSON_FILES:
            (model / name).unlink(missing_ok=True)
            (model / name).symlink_to(target)

    return build


def _truncated(model: Path) -> None:
    for path in model.glob("*.json"):
        path.write_bytes(path.read_bytes()[:-5])


def _evil_text(model: Path) -> None:
    (model / "generation_config.json").write_text(
        json.dumps({"eos_token_id": 11, EVIL: EVIL, "cache_implementation": EVIL, "stop_strings": [EVIL]})
    )
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": EVIL, "pad_token": {"content": EVIL}, "chat_template": EVIL}))
    (model / "special_tokens_map.json").write_text(json.dumps({"eos_token": EVIL + "2"}))
    (model / "config.json").write_text(
        json.dumps({"model_type": EVIL, "architectures": [EVIL], "auto_map": {EVIL: EVIL}, "vocab_size": EVIL})
    )


def _evil_duplicates(model: Path) -> None:
    key = json.dumps(EVIL)
    (model / "generation_config.json").write_text(f'{{"eos_token_id": 11, {key}: NaN, {key}: 1}}')


def _evil_names(model: Path) -> None:
    (model / (EVIL.replace("\x00", "").replace("/", "") + ".safetensors")).write_bytes(b"x")
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / (EVIL.replace("\x00", "").replace("/", "") + ".jinja")).write_bytes(b"\xff")
    (Path(os.fsdecode(os.fsencode(model) + b"/\xff\xfe.safetensors"))).write_bytes(b"x")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {EVIL: EVIL, "a": "\ud800.safetensors"}}))


def _evil_template(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ raise_exception(" + json.dumps(EVIL) + ") }}")


def _hungry_template(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")


def _surrogates(model: Path) -> None:
    (model / "generation_config.json").write_text('{"eos_token_id": 11, "\\ud800": "\\udfff"}')
    (model / "tokenizer_config.json").write_text('{"eos_token": "\\ud800", "chat_template": "\\ud800{{ messages[0].content }}"}')
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "\\ud800"}')


def _safetensors(model: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**300, 10**300], "data_offsets": [0, 4]}}).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "/etc/passwd", "b": "../../x.safetensors"}}))


def _nothing(model: Path) -> None:
    for path in model.iterdir():
        path.unlink()


def _adapter_on_itself(model: Path) -> None:
    _nothing(model)
    (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))


def _odd_shapes(model: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        (model / name).write_text(json.dumps({"eos_token_id": {"a": [[]]}, "text_config": 7, "auto_map": [1], "vocab_size": -(10**300)}))
    (model / "tokenizer.json").write_text(json.dumps({"added_tokens": {"a": 1}, "model": [[]]}))
    (model / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": [[1], {"name": {}}], "added_tokens_decoder": [], "eos_token": [1]})
    )


DIRECTORIES: dict[str, Build] = {
    "no file at all": _nothing,
    "empty files": put(b""),
    "white space": put(" \n"),
    "truncated": _truncated,
    "binary": put(bytes(range(256)) * 20),
    "null bytes": put(b"\0" * 4096),
    "UTF-16": put('{"eos_token_id": 11}'.encode("utf-16")),
    "UTF-16 without a mark": put('{"eos_token_id": 11}'.encode("utf-16-be")),
    "byte order mark": put(b'\xef\xbb\xbf{"eos_token_id": 11}'),
    "latin-1": put('{"é": 11}'.encode("latin-1")),
    "1 GB": _sparse,
    "nested deeply": put("[" * 200_000),
    "nested deeply, closed": put('{"a":' * 5000 + "1" + "}" * 5000),
    "100,000 digits": put('{"eos_token_id": ' + "9" * 100_000 + "}"),
    "400 digits": put('{"eos_token_id": ' + "9" * 400 + ', "vocab_size": ' + "9" * 400 + ', "temperature": ' + "9" * 400 + "}"),
    "duplicate keys": put('{"eos_token_id": 11, "eos_token_id": [11], "eos_token_id": {}}'),
    "not a number": put('{"eos_token_id": NaN, "temperature": Infinity, "top_p": -1e999, "vocab_size": NaN, "max_length": Infinity}'),
    "no objects": put("[1, 2]"),
    "odd shapes": _odd_shapes,
    "lone surrogates": _surrogates,
    "hostile texts": _evil_text,
    "hostile duplicates": _evil_duplicates,
    "hostile names": _evil_names,
    "hostile template": _evil_template,
    "hungry template": _hungry_template,
    "hostile weights": _safetensors,
    "FIFOs": _fifos,
    "links to /dev/zero": _links("/dev/zero"),
    "links to /etc/passwd": _links("/etc/passwd"),
    "links in a circle": _links("config.json"),
    "an adapter on itself": _adapter_on_itself,
}


def judge(outcome: Outcome) -> None:
    assert outcome.code in (0, 1, 2, 3), outcome.err
    for text in (outcome.out, outcome.err):
        assert "Traceback" not in text
        assert "internal fault" not in text
        assert UNSAFE.search(text) is None
        assert not any(line.lstrip().startswith("::") for line in text.splitlines())
        assert "##[" not in text
    if outcome.code == 2:
        assert outcome.out == ""
        assert outcome.err.startswith("llmdoctor: ")


def run(*arguments: str, cwd: Path) -> Outcome:
    start = time.monotonic()
    outcome = run_command(*arguments, cwd=cwd, timeout=20)
    assert time.monotonic() - start < 5
    return outcome


@pytest.mark.parametrize("build", DIRECTORIES.values(), ids=DIRECTORIES)
def test_a_hostile_directory(build: Build, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    build(model)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    (tmp_path / "out").mkdir()
    checked = run("gencfg", "check", "model", "-f", "text", "-f", "json:out/report.json", cwd=tmp_path)
    judge(checked)
    report = (tmp_path / "out" / "report.json").read_text("utf-8")
    assert json.loads(report)["command"] == "gencfg check"
    assert not any("\x7f" <= character <= "\x9f" or character in "\u2028\u202e" for character in report)
    judge(run("gencfg", "show", "model", cwd=tmp_path))
    assert "root:" not in checked.out + report
    (tmp_path / "out" / "report.json").unlink()
    (tmp_path / "out").rmdir()
    assert sorted(path.name for path in tmp_path.rglob("*")) == before  # nothing half-written


@pytest.mark.parametrize("build", [_nothing, _evil_text, put(b"")], ids=["nothing", "hostile texts", "empty files"])
def test_diff_of_hostile_directories(build: Build, tmp_path: Path) -> None:
    build(write_model(tmp_path / "model"))
    write_model(tmp_path / "other")
    judge(run("gencfg", "diff", "model", "other", cwd=tmp_path))
    outcome = run("gencfg", "diff", "other", "model", "--format", "json", cwd=tmp_path)
    assert outcome.code in (0, 1, 2)
    assert outcome.report["command"] == "gencfg diff"


def test_a_hostile_name_of_the_directory_itself(tmp_path: Path) -> None:
    name = EVIL.replace("\x00", "").replace("/", "")
    write_model(tmp_path / name, generation_config={})
    for command in ("check", "show"):
        outcome = run("gencfg", command, name, cwd=tmp_path)
        judge(outcome)
        assert outcome.code == 1
    judge(run("gencfg", "show", name + "x", cwd=tmp_path))


def test_nothing_of_a_directory_is_executed(tmp_path: Path) -> None:
    """Pickles, remote code and a sitecustomize that would each leave a file behind."""
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'a').close()\n"
    model = write_model(
        tmp_path / "model",
        config={
            "model_type": "x",
            "auto_map": {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.X"},
            "vocab_size": 16,
        },
        tokenizer_config={"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}, "tokenizer_class": "X"},
    )
    for name in (
        "configuration_x",
        "modeling_x",
        "tokenization_x",
        "sitecustomize",
        "usercustomize",
        "jinja2",
        "msgspec",
        "json",
        "__init__",
    ):
        (model / f"{name}.py").write_text(code)
    bomb = b"cos\nsystem\n(S'touch " + str(ran).encode() + b"'\ntR."
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.safetensors", "tokenizer.pkl"):
        (model / name).write_bytes(bomb)
    for command in ("check", "show"):
        outcome = run("gencfg", command, str(model), cwd=tmp_path)
        judge(outcome)
        assert not ran.exists()
    codes = {finding["code"] for finding in run("gencfg", "check", str(model), "--format", "json", cwd=tmp_path).report["findings"]}
    assert {"DIR010", "DIR006"} <= codes
    os.system(f"touch {ran}")  # the bomb's own words: they would have worked
    assert ran.exists()

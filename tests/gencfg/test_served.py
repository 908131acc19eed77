"""Calls that a GGUF file, a Modelfile or a server's command line describes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.configs.modelfile import parse_modelfile
from llmdoctor.configs.serve_command import find_command
from llmdoctor.core.errors import QuestionError
from llmdoctor.core.release import release
from llmdoctor.files.gguf import GgufError, read_metadata
from llmdoctor.gencfg.check import check_report
from llmdoctor.gencfg.engines.table import engines
from llmdoctor.gencfg.engines.types import ModelFacts
from llmdoctor.gencfg.options import GencfgCheckOptions, GencfgOptions
from llmdoctor.gencfg.served import gguf_call
from llmdoctor.gencfg.show import show_report
from llmdoctor.gencfg.types import GenerateCall, Origin, SourcedValue
from tests.conftest import write_model

CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOKENS = ["a", "b", ",", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<custom>"]
KINDS = [1, 1, 1, 3, 3, 3, 3]


def gguf(path: Path, **metadata: Any) -> Path:
    """A GGUF file of version 3 with these metadata and no tensors."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def value(item: Any) -> bytes:
        if isinstance(item, str):
            return struct.pack("<I", 8) + text(item)
        if isinstance(item, list) and isinstance(item[0], str):
            return struct.pack("<IIQ", 9, 8, len(item)) + b"".join(map(text, item))
        if isinstance(item, list):
            return struct.pack("<IIQ", 9, 5, len(item)) + struct.pack(f"<{len(item)}i", *item)
        return struct.pack("<II", 4, item)

    pairs = b"".join(text(key.replace("__", ".")) + value(item) for key, item in metadata.items())
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(metadata)) + pairs)
    return path


def model(path: Path, **more: Any) -> Path:
    base = {
        "general__architecture": "qwen2",
        "qwen2__context_length": 4096,
        "tokenizer__ggml__tokens": TOKENS,
        "tokenizer__ggml__token_type": KINDS,
        "tokenizer__ggml__eos_token_id": 3,
        "tokenizer__chat_template": CHAT,
    }
    return gguf(path, **{**base, **more})


def stop(path: Path | str, **options: Any) -> dict[str, Any]:
    report = show_report(GencfgOptions(model=str(path), **options))
    assert report.result is not None
    return {
        **report.result["stop"],
        "verdict": report.verdict.text if report.verdict else "",
        "codes": [each.code for each in report.findings],
    }


def test_a_gguf_file_stops_at_its_ids_and_at_known_texts(tmp_path: Path) -> None:
    found = stop(model(tmp_path / "m.gguf"))
    assert found["eos_token_id"] == [3, 5]
    assert found["stops_at_turn_end"] is True
    assert found["limit"] == 4095


def test_a_gguf_file_whose_template_ends_with_a_token_that_llama_cpp_does_not_know(tmp_path: Path) -> None:
    found = stop(model(tmp_path / "m.gguf", tokenizer__chat_template=CHAT.replace("<|im_end|>", "<custom>")))
    assert found["turn_end"] == [6]
    assert found["codes"] == ["GEN002"]
    assert "<custom>" in found["verdict"]


def test_the_metadata_agree_with_the_gguf_package(tmp_path: Path) -> None:
    reader = pytest.importorskip("gguf")
    path = model(tmp_path / "m.gguf")
    fields = reader.GGUFReader(str(path)).fields
    ours = read_metadata(str(path))
    assert ours["tokenizer.ggml.eos_token_id"] == fields["tokenizer.ggml.eos_token_id"].contents()
    assert ours["tokenizer.ggml.tokens"] == fields["tokenizer.ggml.tokens"].contents()


@pytest.mark.parametrize("length", [0, 3, 10, 24, 40, 90, 200])
def test_a_gguf_file_that_is_cut_off_is_refused_in_one_sentence(tmp_path: Path, length: int) -> None:
    data = model(tmp_path / "m.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(data[:length])
    with pytest.raises(GgufError):
        read_metadata(str(tmp_path / "cut.gguf"))
    with pytest.raises(QuestionError, match=r"cut\.gguf"):
        show_report(GencfgOptions(model=str(tmp_path / "cut.gguf")))


def test_a_modelfile_adds_stop_texts_and_limits(tmp_path: Path) -> None:
    model(tmp_path / "m.gguf", tokenizer__chat_template=CHAT.replace("<|im_end|>", "<custom>"))
    (tmp_path / "Modelfile").write_text('FROM ./m.gguf\nPARAMETER stop "<custom>"\nPARAMETER num_predict 64\nPARAMETER num_ctx 8192\n')
    found = stop(tmp_path / "Modelfile")
    assert found["codes"] == []
    assert found["limit"] == 64


def test_a_modelfile_over_a_model_that_is_not_here_says_so_in_the_verdict(tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text('FROM llama3.2\nTEMPLATE """{{ .Prompt }}\nFROM inside"""\nPARAMETER stop <|eot_id|>\nNONSENSE x\n')
    found = stop(tmp_path / "Modelfile")
    assert "llama3.2" in found["verdict"]
    assert "Modelfile:5" in found["verdict"]


def test_a_modelfile_is_parsed_with_its_quotes() -> None:
    parsed = parse_modelfile('from m\n# no\nTEMPLATE """a\nb"""\nPARAMETER stop "x y"\nparameter temperature 0.2\n')
    assert (parsed.base, parsed.template) == ("m", "a\nb")
    assert [(item.name, item.value, item.line) for item in parsed.parameters] == [("stop", "x y", 5), ("temperature", "0.2", 6)]


VLLM = (("vllm", "serve"), ("-m", "vllm.entrypoints.openai.api_server"))


@pytest.mark.parametrize(
    ("text", "words", "options", "line"),
    [
        ("vllm serve m --max-model-len 8k", ("m",), {"--max-model-len": "8k"}, 1),
        ("#!/bin/sh\nexec /opt/bin/vllm serve m \\\n  --generation-config=vllm > log &", ("m",), {"--generation-config": "vllm"}, 2),
        ('ENTRYPOINT ["vllm", "serve", "m", "--enable-x"]', ("m",), {"--enable-x": "true"}, 1),
        ("vllm serve m --override_generation_config '{\"top_k\": 1}'", ("m",), {"--override-generation-config": '{"top_k": 1}'}, 1),
    ],
)
def test_command_lines(text: str, words: tuple[str, ...], options: dict[str, str], line: int) -> None:
    found = find_command(text, VLLM)
    assert found is not None
    assert (found[0], found[1].words, found[1].options, found[1].line) == (0, words, options, line)


def test_a_text_without_a_command_has_none() -> None:
    assert find_command("vllm bench m", VLLM) is None


def test_vllm_serve_uses_what_the_command_line_says(tmp_path: Path) -> None:
    write_model(tmp_path / "model", generation_config={"eos_token_id": [1], "temperature": 0.3, "top_k": 7})
    script = tmp_path / "serve.sh"
    results = {}
    for name, more in (
        ("auto", ""),
        ("own", "--generation-config vllm"),
        ("over", "--override-generation-config '{\"top_k\": 3}' --max-model-len 99"),
    ):
        script.write_text(f"vllm serve model {more}\n")
        report = show_report(GencfgOptions(model=str(script)))
        assert report.result is not None
        results[name] = report.result
    assert results["auto"]["effective"]["temperature"] == 0.3
    assert (results["own"]["effective"]["temperature"], results["own"]["effective"]["top_k"]) == (1.0, 0)
    assert results["own"]["stop"]["eos_token_id"] == results["auto"]["stop"]["eos_token_id"]
    assert (results["over"]["effective"]["temperature"], results["over"]["effective"]["top_k"]) == (0.3, 3)
    assert results["over"]["provenance"]["top_k"]["layer"] == "server"
    assert results["over"]["stop"]["limit"] == 98


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("echo hello\n", {}, "expected a model directory"),
        ("vllm serve --port 1\n", {}, "names no model"),
        ("vllm serve model\n", {"engine": "tgi"}, "a file for vllm"),
        ("vllm serve model --override-generation-config {\n", {}, "expected a JSON object"),
    ],
)
def test_what_cannot_be_answered(tmp_path: Path, text: str, options: dict[str, Any], words: str) -> None:
    write_model(tmp_path / "model")
    (tmp_path / "serve.sh").write_text(text)
    with pytest.raises(QuestionError, match=words):
        show_report(GencfgOptions(model=str(tmp_path / "serve.sh"), **options))


def test_options_for_python_are_refused(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="--preset"):
        show_report(GencfgOptions(model=str(model(tmp_path / "m.gguf")), presets=("trl-ppo",)))


@pytest.mark.parametrize(
    ("engine", "generation", "config", "ids"),
    [
        ("sglang", {"eos_token_id": [5]}, {"eos_token_id": 6}, [6, 5, 11]),
        ("tgi", {"eos_token_id": [5, 6]}, {}, [5, 6]),
        ("tgi", {"eos_token_id": 5}, {}, [11]),
        ("tensorrt-llm", {"eos_token_id": [5]}, {"eos_token_id": 6}, [11, 5]),
        ("tensorrt-llm@1.0.0", {"eos_token_id": [5]}, {"eos_token_id": 6}, [11]),
        ("mlx", {"eos_token_id": [5]}, {"eos_token_id": 6}, [5, 11]),
        ("mlx", {}, {"eos_token_id": 6}, [6, 11]),
        ("llama.cpp", {"eos_token_id": [5]}, {"eos_token_id": 6}, [11, 10]),
    ],
)
def test_where_each_engine_takes_its_stop_ids_from(tmp_path: Path, engine: str, generation: Any, config: Any, ids: list[int]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "vocab_size": 16, **config}))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    added = [{"id": 10, "content": "<|endoftext|>", "special": True}, {"id": 11, "content": "<eos>", "special": True}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": {"type": "BPE", "vocab": {"a": 0}}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    assert stop(folder, engine=engine)["eos_token_id"] == ids


ROWS = [json.loads(line) for line in (Path(__file__).parent / "engine_rows.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("engine", sorted({row["engine"] for row in ROWS}))
def test_stop_ids_are_those_of_the_engines_own_functions(engine: str) -> None:
    for row in (row for row in ROWS if row["engine"] == engine):
        files = {
            name: {} if row[name] == "absent" else {"eos_token_id": SourcedValue(row[name], Origin("config.json", name))}
            for name in ("config", "generation")
        }
        call = GenerateCall(config=files["config"], generation_config=files["generation"])
        found = engines()[engine].resolve(call, ModelFacts(), row["version"])
        assert sorted(found.stop.eos_token_id) == row["ids"], row
        assert release(row["version"]) in {release(known) for known in engines()[engine].known}


LLAMA_CPP = [json.loads(line) for line in (Path(__file__).parent / "llamacpp_rows.jsonl").read_text().splitlines()]
PLAIN = [*"abcdefghijklm", "Ġ", "ab"]
SETTINGS = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repetition_penalty"}


@pytest.mark.parametrize("version", sorted({row["version"] for row in LLAMA_CPP}))
def test_stop_ids_and_settings_are_those_of_llama_cpps_own_server(version: str) -> None:
    engine = engines()["llama.cpp"]
    assert version in engine.known
    for row in (row for row in LLAMA_CPP if row["version"] == version):
        texts = [*PLAIN, *row["tokens"]]
        metadata = {
            "tokenizer.ggml.tokens": texts,
            "tokenizer.ggml.token_type": [1] * len(PLAIN) + [3] * len(row["tokens"]),
            **row["metadata"],
        }
        call, tokenizer = gguf_call(metadata, "m.gguf")
        found = engine.resolve(call, ModelFacts(id_of=tokenizer.id_of, is_gguf=True), version)
        assert sorted(texts[token] for token in found.stop.eos_token_id) == sorted(row["stops"]), row
        for theirs, ours in SETTINGS.items():
            if theirs in row["settings"]:
                assert found.fields[ours].value == row["settings"][theirs], row


def test_a_gguf_file_without_an_eos_id_has_the_default_of_its_vocabulary(tmp_path: Path) -> None:
    pieces = [*"abcdefghijkl", "<|im_end|>"]
    path = gguf(tmp_path / "m.gguf", general__architecture="qwen2", tokenizer__ggml__model="gpt2", tokenizer__ggml__tokens=pieces)
    assert stop(path)["eos_token_id"] == [11, 12]


def test_a_version_of_llama_cpp_that_is_no_build_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="a build number such as b"):
        show_report(GencfgOptions(model=str(model(tmp_path / "m.gguf")), engine="llama.cpp@0.5.0"))


def test_an_answer_for_an_older_version_says_whose_rules_were_applied(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    assert "older than every version known here" in stop(tmp_path / "model", engine="vllm@0.7.3")["verdict"]
    assert "by the rules of llama.cpp b8156" in stop(model(tmp_path / "m.gguf"), engine="llama.cpp@b8300")["verdict"]


def test_ollama_ends_a_request_after_ten_contexts(tmp_path: Path) -> None:
    model(tmp_path / "m.gguf")
    (tmp_path / "Modelfile").write_text("FROM ./m.gguf\nPARAMETER num_ctx 2048\n")
    found = stop(tmp_path / "Modelfile")
    assert found["limit"] == 20480
    assert "Ollama's own engine" in found["verdict"]  # the metadata hold 3, and 5 is a stop id of llama.cpp by its text


def test_a_gguf_file_is_checked_in_the_language_of_its_engine(tmp_path: Path) -> None:
    missing = model(tmp_path / "missing.gguf", tokenizer__chat_template=CHAT.replace("<|im_end|>", "<custom>"))
    comma = model(tmp_path / "comma.gguf", tokenizer__ggml__eos_token_id=2)
    good = model(tmp_path / "good.gguf")
    report = check_report(GencfgCheckOptions(paths=(str(missing), str(comma), str(good))))
    by_file = {subject["path"]: [report.findings[at] for at in subject["findings"]] for subject in report.result["subjects"]}
    assert [[finding.code for finding in by_file[str(path)]] for path in (missing, comma, good)] == [["GEN002"], ["GEN022"], []]
    assert by_file[str(missing)][0].fix.startswith("gguf-new-metadata --special-token-by-id eot 6 ")
    assert report.verdict is not None
    assert report.verdict.status == "problem"
    assert "llama.cpp" in report.verdict.text


def test_a_right_directory_is_sent_to_the_training_data(tmp_path: Path) -> None:
    good, wrong = write_model(tmp_path / "good"), write_model(tmp_path / "wrong", generation_config={"eos_token_id": 1})
    commands = [
        [block.text for block in check_report(GencfgCheckOptions(paths=(str(path),))).document if getattr(block, "label", "") == "Next"]
        for path in (good, wrong)
    ]
    assert "llmdoctor labels audit" in commands[0][0]
    assert commands[1] == []


def test_the_ids_that_end_a_sequence_by_release_of_sglang() -> None:
    files = [{"eos_token_id": SourcedValue(token, Origin("config.json", "file"))} for token in (5, 6)]
    call = GenerateCall(
        config=files[0], generation_config={**files[1], "temperature": SourcedValue(0.3, Origin("generation_config.json", "t"))}
    )
    facts = ModelFacts(tokenizer_eos=7, base_eos=7)

    def ids(version: str) -> list[int]:
        return sorted(engines()["sglang"].resolve(call, facts, version).stop.eos_token_id)

    assert ids("0.4.1.post7") == [7]
    assert ids("0.4.9.post1") == [5, 7]
    assert ids("0.4.9.post2") == ids("0.5.23") == [5, 6, 7]
    temperatures = [engines()["sglang"].resolve(call, facts, version).fields.value("temperature") for version in ("0.5.3", "0.5.3.post1")]
    assert temperatures == [1.0, 0.3]

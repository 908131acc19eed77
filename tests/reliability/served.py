"""Whole inputs of the binary and served formats: GGUF files, Modelfiles, command lines of servers, parquet tables, training data of every trainer."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

from tests.reliability.cases import CHATS, Case, _word_tokenizer, commands

END = "<|im_end|>"
TEMPLATE = "{% for message in messages %}{{ message.role }} {{ message.content }}<|im_end|>{% endfor %}"


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _gguf() -> bytes:
    texts = ["[UNK]", END, "system", "user", "assistant"]
    pairs = {
        "general.architecture": (8, _text("qwen2")),
        "qwen2.context_length": (4, struct.pack("<I", 4096)),
        "tokenizer.ggml.model": (8, _text("gpt2")),
        "tokenizer.ggml.tokens": (9, struct.pack("<IQ", 8, len(texts)) + b"".join(map(_text, texts))),
        "tokenizer.ggml.eos_token_id": (4, struct.pack("<I", 1)),
        "tokenizer.ggml.add_bos_token": (7, b"\0"),
        "general.sampling.temp": (6, struct.pack("<f", 0.7)),
        "tokenizer.chat_template": (8, _text(TEMPLATE)),
    }
    body = b"".join(_text(key) + struct.pack("<I", kind) + data for key, (kind, data) in pairs.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + body


MODELFILE = (
    b'FROM model.gguf\nPARAMETER stop "<|im_end|>"\nPARAMETER temperature 0.7\nPARAMETER num_ctx 4096\nSYSTEM """You are\nhelpful"""\n'
)
SERVE = b"#!/bin/sh\nvllm serve ./model --max-model-len 4096 --generation-config vllm \\\n  --override-generation-config '{\"temperature\": 0.5}'\n"
AXOLOTL = b"base_model: model\ndatasets:\n  - path: data.jsonl\n    type: chat_template\nsequence_len: 128\nsample_packing: true\n"
FACTORY = b"model_name_or_path: model\nstage: sft\ntemplate: qwen\ncutoff_len: 64\ndataset: d\ndataset_dir: .\npacking: false\nmask_history: true\n"
TORCHTUNE = (
    b"tokenizer:\n  max_seq_len: 100\ndataset:\n  _component_: torchtune.datasets.chat_dataset\n  source: json\n  data_files: data.jsonl\n"
)
PAIRS = [{"prompt": "Name a", "chosen": "Blue", "rejected": "q", "completion": "Blue .", "label": True, "text": "Name a colour . Blue ."}]


def _parquet(rows: list[dict[str, Any]]) -> bytes | None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return None
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


def cases() -> list[Case]:
    """Return the cases; those of parquet only if pyarrow is installed."""
    model = {
        "model/tokenizer.json": _word_tokenizer(),
        "model/tokenizer_config.json": json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "chat_template": TEMPLATE}
        ).encode(),
        "model/config.json": b'{"model_type": "qwen2"}',
        "model/generation_config.json": b'{"eos_token_id": 1, "temperature": 0.7, "do_sample": true}',
    }
    served = {
        "model.gguf": _gguf(),
        "Modelfile": MODELFILE,
        "serve.sh": SERVE,
        "chat.json": json.dumps(CHATS[1]["messages"]).encode(),
        **model,
    }
    configs = {"axolotl.yml": AXOLOTL, "factory.yaml": FACTORY, "tune.yaml": TORCHTUNE}
    data = {"data.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in CHATS), "pairs.jsonl": json.dumps(PAIRS[0]).encode() + b"\n"}
    prompt = "prompt diff model --messages chat.json"
    found = [
        Case("served files", served, tuple(served), commands(
            "gencfg show model.gguf", "gencfg check model.gguf", "gencfg show Modelfile", "gencfg diff model.gguf Modelfile",
            "gencfg diff model serve.sh",            "gencfg check serve.sh", "look model.gguf", "look Modelfile", "check .",
            f"{prompt} --left gguf:model.gguf",
            f"{prompt} --left modelfile:Modelfile", f"{prompt} --left axolotl --right sglang",
            "prompt diff model --left model:model --right model:model",
        )),
        Case("data of trainers", {**configs, **data, **model}, (*configs, *data, *model), commands(
            "labels inspect model data.jsonl --trainer axolotl --config axolotl.yml", "labels audit model data.jsonl --trainer unsloth",
            "labels audit model data.jsonl --trainer torchtune --config tune.yaml",
            "labels audit model data.jsonl --trainer llama-factory --config factory.yaml",
            "labels audit model pairs.jsonl --trainer trl-dpo", "labels audit model pairs.jsonl --trainer trl-kto", "check .",
            "labels inspect model pairs.jsonl --trainer trl-reward", "labels audit model pairs.jsonl --trainer transformers-clm --max-length 4",
            "look .",
        )),
    ]  # fmt: skip
    tables = {"rows.parquet": _parquet(CHATS), "outputs.parquet": _parquet([{"token_ids": [5, 1, 3], "finish_reason": "stop"}] * 3)}
    whole = {name: table for name, table in tables.items() if table is not None}
    if whole:
        runs = commands("labels audit model rows.parquet", "gencfg runaway outputs.parquet", "look rows.parquet")
        found.append(Case("parquet", {**whole, **model}, tuple(whole), runs))
    return found

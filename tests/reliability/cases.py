"""Whole inputs of every reader, and the commands that read them. What is mutated starts from these."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import END, EOS, PAD, TEMPLATE, write_model
from tests.gencfg.runaway.test_shapes import SHAPES
from tests.mask.models import CONFIGS as MASK_CONFIGS
from tests.mem.conftest import CONFIGS as MEM_CONFIGS
from tests.mem.test_snapshot import SNAPSHOT

TESTS = Path(__file__).parents[1]
RULES = TESTS / "rules"


@dataclass(frozen=True, slots=True)
class Case:
    """Files by their path in the working directory, those of them that are mutated, and the commands that are run over them in turn."""

    name: str
    files: dict[str, bytes]
    mutable: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]


def groups() -> list[list[Case]]:
    """Every case, by the readers that they are for: each group is tried as often as the next."""
    return [
        _models(),
        _architectures(),
        _trees(),
        _sources(),
        _outputs(),
        _traces(),
        _masks(),
        _memory(),
        _samples(),
        _linked(),
        _configurations(),
        _command_lines(),
    ]


def commands(*lines: str) -> tuple[tuple[str, ...], ...]:
    """Command lines, split at blanks."""
    return tuple(tuple(line.split()) for line in lines)


def _dump(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def _npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _tensors(**arrays: np.ndarray) -> bytes:
    names = {"float32": "F32", "int64": "I64", "float16": "F16"}
    header, data = {}, b""
    for name, array in arrays.items():
        part = array.tobytes()
        header[name] = {"dtype": names[array.dtype.name], "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _folder(path: Path, inside: str) -> dict[str, bytes]:
    return {f"{inside}/{file.relative_to(path)}": file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


# --- model directories ---------------------------------------------------------------------------------------------------------------

MODEL_COMMANDS = commands(
    "gencfg check model",
    "gencfg show model",
    "gencfg show model --engine vllm",
    "gencfg diff model other",
    "gencfg show model --transformers 4.41.2 --preset trl-ppo",
    "gencfg check model --transformers 4.57.6",
    "gencfg diff model --left-engine vllm --prompt-length 7",
    "check model",
    "sample engines --logits 4,3,2.5,1 --model model --defaults",
    "gencfg runaway outputs.jsonl --model model",
    "mask inspect model --lengths 3,4",
    "mem kvcache model",
    "look model",
)


def _models() -> list[Case]:
    full = {f"model/{name}": data for name, data in _full_model().items()}
    beside = {
        "outputs.jsonl": b'{"token_ids": [0, 1, 11]}\n{"token_ids": [1, 11, 0, 0], "finish_reason": "length", "max_tokens": 4}\n',
        **{f"other/{name}": data for name, data in _plain_model().items()},
    }
    found = [Case("model directory", {**full, **beside}, tuple(full), MODEL_COMMANDS)]
    for folder in sorted(RULES.glob("[GD][EI][NR]*/*")):
        files = _folder(folder, "model")
        if files and not {"model/outputs.jsonl", "model/request.json"} & set(files):
            found.append(
                Case(
                    f"model of {folder.parent.name}/{folder.name}",
                    {**files, **beside},
                    tuple(files),
                    (*MODEL_COMMANDS[:8], MODEL_COMMANDS[-1]),
                )
            )
    return found


def _plain_model() -> dict[str, bytes]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        write_model(Path(folder))
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _full_model() -> dict[str, bytes]:
    """One of everything that modeldir reads."""
    tensors = _tensors(**{"model.embed_tokens.weight": np.zeros((16, 2), np.float32)})
    return {
        **_plain_model(),
        "config.json": _dump({
            "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 16, "eos_token_id": END, "hidden_size": 2,
            "num_hidden_layers": 2,
            "num_attention_heads": 1, "num_key_value_heads": 1, "intermediate_size": 4, "max_position_embeddings": 64, "torch_dtype": "bfloat16",
            "auto_map": {"AutoConfig": "configuration_x.X"}, "rope_scaling": {"type": "yarn", "factor": 2.0}, "tie_word_embeddings": True,
        }),
        "generation_config.json": _dump({
            "bos_token_id": EOS, "pad_token_id": PAD, "eos_token_id": [END, EOS], "do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 20,
            "repetition_penalty": 1.1, "max_length": 32, "stop_strings": ["a"], "suppress_tokens": [3], "transformers_version": "4.37.0",
            "watermarking_config": {"bias": 2.0}, "cache_implementation": "static", "forced_eos_token_id": 11, "num_beams": 1,
        }),
        "tokenizer_config.json": _dump({
            "eos_token": {"content": "<|im_end|>", "lstrip": False}, "pad_token": "<|endoftext|>",
            "chat_template": [{"name": "default", "template": TEMPLATE}],
            "added_tokens_decoder": {"10": {"content": "<|endoftext|>", "special": True}}, "model_max_length": 1e30, "tokenizer_class": "X",
        }),
        "special_tokens_map.json": _dump({"eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>"}}),
        "added_tokens.json": _dump({"<|im_end|>": END}),
        "chat_template.json": _dump({"chat_template": TEMPLATE}),
        "chat_template.jinja": TEMPLATE.encode(),
        "additional_chat_templates/tool_use.jinja": TEMPLATE.encode(),
        "adapter_config.json": _dump({"base_model_name_or_path": "other", "peft_type": "LORA", "r": 8}),
        "model-00001-of-00001.safetensors": tensors,
        "model.safetensors.index.json": _dump({
            "metadata": {"total_size": 128}, "weight_map": {"model.embed_tokens.weight": "model-00001-of-00001.safetensors"}}),
        "preprocessor_config.json": _dump({"image_processor_type": "X", "min_pixels": 4}),
    }  # fmt: skip


def _architectures() -> list[Case]:
    """Configurations of many kinds, for masks and memory."""
    runs = commands(
        "mask inspect model --shape 2,6",
        "mask inspect model --lengths 3,4 --phase decode --cache dynamic",
        "mask test model --shape 1,6 --static",
        "mask inspect model --packed 2,3",
        "mask inspect model --lengths 5,4 --phase chunk:2 --cache static:32",
        "mem kvcache model --batch 2 --length 9 --cache static:64",
        "mem kvcache model --cache quantized:4",
        "mem compare model --strategy deepspeed:zero2,bf16 --strategy trainer:adamw_torch,bf16 --static",
        "mem compare model --strategy deepspeed:zero3,offload --static --world-size 4 --gpu-memory 80GiB",
        "mem kvcache model --length 20 --cache gpt-fast:32",
        "gencfg check model",
    )
    configs = {
        **{f"mask {name}": value for name, value in MASK_CONFIGS.items()},
        **{f"mem {name}": value for name, value in MEM_CONFIGS.items()},
    }
    return [Case(f"config, {name}", {"model/config.json": _dump(value)}, ("model/config.json",), runs) for name, value in configs.items()]


# --- repositories --------------------------------------------------------------------------------------------------------------------

SETTINGS = b"""[tool.llmdoctor]
select = ["GEN", "PYC"]
ignore = ["DIR"]
exclude = ["build/", "*.tmp"]
fail-on = "warning"
baseline = "known.json"
transformers = "5.0.0"
[tool.llmdoctor.per-path-ignores]
"src" = ["PYC001"]
"""


def _trees() -> list[Case]:
    files = {
        "pyproject.toml": SETTINGS,
        ".gitignore": b"build/\n!keep/\n*.pyc\n/a/**/b\n[x-z]\n\\#\n",
        "known.json": b'{"schema": "llmdoctor.baseline/1", "findings": ["a1", "b2"]}',
        "src/train.py": (RULES / "PYC001" / "bad" / "example.py").read_bytes(),
        "models/a/config.json": b'{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "eos_token_id": null}',
        "models/a/generation_config.json": b"{}",
        "package.json": b"{}",
    }
    formats = commands(
        "check",
        "check src models --baseline known.json",
        "check --select PYC --ignore GEN",
        "check --write-baseline new.json",
        "check . src",
        "look .",
        "check --show-settings",
    )
    return [Case("repository", files, tuple(files), formats)]


def _sources() -> list[Case]:
    found = []
    for path in sorted(RULES.glob("PYC*/*/*")):
        name = f"example.{path.suffix[1:]}"
        found.append(
            Case(
                f"source of {'/'.join(path.parts[-3:])}",
                {name: path.read_bytes()},
                (name,),
                commands(f"check {name}", "check .", f"look {name}"),
            )
        )
    return found


# --- recorded outputs and traces -----------------------------------------------------------------------------------------------------


def _outputs() -> list[Case]:
    """A record of every engine and trainer, alone and among others, as JSON lines and as JSON."""
    model = {f"model/{name}": data for name, data in _plain_model().items()}
    runs = commands(
        "gencfg runaway outputs.jsonl",
        "gencfg runaway outputs.jsonl --terminator 11 --max-new-tokens 4",
        "look outputs.jsonl",
        "gencfg runaway outputs.jsonl --model model",
    )
    whole = commands("gencfg runaway outputs.json", "gencfg runaway outputs.json --terminator 11 --text text --ids ids")
    records = {name: value for name, (value, _) in SHAPES.items()}
    found = []
    for name, value in records.items():
        line = json.dumps(value).encode() + b"\n"
        found.append(Case(f"outputs, {name}", {"outputs.jsonl": line * 3, **model}, ("outputs.jsonl",), runs))
    everything = [value for value in records.values() if isinstance(value, dict)]
    found.append(Case("outputs, an array", {"outputs.json": _dump(everything)}, ("outputs.json",), whole))
    table = {"text": ["a b a b a b", "c"], "ids": [[1, 2, 11], [3]], "finish_reason": ["stop", "length"]}
    found.append(Case("outputs, columns", {"outputs.json": _dump(table)}, ("outputs.json",), whole))
    for code in ("GEN014", "GEN015", "GEN016"):
        data = (RULES / code / "bad" / "outputs.jsonl").read_bytes()[:20_000]
        found.append(Case(f"outputs of {code}", {"outputs.jsonl": data, **model}, ("outputs.jsonl",), runs))
    return found


def _traces() -> list[Case]:
    data = TESTS / "gencfg" / "trace" / "data"
    traces = {path.name: b"".join(path.read_bytes().splitlines(keepends=True)[:40]) for path in sorted(data.glob("*.jsonl"))}
    runs = commands(
        "gencfg trace --summary infer.jsonl", "gencfg trace --summary train.jsonl", "gencfg diff train.jsonl infer.jsonl", "gencfg diff infer.jsonl#1",
        "gencfg show infer.jsonl", "look train.jsonl", "sample replay logits.json --tokens tokens.json --claim infer.jsonl",
    )  # fmt: skip
    small = {"logits.json": b"[[1.0, 2.0, 0.5]]", "tokens.json": b"[1]"}
    return [Case("traces", {**traces, **small}, tuple(traces), runs)]


# --- masks ---------------------------------------------------------------------------------------------------------------------------


def _masks() -> list[Case]:
    mask = np.asarray([[0, 1, 1, 1], [1, 1, 1, 1]], np.int64)
    full = np.tril(np.ones((1, 1, 4, 4), np.float32))
    files = {
        "a.npy": _npy(mask),
        "full.npy": _npy(full),
        "a.npz": _npz(attention_mask=mask, input_ids=mask + 4),
        "a.safetensors": _tensors(attention_mask=mask),
        "a.json": _dump({"input_ids": (mask + 4).tolist(), "attention_mask": mask.tolist(), "position_ids": [[0, 1, 0, 1]] * 2}),
    }
    chat = {"chat.json": _dump([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "image": "x.png"}]}])}
    model = {"model/config.json": _dump(MASK_CONFIGS["llama"]), **{f"chat/{name}": data for name, data in _full_model().items()}}
    found = []
    for name, data in files.items():
        runs = commands(
            f"mask inspect model --mask {name}",
            f"mask inspect model --mask {name} --backend eager --query 2", f"mask inspect model --input-ids {name}",
            f"mask test model --mask {name} --static", f"look {name}",
        )  # fmt: skip
        found.append(Case(f"mask, {name}", {name: data, **model}, (name,), runs))
    return [*found, Case("messages", {**chat, **model}, ("chat.json",), commands("mask inspect chat --messages chat.json"))]


# --- memory --------------------------------------------------------------------------------------------------------------------------

DEEPSPEED = {
    "train_batch_size": 8, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4, "gradient_clipping": 1.0,
    "bf16": {"enabled": True, "immediate_grad_update": True}, "fp16": {"enabled": False, "loss_scale": 0},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-5, "betas": [0.9, 0.95]}},
    "zero_optimization": {
        "stage": 2, "reduce_bucket_size": 500000000, "allgather_bucket_size": 2e8, "overlap_comm": True, "contiguous_gradients": True,
        "offload_optimizer": {"device": "cpu", "pin_memory": True}, "offload_param": {"device": "none"}, "sub_group_size": 1e9,
    },
    "data_types": {"grad_accum_dtype": "fp32"}, "zero_allow_untested_optimizer": True,
    "model_init": {"dtype": "bfloat16"}, "client_optimizer": {"class": "AdamW", "kwargs": {"fused": True}},
}  # fmt: skip
TRAINER = b"""optim: adamw_torch_fused
bf16: true
gradient_checkpointing: true
per_device_train_batch_size: 2
gradient_accumulation_steps: 4
deepspeed: ds.json
fsdp: ""
optim_args: "betas=(0.9,0.95)"
torch_compile: false
"""
PHASE = {
    "schema": "llmdoctor.mem/1", "kind": "phase", "rank": 0, "step": 2, "phase": "between steps", "device": "cuda", "strategy": "deepspeed:zero2,bf16",
    "components": {"params": 4096, "optimizer_state": 8192, "grads": 0}, "peak_bytes": 20000, "peak_so_far_bytes": 20000, "allocated_bytes": 12288,
    "peak": {"bytes": 20000, "by_site": [["a.py:1 f", 100, 2]], "by_component": {"activations": 3}},
}  # fmt: skip


def _memory() -> list[Case]:
    model = {"model/config.json": _dump(MEM_CONFIGS["qwen2"])}
    ds = {"ds.json": _dump(DEEPSPEED), **model}
    trainer = {"args.yaml": TRAINER, "args.json": _dump({"optim": "adafactor", "bf16": True, "per_device_train_batch_size": 2}), **ds}
    records = [PHASE, {**PHASE, "phase": "backward", "rank": 1}, {"schema": "llmdoctor.mem/1", "kind": "fault", "error": "x", "where": "y"}]
    lines = {"run.jsonl": b"".join(json.dumps(record).encode() + b"\n" for record in records), **model}
    return [
        Case("DeepSpeed JSON", ds, ("ds.json",), commands(
            "mem compare model --strategy ds.json --static", "mem compare model --strategy ds.json --strategy deepspeed:zero3,bf16 --batch 2 --static",
            "mem compare model --strategy ds.json --world-size 4 --gpu-memory 24GB --static",
        )),
        Case("TrainingArguments", trainer, ("args.yaml", "args.json"), commands(
            "mem compare model --strategy args.yaml --static", "mem compare model --strategy args.json --static --gradient-checkpointing",
        )),
        Case("measured records", lines, ("run.jsonl",), commands(
            "mem measure --summary run.jsonl", "look run.jsonl", "mem compare model --strategy deepspeed:zero2,bf16 --static --measured run.jsonl",
        )),
        Case("memory snapshot", {"s.pickle": pickle.dumps(SNAPSHOT)}, ("s.pickle",), commands("mem measure --snapshot s.pickle", "look s.pickle")),
    ]  # fmt: skip


# --- what check reads besides models and code ------------------------------------------------------------------------------------------

ACCELERATE = b"""compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
mixed_precision: bf16
deepspeed_config: &a
  zero_stage: 2
  offload_param_device: cpu
  zero3_init_flag: true
copy: *a
"""
REQUEST = {
    "model": "model", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "top_p": 0.9, "stop": ["a"], "n": 2, "max_tokens": 5,
    "extra_body": {"top_k": 3, "ignore_eos": True},
}  # fmt: skip


def _linked() -> list[Case]:
    """Training configurations, requests, batches and a checkpoint's pickle, each mutated among the files that it names or is named by."""
    line = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": REQUEST}).encode() + b"\n"
    arguments = {"output_dir": "o", "per_device_train_batch_size": 2, "bf16": True, "deepspeed": DEEPSPEED}
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(arguments, 2))  # as torch.save does
    files = {
        "ds.json": _dump({**DEEPSPEED, "bf16": {"enabled": "auto", "loss_scale": 0}}),
        "args.yaml": b"output_dir: o\n" + TRAINER,
        "args.json": _dump(arguments),
        "accelerate.yaml": ACCELERATE,
        "axolotl.yml": b"base_model: m\ndatasets: [{path: d}]\nmicro_batch_size: 2\nsequence_len: 8\nbf16: auto\ndeepspeed: ds.json\n",
        "request.json": _dump(REQUEST),
        "batch.jsonl": line * 3,
        "a/training_args.bin": pickle.dumps(arguments),
        "b/training_args.bin": zipped.getvalue(),
        "run.sh": b"deepspeed train.py --deepspeed_config ds.json\n",
        "train.py": b'import deepspeed\n\ndeepspeed.initialize(config="ds.json")\n',
        "model/generation_config.json": _dump({"temperature": 0.6, "top_k": 20, "do_sample": True, "eos_token_id": 1}),
        "pyproject.toml": b'[tool.llmdoctor]\ngpu-memory = "16GiB"\n',
    }
    mutable = tuple(name for name in files if name != "model/generation_config.json")
    runs = commands("check", "check . --ignore PYC", "check ds.json request.json batch.jsonl a/training_args.bin")
    return [Case("files that name each other", files, mutable, runs)]


# --- training configurations and requests --------------------------------------------------------------------------------------------

CHECKS = commands("check", "check --diff", "check --fix", "check --fix --unsafe-fixes", "check --select MEM --fail-on never")
AXOLOTL = b"""base_model: org/model
adapter: lora
lora_r: 8
bf16: auto
micro_batch_size: 2
gradient_accumulation_steps: 4
deepspeed: ds.json
optimizer: adamw_torch
"""
FACTORY = b"""model_name_or_path: org/model
stage: sft
finetuning_type: lora
deepspeed: ds.json
per_device_train_batch_size: 1
fp16: true
"""


class _State:
    """What is pickled under the name of TrainingArguments."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def _training_args() -> bytes:
    """training_args.bin as torch.save writes it, by hand: no library is needed to make it."""
    data = pickle.dumps(_State(optim="adamw_torch", fp16=True, bf16=False, deepspeed="ds.json", output_dir="out", max_grad_norm=1.0), 2)
    data = data.replace(f"{__name__}\n_State".encode(), b"transformers.training_args\nTrainingArguments")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", b"3\n")
    return out.getvalue()


def _configurations() -> list[Case]:
    files = {
        "ds.json": _dump(DEEPSPEED), "training_args.bin": _training_args(), "axolotl.yaml": AXOLOTL, "factory.yaml": FACTORY, "trainer.yaml": TRAINER,
        "accelerate.yaml": b"distributed_type: DEEPSPEED\ndeepspeed_config:\n  zero_stage: 3\nmixed_precision: bf16\n",
    }  # fmt: skip
    request = {
        "request.json": _dump(
            {"model": "m", "messages": [{"role": "user", "content": "a"}], "temperature": 0, "top_p": 1.5, "max_tokens": 5}
        )
    }
    found = [
        Case(
            "configurations", files, tuple(files), (*CHECKS, *commands(*(f"look {name}" for name in files), "check ds.json axolotl.yaml"))
        ),
        Case("request", request, tuple(request), (*CHECKS, *commands("look request.json", "check request.json"))),
    ]
    for folder in sorted([*RULES.glob("MEM*/*"), *RULES.glob("GEN0[12]*/*"), *RULES.glob("SMP00[56]/*")]):
        inside = _folder(folder, ".")
        if inside and "./outputs.jsonl" not in inside and "./generation_config.json" not in inside:
            found.append(Case(f"files of {folder.parent.name}/{folder.name}", inside, tuple(inside), CHECKS))
    return found


# --- samples -------------------------------------------------------------------------------------------------------------------------


def _samples() -> list[Case]:
    random = np.random.default_rng(0)
    rows = random.normal(size=(5, 7)).astype(np.float32)
    tokens = {"tokens.json": b"[0, 1, 2, 3, 4]"}
    claim = {
        "claim.json": _dump(
            {"engine": "vllm", "temperature": 0.7, "top_p": 0.9, "top_k": 4, "min_p": 0.05, "repetition_penalty": 1.1, "seed": 1}
        )
    }
    step = {"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -2.5}]}
    chat = {"request": {"temperature": 0.7, "top_p": 0.9}, "response": {"choices": [{"logprobs": {"content": [step, step]}}]}}
    vllm = {
        "outputs": [
            {
                "token_ids": [1, 2],
                "logprobs": [{"1": {"logprob": -0.5, "rank": 1, "decoded_token": "a"}, "2": {"logprob": -1.5, "rank": 2}}] * 2,
            }
        ]
    }
    sglang = {
        "text": "a",
        "meta_info": {"output_token_logprobs": [[-0.5, 1, "a"]], "output_top_logprobs": [[[-0.5, 1, "a"], [-1.5, 2, "b"]]]},
    }
    logprobs = {"logprobs.json": _dump([-0.1, -0.5, -1.0, -2.0, -0.3]), "new.json": _dump({"logprobs": [[-0.1, -0.5], [-1.0, -2.0, -0.4]]})}
    files = {
        "x.npy": _npy(rows), "x.npz": _npz(scores=rows, tokens=np.arange(5)), "x.safetensors": _tensors(logits=rows), "x.json": _dump(rows.tolist()),
    }  # fmt: skip
    found = []
    for name, data in files.items():
        runs = commands(
            f"sample engines --logits {name} --temperature 0.7 --top-p 0.9 --top-k 3",
            f"sample replay {name} --tokens tokens.json --temperature 0.7",
            f"sample replay {name} --tokens tokens.json --claim claim.json",
            f"sample draw --logits {name} --temperature 0.5 -n 20",
            f"sample replay {name} --tokens tokens.json --temperature 1 --logprobs logprobs.json",
            f"sample replay {name} --tokens tokens.json --temperature 1 --step 1",
            f"look {name}",
        )
        everything = {name: data, **tokens, **claim, **logprobs}
        found.append(Case(f"logits, {name}", everything, (name, name, "tokens.json", "claim.json", "logprobs.json"), runs))
    for name, value in (("chat", chat), ("vllm", vllm), ("sglang", sglang)):
        line = {"r.json": _dump(value), "r.jsonl": json.dumps(value).encode() + b"\n" + json.dumps(value).encode() + b"\n", **claim}
        runs = commands(
            "sample replay r.json", "sample replay r.jsonl --temperature 0.7", "sample replay r.json --claim claim.json --engine vllm"
        )
        found.append(Case(f"responses, {name}", line, ("r.json", "r.jsonl", "claim.json"), runs))
    draws = {"probs.json": b"[0.5, 0.4, 0.1]", "draws.json": b"[0, 1, 1, 0, 2, 0, 1, 0]", "draws.npy": _npy(np.asarray([0, 1, 1, 2]))}
    found.append(Case("draws", draws, tuple(draws), commands(
        "sample draw --probs probs.json --draws draws.json", "sample draw --probs probs.json --draws draws.npy", "sample draw --probs probs.json -n 30",
        "sample engines --logits probs.json",
    )))  # fmt: skip
    found.append(Case("two sides", logprobs, tuple(logprobs), commands(
        "sample replay --logprobs logprobs.json --versus new.json", "sample replay --logprobs new.json --versus new.json",
        "sample compare logprobs.json new.json",
    )))  # fmt: skip
    for folder in sorted(RULES.glob("SMP00[1-4]/bad")):
        inside = {path.name: path.read_bytes() for path in folder.iterdir()}
        given = [name for name in ("claim.json", "tokens.json", "logprobs.json") if name in inside]
        if "logits.json" in inside:
            options = " ".join(f"--{name.split('.')[0]} {name}" for name in given)
            found.append(Case(f"replay of {folder.parent.name}", inside, tuple(inside), commands(f"sample replay logits.json {options}")))
    return found


# --- labels, prompts, logs and two sides' log-probabilities ----------------------------------------------------------------------------

OOM = b"""torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.16 GiB. GPU 0 has a total capacity of 23.64 GiB of which 300.19 MiB is free.
Including non-PyTorch memory, this process has 23.34 GiB memory in use. Of the allocated memory 21.50 GiB is allocated by PyTorch, and 1.02 GiB
is reserved by PyTorch but unallocated.
"""
TEMPLATE_END = "<|im_end|>"
CHATS = [
    {"messages": [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Blue."}]},
    {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
]


def _word_tokenizer() -> bytes:
    """A whole tokenizer.json that the tokenizers package loads: one token per word."""
    words = ["[UNK]", TEMPLATE_END, "system", "user", "assistant", "Name", "a", "colour", ".", "Blue", "q", "s"]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return _dump(
        {
            "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None, "decoder": None,
            "added_tokens": [{"id": 0, "content": "[UNK]", **plain}, {"id": 1, "content": TEMPLATE_END, **plain}],
            "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "WordLevel", "vocab": {word: at for at, word in enumerate(words)}, "unk_token": "[UNK]"},
        }
    )  # fmt: skip


def _command_lines() -> list[Case]:
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": TEMPLATE_END,
        "chat_template": "{% for message in messages %}{{ message.role }} {{ message.content }}<|im_end|>{% endfor %}",
    }
    model = {
        "model/tokenizer.json": _word_tokenizer(),
        "model/tokenizer_config.json": _dump(tokenizer),
        "model/config.json": b'{"model_type": "qwen2"}',
    }
    data = {
        "data.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in CHATS),
        "sft.yaml": b"max_length: 64\nassistant_only_loss: true\n",
    }
    chat = {"chat.json": _dump(CHATS[1]["messages"])}
    return [
        Case("training rows", {**data, **model}, (*data, *model), commands(
            "labels inspect model data.jsonl --row 0", "labels audit model data.jsonl --config sft.yaml",
            "labels audit model data.jsonl --trainer trl-dpo",
        )),
        Case("messages of a prompt", {**chat, **model}, tuple(chat), commands("prompt diff model --messages chat.json")),
        Case("out-of-memory message", {"oom.log": OOM}, ("oom.log",), commands("mem oom oom.log", "look oom.log")),
        Case("presets", {"x": b""}, ("x",), commands("gencfg presets", "gencfg presets trl-ppo")),
    ]  # fmt: skip

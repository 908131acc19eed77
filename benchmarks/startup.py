"""Start-up and reading, as ratios to a bare Typer command in the same environment, within one run.

    .venv/bin/python benchmarks/startup.py [--corpus DIR] [--rounds N] [--others]

The unit is one argument and one rich print. `--corpus` is a folder of model directories; without it twenty are made. Times are the
smallest of the rounds, interleaved, so that a busy machine hurts all alike. The package is compiled first, as an installer does it: with
PYTHONDONTWRITEBYTECODE set, its source would be compiled at each start, and that of typer and rich would not. Exit 1 if a limit of the
project is missed.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import llmdoctor

UNIT = """import typer
from rich import print
app = typer.Typer()
@app.command()
def main(name: str) -> None:
    print(f"hello {name}")
app()
"""
BIN = Path(sys.executable).parent


def main() -> int:
    options = _options()
    root = Path(tempfile.mkdtemp(prefix="llmdoctor-bench-"))
    try:
        return _run(options, root)
    finally:
        shutil.rmtree(root)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="a folder of model directories")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--others", action="store_true", help="also time transformers env, accelerate --help, ds_report")
    return parser.parse_args()


def _run(options: argparse.Namespace, root: Path) -> int:
    compileall.compile_dir(Path(llmdoctor.__file__).parent, quiet=1)
    (root / "unit.py").write_text(UNIT)
    model = _model(root / "model")
    large = _model(root / "large", vocabulary=190_000)
    corpus = options.corpus or _corpus(root / "corpus", model)
    doctor = str(BIN / "llmdoctor")
    file = str(large / "tokenizer.json")
    read = f"import orjson, time; t = time.perf_counter(); orjson.loads(open({file!r}, 'rb').read()); print(time.perf_counter() - t)"
    directories = [str(path) for path in sorted(corpus.iterdir()) if path.is_dir()]
    commands = {
        "unit": [sys.executable, str(root / "unit.py"), "x"],
        "llmdoctor --help": [doctor, "--help"],
        "gencfg check DIR": [doctor, "gencfg", "check", str(model)],
        f"gencfg check, {len(directories)} directories": [doctor, "gencfg", "check", *directories],
        "gencfg check, 15 MB tokenizer.json": [doctor, "gencfg", "check", str(large)],
    }
    best = dict.fromkeys(commands, float("inf"))
    parse = float("inf")
    for _ in range(options.rounds):
        for name, command in commands.items():
            best[name] = min(best[name], _timed(command))
        parse = min(parse, float(subprocess.run([sys.executable, "-c", read], capture_output=True, check=True).stdout))
    unit = best["unit"]
    size = (large / "tokenizer.json").stat().st_size / 1e6
    start = best["gencfg check DIR"]
    extra = max(best["gencfg check, 15 MB tokenizer.json"] - start, 0.0)
    rows = [
        ("llmdoctor --help", best["llmdoctor --help"] / unit, 1.4, "x the unit"),
        ("gencfg check DIR", start / unit, 1.6, "x the unit"),
        (f"gencfg check, {len(directories)} directories", best[f"gencfg check, {len(directories)} directories"] / unit, 8.0, "x the unit"),
        (f"{size:.0f} MB tokenizer.json, over start-up", extra / parse, 2.0, "x orjson's time"),
        ("peak memory of gencfg check DIR", _peak(commands["gencfg check DIR"]), 80.0, "MB"),
    ]
    print(f"unit: a bare Typer command, {unit * 1000:.0f} ms here; orjson reads the large file in {parse * 1000:.0f} ms")
    for name, value, limit, what in rows:
        print(f"{'ok  ' if value <= limit else 'MISS'} {name:44} {value:6.2f} {what} (at most {limit:g})")
    if options.others:
        _others(unit)
    return int(any(value > limit for _, value, limit, _ in rows))


def _others(unit: float) -> None:
    commands = {
        "llmdoctor env": [str(BIN / "llmdoctor"), "env"],
        "transformers env": [str(BIN / "transformers"), "env"],
        "accelerate --help": [str(BIN / "accelerate"), "--help"],
        "ds_report": [str(BIN / "ds_report")],
    }
    for name, command in commands.items():
        if Path(command[0]).exists():
            print(f"     {name:44} {min(_timed(command) for _ in range(3)) / unit:6.2f} x the unit")


def _timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False)
    return time.perf_counter() - start


def _peak(command: list[str]) -> float:
    """Megabytes of the largest process that the command had."""
    script = (
        f"import resource, subprocess; subprocess.run({command!r}, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    return int(out.stdout) * (1024 if sys.platform != "darwin" else 1) / 1e6


def _model(path: Path, vocabulary: int = 1000) -> Path:
    """A directory with the files of an ordinary chat model, and a tokenizer of so many words."""
    path.mkdir(parents=True)
    end, start = vocabulary + 1, vocabulary + 2
    config = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": vocabulary + 10, "eos_token_id": end}
    template = (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    added = [
        {"id": vocabulary, "content": "<|endoftext|>", "special": True},
        {"id": end, "content": "<|im_end|>", "special": True},
        {"id": start, "content": "<|im_start|>", "special": True},
    ]
    letters = random.Random(0)
    words = ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=letters.randint(3, 9))) + str(index) for index in range(vocabulary)]
    merges = [[word[:2], word[2:]] for word in words]
    files = {
        "config.json": config,
        "generation_config.json": {"do_sample": True, "eos_token_id": [end, vocabulary], "pad_token_id": vocabulary, "temperature": 0.7},
        "tokenizer_config.json": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": template},
        "special_tokens_map.json": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": added,
            "model": {"type": "BPE", "vocab": {word: index for index, word in enumerate(words)}, "merges": merges},
        },
    }
    for name, value in files.items():
        (path / name).write_text(json.dumps(value, indent=2))
    return path


def _corpus(path: Path, model: Path) -> Path:
    for index in range(20):
        shutil.copytree(model, path / f"model{index}")
    return path


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())

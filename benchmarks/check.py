"""`llmdoctor check` against `ruff check --select F --no-cache` on one repository: 2,000 real Python files and 20 model directories.

    .venv/bin/python benchmarks/check.py [--rounds N] [--tree DIR]

The Python files are those of transformers, trl, accelerate, deepspeed and torch as installed, sorted by path and thinned evenly to
2,000: the code that the rules are about, with more to read in it than a repository of users has. The model directories have a
tokenizer.json as large as those in use (32,000 to 152,000 words), a chat template and a generation config. Rounds are interleaved, and
of each command the fastest counts. How many cores there are to have on a machine with other work on it is told by endless loops, one a
core, in the same round. Exit 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from startup import _model  # noqa: E402

PACKAGES = ("transformers", "trl", "accelerate", "deepspeed", "torch")
FILES, MODELS = 2_000, 20
RATIO, SHARE = 6.0, 0.75
VOCABULARIES = (151_643, 128_000, 50_257, 32_000)  # Qwen2.5, Llama 3, GPT-2, Llama 2


def main() -> int:
    """Build the tree, time both, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tree", type=Path, help="keep the repository here, and take it where it is there already")
    options = parser.parse_args()
    root = options.tree or Path(tempfile.mkdtemp(prefix="llmdoctor-check-"))
    try:
        if not (root / "models").exists():
            build(root)
        return compare(root, options.rounds)
    finally:
        if options.tree is None:
            shutil.rmtree(root)


def build(root: Path) -> None:
    """The repository: code under src/, model directories under models/."""
    sources = [path for name in PACKAGES for path in _python(name)]
    for number in range(FILES):
        origin, name = sources[number * len(sources) // FILES]
        target = root / "src" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(origin, target)
    for number in range(MODELS):
        _model(root / "models" / f"model{number}", VOCABULARIES[number % len(VOCABULARIES)])
    (root / ".gitignore").write_text("__pycache__/\n*.pyc\nbuild/\n")


def _python(package: str) -> list[tuple[Path, str]]:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"{package} is not installed: the tree is made of it")
    base = Path(spec.origin).parent
    return [(path, str(path.relative_to(base.parent))) for path in sorted(base.rglob("*.py"))]


def compare(root: Path, rounds: int) -> int:
    """Interleaved rounds; of each command the fastest."""
    ruff = shutil.which("ruff") or str(Path(sys.executable).parent / "ruff")
    commands = {
        "ruff": [ruff, "check", "--select", "F", "--no-cache", "--quiet", "--isolated", "."],
        "check": [sys.executable, "-m", "llmdoctor", "check", "--format", "json:" + os.devnull, "."],
        "start-up": [sys.executable, "-m", "llmdoctor", "check", "--format", "json:" + os.devnull, "empty"],
    }
    (root / "empty").mkdir(exist_ok=True)
    (root / "empty" / "x.py").write_text("")
    best = dict.fromkeys(commands, (float("inf"), 0.0))
    used, free = [], []
    for _ in range(rounds):
        free.append(_cores_to_have(root))
        for name, command in commands.items():
            taken = _timed(command, root)
            best[name] = min(best[name], taken)
            used += [taken[1] / taken[0]] if name == "check" else []
    megabytes = sum(path.stat().st_size for path in root.rglob("*.py")) / 1e6
    (ruff_wall, ruff_cpu), (wall, _), (start, _) = best["ruff"], best["check"], best["start-up"]
    ratio, share = (wall - start) / ruff_wall, max(used) / max(free)
    print(f"{FILES:,} Python files, {megabytes:.0f} MB, and {MODELS} model directories; {max(free):.2f} of {os.cpu_count()} cores to have")
    print(f"     ruff check --select F --no-cache  {ruff_wall:6.2f} s, {ruff_cpu / ruff_wall:.2f} cores")
    print(f"     llmdoctor check                   {wall:6.2f} s, {max(used):.2f} cores, start-up {start:.2f} s of it")
    rows = (
        ("over start-up, x ruff", ratio, ratio <= RATIO, f"at most {RATIO:g}"),
        ("cores used, of those to have", share, share >= SHARE, f"at least {SHARE:g}"),
    )
    for what, value, good, limit in rows:
        print(f"{'ok  ' if good else 'MISS'} {what:33} {value:6.2f}   ({limit})")
    return int(not all(good for _, _, good, _ in rows))


def _cores_to_have(folder: Path) -> float:
    loop = "import time\nend = time.time() + 0.5\nwhile time.time() < end: pass"
    script = f"import subprocess, sys\nfor each in [subprocess.Popen([sys.executable, '-c', {loop!r}]) for _ in range({os.cpu_count()})]: each.wait()"
    wall, cpu = _timed([sys.executable, "-c", script], folder)
    return cpu / wall


def _timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds of a command by the clock, and of processor time with its children."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())

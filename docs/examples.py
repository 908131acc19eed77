"""Write the examples into the pages: runs each command for real, and puts what it prints between the marks of the page.

`make docs` runs it, CI checks that it changes nothing.
`<!-- example: NAME -->` is where an example begins, `<!-- /example -->` where it ends.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARK = re.compile(r"(<!-- example: ([\w-]+) -->\n).*?(<!-- /example -->)", re.DOTALL)

EXAMPLES = {
    "gencfg-diff": "llmdoctor gencfg diff qwen2-vl-tiny --config call.json --right-preset trl-ppo@1.0.0",
    "mask-inspect": "llmdoctor mask inspect Qwen2-VL-2B --shape 1,32768 | head -n 11",
    "mem-compare": "llmdoctor mem compare Qwen2-VL-2B --strategy trainer.json --strategy zero2.json --batch 1 --seq-len 512 | head -n 20",
    "sample-replay": "llmdoctor sample replay rollout.npz --engine transformers --temperature 0.7 --top-p 0.9 | head -n 10",
    "check": "llmdoctor check repository",
    "check-training": "llmdoctor check training",
    "callsites": "llmdoctor check train.py",
    "look": "llmdoctor look rollout.npz",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "docs" / "examples", folder, dirs_exist_ok=True)
        printed: dict[str, str] = {}
        for page in PAGES:
            text = page.read_text()
            for wanted in MARK.finditer(text):
                if wanted.group(2) not in printed:
                    printed[wanted.group(2)] = run(EXAMPLES[wanted.group(2)], folder)
            new = MARK.sub(lambda found: f"{found.group(1)}{printed[found.group(2)]}{found.group(3)}", text)
            if new != text:
                page.write_text(new)


def run(command: str, folder: Path) -> str:
    """The command and what it prints, as a block of a page."""
    env = {
        **os.environ,
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{command}\n{done.stderr}")
    return f"```\n$ {command}\n{done.stdout.rstrip()}\n```\n"


def rollout(path: Path) -> None:
    """Write 200 tokens drawn in llama.cpp's order, top_p 0.9 before temperature 0.7, from logits that fall off as a language model's do.

    docs/examples/rollout.npz was made by it: `python -c "import runpy; runpy.run_path('docs/examples.py')['rollout']('rollout.npz')"`.
    """
    generator = np.random.Generator(np.random.PCG64(7))
    logits = (-1.5 * np.log1p(np.arange(400)) + generator.normal(0, 1.5, (200, 400))).astype(np.float16)
    tokens = []
    for row in logits.astype(np.float64):
        order = np.argsort(-row)
        mass = np.exp(row[order] - row.max())
        before = np.cumsum(mass / mass.sum()) - mass / mass.sum()
        kept = order[before < 0.9]
        weights = np.exp(row[kept] / 0.7 - (row[kept] / 0.7).max())
        tokens.append(int(generator.choice(kept, p=weights / weights.sum())))
    np.savez_compressed(path, logits=logits, tokens=np.array(tokens))


if __name__ == "__main__":
    main()

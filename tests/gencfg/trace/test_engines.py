"""Rollouts through vLLM: each SamplingParams is recorded with its line.

A struct with the parts of vLLM's own that the recorder touches stands here; conformance/trace_vllm.py runs vLLM's own file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

STRUCT = """import msgspec
class SamplingParams(msgspec.Struct):
    temperature: float = 1.0
    max_tokens: int = 16
    ignore_eos: bool = False
    _eos_token_id: int = 0
    def __post_init__(self):
        self._verify_args()
    def _verify_args(self):
        if self.temperature < 0:
            raise ValueError("negative")
"""
SCRIPT = """from vllm.sampling_params import SamplingParams
for _ in range(1200):
    SamplingParams(temperature=0.5, ignore_eos=True)
try:
    SamplingParams(temperature=-1.0)
except ValueError as error:
    print(error)
"""


def test_sampling_params_are_recorded_with_their_line_and_not_without_end(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("")
    (tmp_path / "vllm" / "sampling_params.py").write_text(STRUCT)
    (tmp_path / "rollout.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "llmdoctor", "gencfg", "trace", "-o", "run.jsonl", "--", sys.executable, "rollout.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env={**os.environ, "NO_COLOR": "1"})
    records = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    made = [record for record in records if record["kind"] == "vllm"]
    assert done.stdout == "negative\n"
    assert len(made) == 1000
    assert {record["line"] for record in made} == {3}
    assert made[0]["sampling_params"] == {"temperature": 0.5, "max_tokens": 16, "ignore_eos": True}
    assert "the rollouts went through vLLM" in done.stderr
    assert "rollout.py:3" in done.stderr

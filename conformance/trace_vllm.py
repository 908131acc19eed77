"""Hold `llmdoctor gencfg trace` against vLLM's own SamplingParams: is every set of parameters of a run recorded, with its line?

    pip download --no-deps vllm==0.33.0 -d DIR && unzip -q DIR/vllm-*.whl 'vllm/sampling_params.py' -d DIR
    python conformance/trace_vllm.py DIR/vllm/sampling_params.py

Only that one file of vLLM is run, in a package of stand-ins for the modules around it, because vLLM itself wants a GPU.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

STAND_INS = {
    "__init__": "",
    "envs": "VLLM_MAX_N_SEQUENCES = 16384\nVLLM_BATCH_INVARIANT = False\n",
    "config": "ModelConfig = SpeculativeConfig = StructuredOutputsConfig = object\n",
    "exceptions": "class VLLMValidationError(ValueError):\n    def __init__(self, message='', **_): super().__init__(message)\n",
    "logger": "import logging\ndef init_logger(name):\n    log = logging.getLogger(name)\n    log.warning_once = log.warning\n    return log\n",
    "tokenizers": "TokenizerLike = object\n",
    "utils/__init__": "",
    "utils/mistral": "is_mistral_tokenizer = lambda _: False\n",
    "utils/torch_utils": "make_ndarray_with_pad = None\n",
    "v1/__init__": "",
    "v1/serial_utils": "class PydanticMsgspecMixin: pass\n",
}
SCRIPT = """from vllm.sampling_params import SamplingParams
rollout = SamplingParams(temperature=0.7, top_p=0.9, max_tokens=512, ignore_eos=True)
evaluation = SamplingParams(n=2, stop=["END"], stop_token_ids=[7])
try:
    SamplingParams(temperature=-1.0)
except ValueError as error:
    print("refused:", error)
"""
WANTED = [
    (2, {"temperature": 0.7, "top_p": 0.9, "max_tokens": 512, "ignore_eos": True}),
    (3, {"n": 2, "stop": ["END"], "stop_token_ids": [7]}),
    (5, {"temperature": -1.0}),
]


def main() -> int:
    """Run the script under trace, and compare what was recorded."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, text in STAND_INS.items():
            path = folder / "vllm" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        shutil.copy(sys.argv[1], folder / "vllm" / "sampling_params.py")
        (folder / "rollout.py").write_text(SCRIPT)
        command = [sys.executable, "-m", "llmdoctor", "gencfg", "trace", "-o", "run.jsonl", "--", sys.executable, "rollout.py"]
        done = subprocess.run(command, cwd=folder, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, check=False)
        records = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    print(done.stdout + done.stderr, end="")
    found = [(record["line"], record["sampling_params"]) for record in records if record["kind"] == "vllm"]
    right = len(found) == len(WANTED) and all(
        line == wanted_line and wanted.items() <= params.items()
        for (line, params), (wanted_line, wanted) in zip(found, WANTED, strict=True)
    )
    faults = [record for record in records if record["kind"] == "fault"]
    print("right" if right and not faults else f"WRONG: {found} {faults}")
    return int(not right or bool(faults))


if __name__ == "__main__":
    sys.exit(main())

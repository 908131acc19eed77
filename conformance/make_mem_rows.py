"""Take rows of a measured file (one JSON object a line, as the memory oracle has them) into tests/mem/measured.jsonl, short.

    python conformance/make_mem_rows.py ROWS.jsonl STRATEGIES_DIR MODELS_DIR

Each row keeps its model's config, its strategy, its options and what was measured on the device, nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

KEPT = (
    "qwen2vl2b.trainer.bf16.adamw_torch_fused",
    "qwen2vl2b.ds.z2.FusedAdam",
    "qwen2vl2b.ds.z3.torch_adam",
    "qwen2vl2b.trainer+ds.z2.hfopt.adamw_torch",
    "qwen2vl2b.trainer.bf16.adafactor",
    "qwen2vl2b.trainer.bf16.adamw_torch.img448",
    "qwen2vl2b.deepspeed.z2.FusedAdam.img448.train_vision",
    "qwen05b.ds.z0.FusedAdam",
    "qwen05b.ds.z1.gradaccum_fp32",
    "qwen05b.ds.z2.gradaccum_fp32",
    "qwen05b.ds.z2.bf16master_bf16states",
    "qwen05b.ds.z2.offload_opt",
    "qwen05b.ds.z3.offload_opt_param",
    "qwen05b.trainer.bf16.adamw_bnb_8bit",
    "qwen05b.trainer.bf16.adamw_torch.ga2",
    "qwen05b.trainer.bf16.adamw_torch.S2048.gc",
    "qwen05b.trainer.bf16.adamw_torch.eager",
    "qwen05b.trainer.bf16.lora16.adamw_torch",
    "qwen05b.trainer.fp32+amp_fp16.adamw_torch_fused",
    "llama1b.trainer.bf16.adamw_torch",
)


def main(rows: str, strategies: str, models: str) -> None:
    target = Path(__file__).parents[1] / "tests" / "mem" / "measured.jsonl"
    with target.open("w") as file:
        for row in map(json.loads, Path(rows).read_text().splitlines()):
            if row["id"] in KEPT:
                options = row["args"][5:-2]
                kept = {
                    "id": row["id"], "device": row["device"], "versions": row["versions"], "options": options,
                    "config": json.loads((Path(models) / row["model"] / "config.json").read_text()),
                    "strategy": json.loads((Path(strategies) / row["strategy"]).read_text()),
                    "steady": row["measured"]["steady"], "peak": row["measured"]["peak"],
                }  # fmt: skip
                file.write(json.dumps(kept) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Run under torchrun: DeepSpeed's real ZeRO 1, 2 and 3 on a CPU, and what each process holds after a step, as JSON lines.

torchrun --nproc_per_node N partitions_worker.py CONFIG.json OUT_FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("DS_ACCELERATOR", "cpu")


def main(model_path: str, cases_path: str, out: str) -> None:
    import deepspeed
    import torch

    from llmdoctor.mem.live.inventory import inventory
    from llmdoctor.mem.live.real_model import real_model
    from llmdoctor.mem.live.worker import no_compiler
    from llmdoctor.mem.workload import Workload

    no_compiler()
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    rank = torch.distributed.get_rank()
    ids = torch.randint(0, 1003, (1, 16))
    for name, config in json.loads(Path(cases_path).read_text()).items():
        dtype = "bfloat16" if config.get("bf16", {}).get("enabled") else "float32"
        model = real_model(model_path, Workload(dtype=dtype, use_cache=False), torch.device("cpu"))
        try:
            engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
            for _ in range(2):
                engine.backward(engine(input_ids=ids, labels=ids).loss)
                engine.step()
            found = {"held": inventory([model], [engine.optimizer])["cpu"]}
            engine.destroy()
            del engine
        except Exception as error:  # noqa: BLE001 - a release that refuses a case is an answer of conformance/deepspeed_partitions.py
            found = {"error": f"{type(error).__name__}: {error}"[:160]}
        with open(f"{out}/{rank}.jsonl", "a") as file:
            file.write(json.dumps({"case": name, "rank": rank, **found}) + "\n")
        del model


if __name__ == "__main__":
    main(*sys.argv[1:])

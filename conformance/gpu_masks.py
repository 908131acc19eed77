"""The real kernels on a GPU against the plan: `python conformance/gpu_masks.py [--length 2048] > docs/mask-gpu.md`.

Llama-8B and Qwen2-VL-2B widths, two layers, random weights, bfloat16. For each case and backend: what each layer was handed against the plan,
the logits of real tokens against eager's, and the peak memory of the forward. sdpa also runs with every kernel but flash switched off, so
that a mask would raise; flex_attention is compiled. flash_attention_2 runs where flash-attn is installed, else its place says so.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from llmdoctor.mask import architectures
from llmdoctor.mask.differ import real_queries
from llmdoctor.mask.forward_inputs import forward_inputs
from llmdoctor.mask.options import MaskOptions
from llmdoctor.mask.plan import plan
from llmdoctor.mask.screen import object_text, size_text
from llmdoctor.mask.types import BackendPlan, ForwardInputs

TEXT = {
    "num_hidden_layers": 2,
    "vocab_size": 32000,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 32768,
}
LLAMA = {
    **TEXT, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_key_value_heads": 8, "dtype": "bfloat16",
}  # fmt: skip
QWEN = {
    "model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"], "image_token_id": 31000, "video_token_id": 31001,
    "dtype": "bfloat16",
    "text_config": {
        **TEXT, "model_type": "qwen2_vl_text", "hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]},
    },
    "vision_config": {"model_type": "qwen2_vl_vision", "depth": 1, "embed_dim": 64, "num_heads": 2, "hidden_size": 1536, "mlp_ratio": 2},
}  # fmt: skip
ROWS = ("eager", "sdpa", "sdpa, flash kernel only", "flex_attention", "flash_attention_2")


def cases(length: int) -> dict[str, dict[str, Any]]:
    short = length * 3 // 4
    return {
        "plain": {"shape": f"1,{length}"},
        "left-padded": {"lengths": f"{short},{length}"},
        "packed": {"packed": f"{short},{length - short}"},
        "decode": {"lengths": f"{short},{length}", "phase": "decode"},
    }


def main() -> int:
    import torch
    import transformers

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=2048)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_masks: no CUDA device here", file=sys.stderr)
        return 2
    from llmdoctor.mask.live import build, patches

    build.quiet()
    warnings.simplefilter("ignore")
    flash = patches.has_flash_attn()
    card, today = torch.cuda.get_device_name(), datetime.datetime.now(datetime.timezone.utc)
    print(
        f"# Masks on a GPU\n\n{today:%Y-%m-%d}, {card}, torch {torch.__version__}, transformers {transformers.__version__}, {flash_version(flash)}."
    )
    print(f"\n`python conformance/gpu_masks.py --length {options.length}`\n")
    wrong = 0
    for name, config in (("Llama, 8B widths", LLAMA), ("Qwen2-VL, 2B widths", QWEN)):
        print(f"## {name}, two layers, bfloat16\n")
        print("| case | backend | a layer gets | as planned | logits against eager | peak |\n|---|---|---|---|---|---|")
        wrong += model_rows(config, options.length, flash)
        print()
    print("Every object, byte and visible pair is the plan's." if not wrong else f"{wrong} rows differ from the plan.")
    return int(wrong > 0)


def flash_version(flash: bool) -> str:
    from llmdoctor.core.installed import installed_version

    return f"flash-attn {installed_version('flash-attn')}" if flash else "no flash-attn"


def model_rows(config: dict[str, Any], length: int, flash: bool) -> int:
    import torch

    from llmdoctor.mask.live import build

    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        arch, real = architectures.read(config), build.config_of(folder)
    first_logits: dict[str, Any] = {}
    for row in ROWS:
        backend = row.split(",")[0]
        if backend == "flash_attention_2" and not flash:
            print(f"| all | {row} | flash-attn is not installed here | - | - | - |")
            continue
        try:
            model = build.build(real, backend, "bfloat16").to("cuda")
        except (ValueError, ImportError) as error:
            print(f"| all | {row} | refused: {str(error).splitlines()[0][:80]} | {'yes' if arch.refusal(backend) else 'NO'} | - | - |")
            wrong += arch.refusal(backend) is None
            continue
        for case, words in cases(length).items():
            if row.endswith("only") and case != "plain":
                continue  # a mask rules the flash kernel out
            wrong += one_row(
                arch,
                model,
                backend=backend,
                row=row,
                case=case,
                inputs=forward_inputs(MaskOptions(model="", **words)),
                first_logits=first_logits,
            )
        del model
        torch.cuda.empty_cache()
    return wrong


def one_row(arch: Any, model: Any, backend: str, row: str, case: str, inputs: ForwardInputs, first_logits: dict[str, Any]) -> int:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from llmdoctor.mask.live import run

    only = sdpa_kernel(SDPBackend.FLASH_ATTENTION) if row.endswith("only") else nullcontext()
    with only:
        seen = run.attempt(model, inputs, backend)
        made = plan(arch, inputs, backend, "bfloat16")
        if seen.error is not None:
            print(f"| {case} | {row} | {seen.error[:90]} | NO | - | - |")
            return 1
        with torch.no_grad():
            arguments = run.prepared(model, inputs)
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            logits = model(**arguments).logits.float()
        peak = torch.cuda.max_memory_allocated() - before
    real = torch.from_numpy(real_queries(inputs)).to(logits.device)
    first_logits.setdefault(case, logits[real])
    apart = float((logits[real] - first_logits[case]).abs().max() / first_logits[case].std())
    same = flat(made) == flat(seen)
    what = object_text(seen.layers[0].object)
    print(f"| {case} | {row} | {what} | {'yes' if same else 'NO'} | {apart:.1e} of their spread | {size_text(peak)} |", flush=True)
    if not same:
        print(f"| | | plan {flat(made)} | run {flat(seen)} | | |")
    return int(not same)


def flat(made: BackendPlan) -> dict[Any, Any]:
    return {
        (group.type, index): (
            group.object,
            group.kv_len,
            bool(group.kernel.is_causal),
            group.kernel.window,
            group.kernel.cu_seqlens,
            group.count,
        )
        for group in made.layers
        for index in group.layers
    }


if __name__ == "__main__":
    sys.exit(main())

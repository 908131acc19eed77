"""Plans against real forwards of the installed transformers, and the packing matrix cell by cell. conformance/compare_masks.py does it at large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdoctor.mask import architectures
from llmdoctor.mask.forward_inputs import forward_inputs
from llmdoctor.mask.options import MaskOptions
from llmdoctor.mask.plan import plan
from llmdoctor.mask.types import BACKENDS, BackendPlan, CachePlan, ForwardInputs
from tests.mask.models import CONFIGS, write_config

pytestmark = pytest.mark.live
CASES: dict[str, dict[str, Any]] = {
    "plain": {"shape": "2,8"},
    "left": {"lengths": "5,8"},
    "packed": {"packed": "3,5"},
    "decode": {"lengths": "5,8", "phase": "decode"},
    "static": {"lengths": "5,8", "cache": "static:16"},
    "static decode": {"shape": "2,8", "phase": "decode", "cache": "static:16"},
    "chunk": {"lengths": "3,5", "phase": "chunk:3"},
    "image": {"shape": "1,8", "image": "2:4"},
}
WITHOUT = {
    "bloom": ("packed", "static", "image"), "t5": ("packed", "static", "static decode", "chunk", "image"),
    **dict.fromkeys(("llama", "mistral", "gemma2", "llama4_text", "gpt2", "jamba", "qwen2_vl"), ("image",)),
}  # fmt: skip


def flat(made: BackendPlan) -> dict[Any, Any]:
    out = {}
    for group in made.layers:
        role = group.type if group.type in ("linear", "cross", "encoder") else "self"
        kernel = group.kernel
        for index in group.layers:
            out[role, index] = (group.object, group.kv_len, bool(kernel.is_causal), kernel.window, kernel.cu_seqlens, group.count)
    return out


@pytest.mark.parametrize("name", CONFIGS)
def test_the_plan_is_what_the_layers_get(name: str, tmp_path: Path) -> None:
    from llmdoctor.mask.live import build, run

    build.quiet()
    folder = write_config(tmp_path, name)
    arch = architectures.read(json.loads((folder / "config.json").read_text()))
    assert arch.verified
    config = build.config_of(str(folder))
    for backend in BACKENDS:
        dtype = "bfloat16" if backend == "flash_attention_2" else "float32"
        if arch.refusal(backend) is not None:
            with pytest.raises(ValueError, match="does not support"):
                build.build(config, backend, dtype)
            continue
        model = build.build(config, backend, dtype)
        cases = ("left",) if backend == "flex_attention" else tuple(CASES)  # flex is slow on a CPU
        for case in cases:
            if case in WITHOUT.get(name, ()):
                continue
            inputs = forward_inputs(MaskOptions(model="", **CASES[case]))
            made, seen = plan(arch, inputs, backend, dtype), run.attempt(model, inputs, backend)
            assert seen.error is None, f"{backend} {case}: {seen.error}"
            assert flat(made) == flat(seen), f"{backend} {case}"


def positions(batch: int, rows: int | None) -> Any:
    line = np.tile(np.concatenate((np.arange(3), np.arange(5))), (batch, 1)).astype(np.int64)
    return line if rows is None else np.tile(line[None], (rows, 1, 1))


# facts: does document 1 leak into document 2? (no cache, use_cache, all-ones mask, batch of two)
MATRIX = {
    ("llama", "eager", None): (False, True, True, False),
    ("llama", "sdpa", None): (False, True, True, False),
    ("llama", "flash_attention_2", None): (False, False, False, True),
    ("qwen2_vl", "eager", None): (True, True, True, True),
    ("qwen2_vl", "sdpa", None): (True, True, True, True),
    ("qwen2_vl", "flash_attention_2", None): (True, True, True, True),
    ("qwen2_vl", "eager", 3): (True, True, True, True),
    ("qwen2_vl", "sdpa", 3): (True, True, True, True),
    ("qwen2_vl", "flash_attention_2", 3): (True, True, True, True),
    ("qwen2_vl", "eager", 4): (False, True, True, False),
    ("qwen2_vl", "sdpa", 4): (False, True, True, False),
    ("qwen2_vl", "flash_attention_2", 4): (False, False, False, True),
}


@pytest.mark.parametrize(("name", "backend", "rows"), MATRIX)
def test_the_packing_matrix(name: str, backend: str, rows: int | None, tmp_path: Path) -> None:
    """Each cell by the plan and by gradients of a real forward: document 1's gradients are 0.0 where it is kept apart."""
    from llmdoctor.mask.findings import examine
    from llmdoctor.mask.live import build, run
    from llmdoctor.mask.live.differential import _document_leak, _Gradients
    from llmdoctor.mask.live.patches import has_flash_attn

    build.quiet()
    folder = write_config(tmp_path, name)
    arch = architectures.read(json.loads((folder / "config.json").read_text()))
    half = backend == "flash_attention_2" and has_flash_attn()
    model = build.build(build.config_of(str(folder)), backend, "bfloat16" if half else "float32")
    ones = np.ones((1, 8), np.int64)
    cells = (
        ForwardInputs(1, 8, position_ids=positions(1, rows)),
        ForwardInputs(1, 8, position_ids=positions(1, rows), cache=CachePlan("dynamic")),
        ForwardInputs(1, 8, position_ids=positions(1, rows), attention_mask=ones),
        ForwardInputs(2, 8, position_ids=positions(2, rows)),
    )
    for inputs, leaks in zip(cells, MATRIX[name, backend, rows], strict=True):
        made = plan(arch, inputs, backend, "float32")
        assert ("MSK007" in {finding.code for finding in examine(arch, inputs, [made], config={})}) is leaks
        with run.reference_kernels(model):
            measured = _document_leak(_Gradients(model, run.prepared(model, inputs)), np.asarray([[0] * 3 + [1] * 5]), backend)
        assert measured.passed is not leaks, measured


def test_everything_is_as_before_also_after_an_exception(tmp_path: Path) -> None:
    from transformers import masking_utils, modeling_flash_attention_utils
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface, PreTrainedModel

    from llmdoctor.mask.live import build, run, watch

    folder = write_config(tmp_path, "llama")
    model = build.build(build.config_of(str(folder)), "sdpa", "float32")
    inputs = forward_inputs(MaskOptions(model="", lengths="5,8"))

    def state() -> tuple[Any, ...]:
        hooks = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]
        return (
            dict(AttentionMaskInterface._global_mapping), id(AttentionMaskInterface._global_mapping), dict(AttentionInterface._global_mapping),
            AttentionInterface.get_interface, PreTrainedModel._flash_attn_can_dispatch, masking_utils.create_block_mask,
            modeling_flash_attention_utils.lazy_import_flash_attention, hooks,
        )  # fmt: skip

    before = state()
    plain = model(**run.prepared(model, inputs)).logits
    seen = run.run(model, inputs, "sdpa")
    assert seen.layers
    assert state() == before
    with pytest.raises(RuntimeError, match="on purpose"), watch.watching(model):
        raise RuntimeError("on purpose")
    assert state() == before
    assert (model(**run.prepared(model, inputs)).logits == plain).all()

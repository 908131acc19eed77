"""What padding, packing or a cache would change. Each is the same plan with other inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from llmdoctor.core.document import Block, Note
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.plan import plan
from llmdoctor.mask.screen import object_text
from llmdoctor.mask.types import GPT_FAST, SHORT, BackendPlan, CachePlan, ForwardInputs

PROBE = 16  # tokens of the packed row that is tried: whether documents are kept apart does not depend on the length


def what_if(arch: Architecture, inputs: ForwardInputs, plans: Sequence[BackendPlan], dtype: str) -> list[Block]:
    """Return what padding, a cache or packing would change, for a plain prefill."""
    backends = [each.backend for each in plans if each.error is None and each.backend != GPT_FAST]
    if inputs.phase != "prefill" or inputs.mask_4d is not None or not backends or not any(layer.pattern for layer in arch.layers):
        return []
    blocks: list[Block] = []
    if inputs.mask_2d is None and inputs.position_ids is None and inputs.q_len > 1:
        mask = np.ones((inputs.batch, inputs.q_len), np.int64)
        mask[0, 0] = 0
        blocks.append(Note("If padded", _objects(arch, replace(inputs, attention_mask=mask), backends, dtype)))
    if inputs.cache.kind == "none":
        cached = _objects(arch, replace(inputs, cache=CachePlan("dynamic")), backends, dtype)
        now = _listed([next(each for each in plans if each.backend == backend) for backend in backends])
        leak = ", and packed documents leak" if inputs.position_ids is not None else ""
        text = f"use_cache=True, the library's default: {'the same' if cached == now else cached}{leak}"
        blocks.append(Note("If cached", text))
    if inputs.position_ids is None and not arch.cross and not arch.encoder:
        blocks.append(Note("If packed", packing(arch, backends, dtype)))
    return blocks


def _objects(arch: Architecture, inputs: ForwardInputs, backends: list[str], dtype: str) -> str:
    return _listed([plan(arch, inputs, backend, dtype, counted=False) for backend in backends])


def _listed(plans: Sequence[BackendPlan]) -> str:
    words = []
    for each in plans:
        name = SHORT.get(each.backend, each.backend)
        if each.error is not None:
            words.append(f"{name} fails")
            continue
        objects = dict.fromkeys(object_text(group.object) for group in each.layers if group.type != "linear")
        words.append(f"{name} {' + '.join(objects)}")
    return "; ".join(words)


def packing(arch: Architecture, backends: list[str], dtype: str) -> str:
    """Which backends keep two documents in one row apart, with plain position_ids."""
    positions = np.tile(np.arange(PROBE // 2, dtype=np.int64), 2)[None, :]
    leaks: list[str] = []
    kept: list[str] = []
    for backend in backends:
        made = plan(arch, ForwardInputs(1, PROBE, position_ids=positions), backend, dtype)
        crossing = any(
            group.type == "linear"
            or (group.visible is not None and any(start < PROBE // 2 for start, _ in group.visible.runs(0, PROBE // 2)))
            for group in made.layers
        )
        (leaks if crossing or made.error else kept).append(SHORT.get(backend, backend))
    if not leaks:
        return "position_ids that start anew keep documents apart, without a mask and without a cache"
    if arch.mrope:
        return "pass position_ids with 4 rows, the text row first, or documents leak"
    if not kept:
        return "documents leak whatever is passed: one document per row"
    return f"documents leak under {', '.join(leaks)}; {', '.join(kept)} keeps them apart"

"""What is wrong with a mask, from the inputs and the plan alone: each function finds one rule and says where, why and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from llmdoctor.core.finding import Finding, Severity
from llmdoctor.mask.architectures import Architecture
from llmdoctor.mask.differ import real_queries
from llmdoctor.mask.factory import documents_of, image_blocks
from llmdoctor.mask.handmade import sees_of
from llmdoctor.mask.intervals import Bools, Ints, runs_of
from llmdoctor.mask.plan import unequal
from llmdoctor.mask.rules import BY_CODE
from llmdoctor.mask.screen import layers_text, size_text
from llmdoctor.mask.types import GPT_FAST, SHORT, Inputs, LayerMask, Plan

ABSOLUTE = ("gpt2", "gpt_neo", "gpt_bigcode", "codegen_absolute", "openai-gpt", "xglm_absolute", "imagegpt", "git")
BUDGET = 8 * 2**30


def finding(
    code: str, message: str, *, severity: Severity | None = None, cause: str | None = None, fix: str | None = None, **evidence: Any
) -> Finding:
    """A finding of a MSK rule with the rule's own fix, unless this case has a better one."""
    rule = BY_CODE[code]
    return Finding(code, severity or rule.severity, message, None, evidence, cause or rule.reason, fix or rule.fix)


def examine(arch: Architecture, inputs: Inputs, plans: list[Plan], budget: int = BUDGET) -> list[Finding]:
    """Every static rule over one set of inputs."""
    found = [*_about_2d(arch, inputs), *_about_4d(inputs, plans), *_about_labels(inputs)]
    for plan in plans:
        found += [*([] if unequal(inputs) else _refused(arch, plan, len(plans))), *_about_plan(arch, inputs, plan), *_budget(plan, budget)]
    return _merged(found)


def _merged(findings: list[Finding]) -> list[Finding]:
    """What several layers or backends do alike is one finding: "eager, full 0-1; sdpa, full 0-1: ..."."""
    alike: dict[tuple[Any, ...], list[Finding]] = {}
    for one in findings:
        where, separator, told = one.message.partition(": ")
        key = (one.code, told, one.cause, one.fix) if separator and "backend" in one.evidence else (one.code, one.message)
        alike.setdefault(key, []).append(replace(one, message=where) if len(key) == 4 else one)
    out = []
    for key, same in alike.items():
        if len(key) == 2:
            out += same
            continue
        evidence = dict(same[0].evidence)
        evidence["backends"] = list(dict.fromkeys(one.evidence["backend"] for one in same))
        layers = {layer for one in same for layer in one.evidence.get("layers", ())}
        if layers:
            evidence["layers"] = sorted(layers)
        where = "; ".join(dict.fromkeys(one.message for one in same))
        out.append(replace(same[0], message=f"{where}: {key[1]}", evidence=evidence))
    return out


def _about_2d(arch: Architecture, inputs: Inputs) -> Iterator[Finding]:
    mask = inputs.mask_2d
    if mask is None:
        return
    odd = _odd_values(mask)
    if odd is not None:
        yield finding("MSK014", f"the 2-D mask holds {odd}; cast to bool it is {_as_bool(mask)}", values=odd)
        return
    yield from _holes(mask, inputs)
    total = inputs.past + inputs.q_len
    if unequal(inputs):
        yield finding(
            "MSK005", f"the 2-D mask has {mask.shape[1]} columns for {total} tokens: without a cache its columns are taken for the keys, and where "
            "the mask is written out forward() raises", fix="attention_mask of one column a token", columns=int(mask.shape[1]), tokens=total,
        )  # fmt: skip
    elif mask.shape[1] < total:
        yield finding(
            "MSK005", f"the 2-D mask has {mask.shape[1]} columns for {inputs.past} cached and {inputs.q_len} new tokens: "
            f"tokens {mask.shape[1]}..{total - 1} are seen by nobody", columns=int(mask.shape[1]), tokens=total,
        )  # fmt: skip
    real = mask != 0
    empty = np.flatnonzero(~real[:, : inputs.past or None].any(axis=1))
    if len(empty):
        yield finding("MSK003", f"row {int(empty[0])} of the 2-D mask has no real token at all ({len(empty)} such rows)", row=int(empty[0]))
        return
    if inputs.phase in ("decode", "chunk") and inputs.past and not arch.cross:
        rows = np.flatnonzero((~real[:, : inputs.past]).any(axis=1) & real[:, 0])
        rows = np.asarray([row for row in rows if not real[row, inputs.past - 1]])
        if len(rows):
            row = int(rows[0])
            start = int(real[row, : inputs.past].nonzero()[0].max()) + 1
            yield finding(
                "MSK001", f"row {row} is right-padded: new tokens follow {inputs.past - start} padding tokens ({start}..{inputs.past - 1})",
                row=row, span=[start, inputs.past],
            )  # fmt: skip
    if arch.model_type in ABSOLUTE and inputs.position_ids is None and inputs.phase == "prefill":
        rows = np.flatnonzero(~real[:, 0] & real.any(axis=1))
        if len(rows):
            row = int(rows[0])
            shift = int(real[row].argmax())
            yield finding("MSK008", f"row {row} starts at column {shift}, and {arch.model_type} counts its positions from 0: every position is "
                          f"{shift} too high", row=row, shift=shift)  # fmt: skip


def _odd_values(mask: Any) -> str | None:
    """What a 2-D mask holds besides 0 and 1."""
    values = np.unique(mask)
    if mask.dtype == np.bool_ or bool(np.isin(values, (0, 1)).all()):
        return None
    shown = ", ".join(f"{value:g}" for value in values[:5].astype(float))
    return shown + (" ..." if len(values) > 5 else "")


def _as_bool(mask: Any) -> str:
    share = int((mask != 0).sum())
    return (
        "all True: documents are not kept apart"
        if share == mask.size
        else f"True in {share} of {mask.size} places, the additive ones inverted"
    )


def _holes(mask: Any, inputs: Inputs) -> Iterator[Finding]:
    """Zeros with real tokens on both sides, among the tokens of the prompt."""
    mask = mask[:, : inputs.past] if inputs.past else mask
    for row in range(mask.shape[0]):
        runs = runs_of(np.asarray(mask[row] != 0, np.bool_))
        if len(runs) > 1:
            holes = [(runs[at][1], runs[at + 1][0]) for at in range(len(runs) - 1)]
            spans = ", ".join(f"{start}" if end == start + 1 else f"{start}..{end - 1}" for start, end in holes[:4])
            more = f" and {len(holes) - 4} more" if len(holes) > 4 else ""
            name = ""
            if inputs.input_ids is not None and holes[0][0] < inputs.input_ids.shape[1]:
                at = int(inputs.input_ids[row, holes[0][0]])
                name = f" (token id {at}" + (", put there by masked_fill)" if at == 0 else ")")
            rows = sum(len(runs_of(np.asarray(line != 0, np.bool_))) > 1 for line in mask)
            yield finding("MSK002", f"row {row} is masked inside its text, at {spans}{more}{name}; {rows} of {mask.shape[0]} rows have holes",
                          row=row, spans=[list(hole) for hole in holes[:20]], rows=rows)  # fmt: skip
            return


def _about_4d(inputs: Inputs, plans: list[Plan]) -> Iterator[Finding]:
    mask = inputs.mask_4d
    if mask is None:
        return
    values = np.unique(mask) if mask.dtype != np.bool_ else np.asarray([False, True])
    only_bits = mask.dtype != np.bool_ and bool(np.isin(values, (0, 1)).all())
    for plan in plans:
        if plan.error is not None:
            continue
        name = plan.backend
        if name == "flash_attention_2":
            yield finding("MSK006", f"flash_attention_2: the 4-D mask {list(mask.shape)} is read as a 2-D one", backend=name)
        elif mask.dtype == np.bool_ and name in ("eager", "flex_attention"):
            yield finding(
                "MSK004", f"{name}: a bool mask is added as 0 and 1: nothing is masked, the future leaks", backend=name, dtype="bool"
            )
        elif mask.dtype.kind in "iu" and name == "sdpa":
            yield finding(
                "MSK004", f"{name}: the kernel refuses a mask of {mask.dtype}, it takes bool or floats", backend=name, dtype=mask.dtype.name
            )
        elif only_bits and mask.dtype.kind in "fiu" and len(values) > 1:
            yield finding("MSK004", f"{name}: a mask of 0 and 1 in {mask.dtype} is added to the scores: nothing is masked", backend=name,
                          dtype=mask.dtype.name)  # fmt: skip
        elif _inverted(mask, name):
            yield finding("MSK004", f"{name}: the 4-D mask lets every query see the future and hides itself: it is inverted", backend=name,
                          dtype=mask.dtype.name)  # fmt: skip
        elif (dead := _dead_4d(mask)) is not None:
            row, query, infinite = dead
            told = "all -inf: softmax gives NaN" if infinite and name == "eager" else "masked throughout: it sees nothing"
            yield finding("MSK003", f"{name}: row {row} query {query} of the 4-D mask is {told}", backend=name, row=row, query=query)


def _inverted(mask: Any, backend: str) -> bool:
    """Whether hardly any query sees itself while most see what comes after them."""
    sees = sees_of(mask, backend)
    q_len, kv_len = sees.shape[1], sees.shape[2]
    if q_len < 3 or q_len != kv_len:
        return False
    itself = sees.diagonal(axis1=1, axis2=2).mean()
    later = np.triu(np.ones((q_len, kv_len), np.bool_), 1)
    return bool(itself < 0.5 and sees[:, later].mean() > 0.5)


def _dead_4d(mask: Any) -> tuple[int, int, bool] | None:
    if mask.dtype == np.bool_:
        dead = ~mask[:, 0].any(axis=-1)
        infinite = False
    else:
        dead = ~np.isfinite(mask[:, 0]).any(axis=-1)
        infinite = True
    if not dead.any() and mask.dtype.kind == "f":
        dead = (mask[:, 0] <= -1e4).all(axis=-1)
        infinite = False
    if not dead.any():
        return None
    row, query = (int(at[0]) for at in np.nonzero(dead))
    return row, query, infinite


def _about_labels(inputs: Inputs) -> Iterator[Finding]:
    labels, ids, mask = inputs.labels, inputs.input_ids, inputs.mask_2d
    if labels is None or ids is None or labels.shape != ids.shape:
        return
    told = labels[:, :-1] != -100
    if told.sum() >= 4 and labels.shape[1] > 2:
        same = float((labels == ids)[:, :-1][told].mean())
        moved = float((labels[:, :-1] == ids[:, 1:])[told].mean())
        if moved > 0.95 and same < 0.5:
            yield finding("MSK015", f"{moved:.0%} of the labels are the next token of input_ids: the model's loss shifts them once more",
                          equal_next=round(moved, 4), equal_same=round(same, 4))  # fmt: skip
    if mask is not None and mask.shape == labels.shape:
        hidden = (mask == 0) & (labels != -100)
        if hidden.any():
            row, at = (int(place[0]) for place in np.nonzero(hidden))
            yield finding("MSK022", f"{int(hidden.sum())} masked tokens have labels, the first in row {row} at {at}", row=row, token=at,
                          count=int(hidden.sum()))  # fmt: skip


def _refused(arch: Architecture, plan: Plan, asked: int) -> Iterator[Finding]:
    if plan.error is not None and asked == 1:  # among several backends it is skipped, with the reason
        supported = ["eager", *(name for name in ("sdpa", "flash_attention_2", "flex_attention") if arch.refusal(name) is None)]
        fix = f'attn_implementation="{supported[1] if len(supported) > 1 else "eager"}"'
        if plan.backend == GPT_FAST:
            fix = "transformers, or rows of one length"
        elif arch.refusal(plan.backend) is None:
            fix = "a dynamic cache, or no 2-D mask"
        yield finding("MSK020", f"{plan.backend}: {plan.error}", fix=fix, backend=plan.backend)


def _about_plan(arch: Architecture, inputs: Inputs, plan: Plan) -> Iterator[Finding]:
    yield from _packing(arch, inputs, plan)
    for group in plan.layers:
        where: dict[str, Any] = {"backend": plan.backend, "layers": list(group.layers)}
        name = f"{SHORT.get(plan.backend, plan.backend)}, {group.type} {layers_text(group.layers)}"
        if group.visible is None:
            continue
        yield from _empty_slots(group, inputs, name, where)
        yield from _dead(group, inputs, name, where)
        if group.type == "cross" and plan.backend.startswith("flash") and inputs.q_len > 1 and group.object.kind == "varlen":
            mask = inputs.mask_2d
            if mask is not None and (mask == 0).any() and group.q_len == group.kv_len:
                row = int(np.flatnonzero((mask == 0).any(axis=1))[0])
                lost = int((mask[row] == 0).sum())
                yield finding(
                    "MSK012", f"{name}: row {row} loses {lost} decoder queries that the encoder's mask unpads away", row=row, **where
                )
        yield from _images(group, inputs, name, where)
        yield from _window(arch, group, name, where)


def documents_meant(inputs: Inputs) -> Ints | None:
    """int64 [B, S]: the documents that the caller means, whatever the model makes of them."""
    positions, mask = inputs.position_ids, inputs.mask_2d
    if positions is None or (mask is not None and bool((mask == 0).any())):  # positions behind padding start anew too
        return None
    rows = positions[0] if positions.ndim == 3 else positions
    found = documents_of(rows)
    return found if found is None or inputs.q_len == found.shape[1] else None


def _packing(arch: Architecture, inputs: Inputs, plan: Plan) -> Iterator[Finding]:
    documents = documents_meant(inputs)
    if documents is None or plan.error is not None:
        return
    starts = np.flatnonzero(np.diff(documents[0])) + 1
    if len(starts) == 0:
        return
    first = int(starts[0])
    linear = [group for group in plan.layers if group.type == "linear"]
    if linear:
        layers = layers_text(linear[0].layers)
        yield finding("MSK013", f"{SHORT.get(plan.backend, plan.backend)}, linear {layers}: the state of tokens 0..{first - 1} runs on into "
                      f"token {first}", backend=plan.backend, layers=list(linear[0].layers), row=0, span=[0, first])  # fmt: skip
    for group in plan.layers:
        if group.visible is None or group.type in ("cross", "encoder"):
            continue
        seen = [run for run in group.visible.runs(0, first) if run[0] < first]
        if seen:
            yield finding(
                "MSK007", f"{SHORT.get(plan.backend, plan.backend)}, {group.type} {layers_text(group.layers)}: token {first}, the first of its "
                f"document, sees {seen[0][0]}..{min(seen[0][1], first) - 1} of the one before", cause=_why_leak(arch, inputs, plan.backend),
                fix=_repair(arch, inputs), backend=plan.backend, layers=list(group.layers), row=0,
                query=first, span=[seen[0][0], min(seen[0][1], first)],
            )  # fmt: skip


def _why_leak(arch: Architecture, inputs: Inputs, backend: str) -> str:
    positions = inputs.position_ids
    if arch.mrope and positions is not None and (positions.ndim == 2 or positions.shape[0] == 3):
        return (
            f"{arch.model_type} looks for documents only in a fourth, first row of position_ids: with {positions.ndim}-D ids it finds none"
        )
    if backend.startswith("flash"):
        return "flash-attention is told of documents only in a batch of one without a 2-D mask"
    if inputs.attention_mask is not None:
        return "a 2-D mask is passed, even one of ones: position_ids are then not looked at for documents"
    if inputs.cache.kind != "none":
        return "there is a cache (use_cache=True is the library's default): position_ids are then not looked at for documents"
    return f"{arch.model_type} does not hand its position_ids to the mask function"


def _repair(arch: Architecture, inputs: Inputs) -> str:
    if arch.mrope:
        return (
            "position_ids = torch.cat([text_positions[None], mrope_positions])  # [4, B, S], the text row first; no mask, use_cache=False"
        )
    if inputs.attention_mask is not None or inputs.cache.kind != "none":
        return BY_CODE["MSK007"].fix
    packs = any(layer.pattern is not None and layer.pattern.flash_packs for layer in arch.layers)
    if arch.refusal("flash_attention_2") is None and packs and not arch.cross:
        return "flash_attention_2 in a batch of one, or one document a row"
    return "one document a row"


def _empty_slots(group: LayerMask, inputs: Inputs, name: str, where: dict[str, Any]) -> Iterator[Finding]:
    visible = group.visible
    written = inputs.past + inputs.q_len
    if inputs.cache.kind != "static" or visible is None or visible.kv_len <= written or group.type in ("cross", "encoder"):
        return
    real = real_queries(inputs)
    for row in range(visible.rows):
        for query in (int(at) for at in np.flatnonzero(real[min(row, len(real) - 1)])[[0, -1]]):
            runs = [run for run in visible.runs(row, query) if run[1] > written]
            if runs:
                yield finding(
                    "MSK009", f"{name}: query {query} sees {runs[-1][1] - max(runs[-1][0], written)} empty slots, "
                    f"{max(runs[-1][0], written)}..{runs[-1][1] - 1}", row=row, query=query, span=[max(runs[-1][0], written), runs[-1][1]], **where,
                )  # fmt: skip
                return


def _dead(group: LayerMask, inputs: Inputs, name: str, where: dict[str, Any]) -> Iterator[Finding]:
    visible = group.visible
    if visible is None or inputs.mask_4d is not None or group.type == "cross":
        return
    real = real_queries(inputs)
    for row in range(visible.rows):
        asked: Bools = real[min(row, len(real) - 1)] if visible.repeat == 1 else np.ones(visible.q_len, np.bool_)
        dead = [int(query) for query in visible.dead(row) if asked[query]]
        if dead:
            yield finding("MSK003", f"{name}: row {row} query {dead[0]} sees no key ({len(dead)} such queries)", row=row, query=dead[0],
                          count=len(dead), **where)  # fmt: skip
            return


def _images(group: LayerMask, inputs: Inputs, name: str, where: dict[str, Any]) -> Iterator[Finding]:
    """An image block that is seen only causally, in a model that makes blocks of images."""
    image, visible = inputs.image, group.visible
    if image is None or visible is None or inputs.phase != "prefill" or not inputs.makes_blocks:
        return
    start, end = image_blocks(image[:1])
    first = int(start[0].max()) if (start[0] >= 0).any() else -1
    stop = int(end[0].max())
    if first < 0 or stop - first < 2:
        return
    runs = visible.runs(0, first)
    if not any(run[0] <= first and run[1] >= stop for run in runs):
        yield finding("MSK011", f"{name}: the first image token, {first}, does not see the last, {stop - 1}", row=0, query=first,
                      span=[first, stop], **where)  # fmt: skip


def _window(arch: Architecture, group: LayerMask, name: str, where: dict[str, Any]) -> Iterator[Finding]:
    """Sliding layers whose window is in the mask everywhere else, and that hand flash-attention none."""
    first = next((layer.pattern for layer in arch.layers if layer.index == group.layers[0] and layer.type == group.type), None)
    if first is None or first.flash_window or first.local != "window" or not group.backend.startswith("flash"):
        return
    if group.kv_len is not None and group.kv_len > first.size:
        extra = group.kv_len - first.size
        yield finding("MSK017", f"{name}: no window is handed to the kernel: the last query sees {extra} keys outside its window of {first.size}",
                      window=first.size, extra=extra, **where)  # fmt: skip


def _budget(plan: Plan, budget: int) -> Iterator[Finding]:
    spent = sum(group.object.storage_bytes for group in plan.layers if group.object.kind == "tensor" and group.type != "linear")
    if spent > budget:
        yield finding("MSK016", f"{plan.backend}: the masks of one forward take {size_text(spent)}, more than {size_text(budget)}",
                      backend=plan.backend, bytes=spent, budget=budget)  # fmt: skip

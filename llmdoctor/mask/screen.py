"""The blocks of `mask inspect`: the stages side by side, why a mask is left out, where backends differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmdoctor.core.document import Block, Cell, Note, Table
from llmdoctor.core.text import plural
from llmdoctor.mask.differ import difference, real_queries
from llmdoctor.mask.picture import query_table
from llmdoctor.mask.types import SHORT, BackendPlan, ForwardInputs, LayerMask, MaskObject

_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def size_text(count: int) -> str:
    """Return bytes as 1.0 GiB, 128 KiB, 512 B or 0."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return "0" if count == 0 else f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def stage_table(plans: Sequence[BackendPlan], inputs: ForwardInputs) -> Table:
    """Return the stages, one column per backend: the mask passed, the mask of a layer and its bytes, the kernel's arguments, the pairs seen."""
    answered = [each for each in plans if each.error is None]
    rows: list[tuple[str | Cell, ...]] = [("you pass", *[_passed(inputs)] * len(answered))]
    kinds = list(dict.fromkeys((group.type, group.layers) for each in answered for group in each.layers))
    for kind, layers in kinds:
        mine = [next((group for group in each.layers if (group.type, group.layers) == (kind, layers)), None) for each in answered]
        rows.append((Cell(f"{kind.removesuffix('_attention')} {layers_text(layers)}", "dim"), *[""] * len(answered)))
        rows.append(("  a layer gets", *[_gets(group) for group in mine]))
        rows.append(("  bytes", *[_bytes(group) for group in mine]))
        if kind != "linear":
            rows.append(("  the kernel", *[_kernel(group) for group in mine]))
            rows.append(("  sees", *[_seen(group) for group in mine]))
    return Table(("", *(SHORT.get(each.backend, each.backend) for each in answered)), tuple(rows))


def layers_text(layers: tuple[int, ...]) -> str:
    """`0-27`, `0, 2, 4`, `0, 5, ... 40`."""
    if len(layers) > 1 and layers == tuple(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}-{layers[-1]}"
    if len(layers) > 4:
        return f"{layers[0]}, {layers[1]} .. {layers[-1]} ({len(layers)})"
    return ", ".join(map(str, layers))


def _passed(inputs: ForwardInputs) -> str:
    mask = inputs.attention_mask
    if mask is not None:
        dtype = inputs.mask_dtype or mask.dtype.name
        return f"{_DTYPES.get(dtype, dtype)} {_shape(mask.shape)}"
    fields = (("position_ids", inputs.position_ids), ("token types", inputs.token_types), ("cu_seq_lens", inputs.cu_seqlens))
    given = [name for name, value in fields if value is not None]
    return ", ".join(given) or "nothing"


def _shape(shape: tuple[int, ...]) -> str:
    """`[1,1,32k,32k]`: thousands of 1,024 in short, so that four columns fit."""
    return "[" + ",".join(f"{size // 1024}k" if size >= 8192 and size % 1024 == 0 else str(size) for size in shape) + "]"


def _gets(group: LayerMask | None) -> str:
    if group is None:
        return "-"
    made = group.object
    if made.kind == "none" or made.shape is None:
        return "nothing" if made.kind == "none" else "nothing: varlen"
    name = "block mask" if made.kind == "block_mask" else _DTYPES.get(made.dtype or "", made.dtype or "")
    return f"{name} {_shape(made.shape)}" + (": varlen" if made.kind == "varlen" else "")


def _bytes(group: LayerMask | None) -> str:
    if group is None:
        return "-"
    made = group.object
    if made.storage_bytes != made.logical_bytes:
        return f"{size_text(made.logical_bytes)}, {size_text(made.storage_bytes)} stored"
    return size_text(made.logical_bytes)


def _kernel(group: LayerMask | None) -> str:
    if group is None:
        return "-"
    kernel, words = group.kernel, []
    if kernel.mask is not None:
        return f"{_DTYPES.get(kernel.mask.dtype or '', '')} {_shape(kernel.mask.shape or ())} bias"
    if kernel.is_causal:
        words.append("causal" if group.backend.startswith("flash") else "is_causal")
    if kernel.window is not None:
        words.append(f"window {_shape(kernel.window)}")
    if kernel.cu_seqlens is not None:
        words.append(f"{len(kernel.cu_seqlens) - 1} sequences")
    if not words:
        fallback = {"tensor": "the mask", "block_mask": "the mask"}
        words.append(fallback.get(group.object.kind, "every key"))
    return ", ".join(words)


def _seen(group: LayerMask | None) -> str | Cell:
    if group is None:
        return "-"
    if group.count is None:
        return Cell("not known", "warn")
    share = 100 * group.count / group.total if group.total else 0.0
    return f"{group.count:,}" + (f" ({share:.3g}%)" if group.count < (group.total or 0) else " (all)")


def reasons(plans: Sequence[BackendPlan]) -> list[Block]:
    """Return the mask functions as formulas, and why layers receive no mask."""
    out: list[Block] = []
    formulas = list(dict.fromkeys(f"{group.type}: {group.formula}" for each in plans for group in each.layers if group.type != "linear"))
    if formulas:
        out.append(Note("Formula", "\n".join(_unique(formulas))))
    why = [
        f"{SHORT.get(each.backend, each.backend)}: {group.skip_reason}"
        for each in plans
        for group in each.layers
        if group.skip_reason and group.type != "linear"
    ]
    if why:
        out.append(Note("Left out", "\n".join(dict.fromkeys(why)), "dim"))
    return out


def _unique(lines: list[str]) -> list[str]:
    return lines if len(lines) <= 6 else [*lines[:5], f"... {len(lines) - 5} more"]


def queries(plans: Sequence[BackendPlan], query: int) -> list[Block]:
    """Return the keys that one query sees, in every layer kind, backend and row."""
    rows: list[tuple[str, str, list[tuple[int, int]], int]] = []
    for each in plans:
        for group in each.layers:
            visible = group.visible
            if visible is None or query >= visible.q_len:
                continue
            for row in range(min(visible.rows, 8)):
                runs = visible.runs(row, query)
                name = "all" if visible.rows == 1 else str(row)
                label = f"{group.type.removesuffix('_attention')} {layers_text(group.layers)} {SHORT.get(each.backend, each.backend)}"
                rows.append((label, name, runs, sum(end - start for start, end in runs)))
    return [Note("Query", f"{query}; keys are numbered as the layer has them"), query_table(rows)]


def differences(plans: Sequence[BackendPlan], inputs: ForwardInputs) -> list[Block]:
    """Return where a real query sees other keys than under the first backend, or that none does if all plans are exact."""
    answered = [each for each in plans if each.error is None]
    if len(answered) < 2:
        return []
    lines: list[str] = []
    base = answered[0]
    for other in answered[1:]:
        for group in base.layers:
            twin = next((one for one in other.layers if (one.type, one.layers) == (group.type, group.layers)), None)
            if twin is None or twin.visible is None or group.visible is None:
                continue
            found = difference(group.visible, twin.visible, real_queries(inputs, group))
            if found is not None:
                names = f"{SHORT.get(base.backend, base.backend)} and {SHORT.get(other.backend, other.backend)}"
                lines.append(
                    f"{names}, {group.type} {layers_text(group.layers)}: {plural(found.queries, 'real query').replace('querys', 'queries')} "
                    f"differ; row {found.row} query {found.query} sees {_runs(found.left)} or {_runs(found.right)}"
                )
    if lines:
        return [Note("Differ", "\n".join(lines), "warn")]
    unsure = any(not group.exact for each in answered for group in each.layers)
    text = "not compared: the plan is not exact" if unsure else "every real query sees the same keys under each backend"
    return [Note("Limits" if unsure else "Checked", text, "dim")]


def _runs(runs: tuple[tuple[int, int], ...]) -> str:
    from llmdoctor.mask.picture import runs_text

    return runs_text(list(runs))


def object_text(made: MaskObject) -> str:
    """`bool [2,1,8,8] 128 B`, `nothing`."""
    if made.kind == "none":
        return "nothing"
    if made.shape is None:
        return "varlen, no mask"
    name = "block mask" if made.kind == "block_mask" else _DTYPES.get(made.dtype or "", made.dtype or "")
    return f"{name} {_shape(made.shape)} {size_text(made.storage_bytes)}"


def facts(named: Mapping[str, str]) -> list[Block]:
    """Return a dim note for each text that is not empty."""
    return [Note(label, text, "dim") for label, text in named.items() if text]

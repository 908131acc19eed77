"""A batch as the trainers' collators make it: no padding, labels for every token, one image a sequence where asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmdoctor.core.errors import QuestionError
from llmdoctor.mem.workload import PREFERENCES

if TYPE_CHECKING:
    from llmdoctor.mem.workload import Workload


SCALED = ("llava", "gemma3", "paligemma")  # every image is scaled to vision_config.image_size (gemma3: without pan and scan)
MOST_TOKENS = 2**26  # real integers: three tensors of half a gigabyte


def make_inputs(model: Any, config: Any, workload: Workload, fake: Any) -> dict[str, Any]:
    """Return the inputs of one micro step.

    input_ids, attention_mask and labels [B, S] int64, real (2 B rows and no labels for preferences);
    labels [B] for the classification of sequences, start_positions and
    end_positions [B] for answers in a text. With an image pixel_values [B patches, C T P P] (fake) and image_grid_thw [B, 3].
    """
    import torch

    if workload.sequences * workload.seq_len > MOST_TOKENS:
        raise QuestionError(
            f"--batch {workload.batch} --seq-len {workload.seq_len}: more than {MOST_TOKENS:,} tokens in one step are not traced"
        )
    length = torch.ones(workload.sequences, workload.seq_len, dtype=torch.int64)
    inputs = {"input_ids": length.clone(), "attention_mask": length}
    if workload.lengths:
        for row, tokens in enumerate(workload.lengths[: workload.sequences]):
            length[row, tokens:] = 0
    if workload.objective in PREFERENCES:
        return inputs
    inputs["labels"] = length.clone()
    if workload.packed or workload.flat:
        return _documents(inputs, workload)
    kind = type(model).__name__
    if kind in _classes("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"):
        inputs["labels"] = torch.zeros(workload.batch, dtype=torch.int64)
    elif kind in _classes("MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES"):
        del inputs["labels"]
        inputs |= {name: torch.ones(workload.batch, dtype=torch.int64) for name in ("start_positions", "end_positions")}
    if workload.image is not None:
        _add_image(inputs, config, workload, workload.image, fake)
    return inputs


def _documents(inputs: dict[str, Any], workload: Workload) -> dict[str, Any]:
    """Return the inputs of packed sequences: positions that begin anew with each document, and no mask.

    Kernels that take the documents' bounds need no positions here: a workload for them has no `packed`.
    """
    import torch

    del inputs["attention_mask"]
    if workload.packed:
        row = torch.cat([torch.arange(tokens) for tokens in workload.packed])
        inputs["position_ids"] = row.repeat(inputs["input_ids"].shape[0], 1)
    return {name: tensor.reshape(1, -1) for name, tensor in inputs.items()} if workload.flat else inputs


def _add_scaled_image(inputs: dict[str, Any], config: Any, workload: Workload, image: tuple[int, int], fake: Any) -> None:
    """Add one image a sequence for models whose processor scales every image to one size: pixel_values [B, 3, size, size] (fake)."""
    import torch

    vision = config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    tokens = config.mm_tokens_per_image if config.model_type == "gemma3" else patches
    if config.model_type == "llava" and config.vision_feature_select_strategy == "full":
        tokens += 1  # that of the class
    if tokens + 2 > workload.seq_len:
        raise QuestionError(f"--image {image[0]}x{image[1]}: {tokens} image tokens do not fit into --seq-len {workload.seq_len}")
    ids = inputs["input_ids"]
    marks = torch.zeros_like(ids)
    marks[:, 1 : 1 + tokens] = 1
    ids[marks == 1] = config.image_token_id
    with fake:
        inputs["pixel_values"] = torch.empty(
            workload.batch,
            getattr(vision, "num_channels", 3),
            vision.image_size,
            vision.image_size,
            dtype=getattr(torch, workload.pixel_dtype),
        )
    if config.model_type == "gemma3":
        inputs["token_type_ids"] = marks
    elif config.model_type == "paligemma":
        inputs["token_type_ids"] = 1 - marks  # 0: the image and the prompt, 1: what is to be written (processing_paligemma.py)


def _classes(table: str) -> frozenset[str]:
    """Return the names of the classes that transformers makes for a task."""
    from transformers.models.auto import modeling_auto

    return frozenset(name for entry in getattr(modeling_auto, table).values() for name in ((entry,) if isinstance(entry, str) else entry))


def grid(config: Any, image: tuple[int, int]) -> tuple[int, int, int]:
    """(rows of patches, columns of patches, tokens) of one image (width, height) in pixels, rounded as Qwen2-VL's processor rounds (smart_resize)."""
    vision = config.vision_config
    patch, merge = vision.patch_size, getattr(vision, "spatial_merge_size", 1)
    factor = patch * merge
    rows, columns = (max(merge, round(pixels / factor) * merge) for pixels in (image[1], image[0]))
    return rows, columns, rows * columns // merge**2


def _add_image(inputs: dict[str, Any], config: Any, workload: Workload, image: tuple[int, int], fake: Any) -> None:
    import torch

    vision = getattr(config, "vision_config", None)
    if config.model_type in SCALED:
        _add_scaled_image(inputs, config, workload, image, fake)
        return
    if vision is None or not hasattr(vision, "spatial_merge_size") or getattr(config, "image_token_id", None) is None:
        raise QuestionError(
            f"--image: {config.model_type} takes no image, or in a way that is not modelled (modelled: Qwen-VL's image_grid_thw, {', '.join(SCALED)})"
        )
    if getattr(vision, "deepstack_visual_indexes", None):
        raise QuestionError(
            f"--image: {config.model_type} adds outputs of vision layers to layers of its language model, which is not modelled "
            "(deepstack_visual_indexes)"
        )
    rows, columns, tokens = grid(config, image)
    if tokens + 2 > workload.seq_len:
        raise QuestionError(f"--image {image[0]}x{image[1]}: {tokens} image tokens do not fit into --seq-len {workload.seq_len}")
    start = 1
    ids = inputs["input_ids"]
    ids[:, 0] = getattr(config, "vision_start_token_id", 0) or 0
    ids[:, start : start + tokens] = config.image_token_id
    channels = getattr(vision, "in_channels", None) or getattr(vision, "in_chans", 3)
    width = channels * vision.temporal_patch_size * vision.patch_size**2
    with fake:
        inputs["pixel_values"] = torch.empty(workload.batch * rows * columns, width, dtype=getattr(torch, workload.pixel_dtype))
    inputs["image_grid_thw"] = torch.tensor([[1, rows, columns]] * workload.batch)
    inputs["mm_token_type_ids"] = (ids == config.image_token_id).long()

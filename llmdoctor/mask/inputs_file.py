"""The fields of an inputs file (`--input-ids`, `--mask`): which of them the masks depend on, and their shapes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask.intervals import Ints, as_ints
from llmdoctor.mask.types import ForwardInputs

MAX_TOKENS = 2**25  # tokens of a batch that a plan is made for: 32 Mi, about a minute and 5 GB

# Arguments of forward() that the answer depends on. The functions below read them.
READ = (
    "input_ids", "inputs_embeds", "attention_mask", "position_ids", "labels", "token_type_ids", "mm_token_type_ids", "image_grid_thw",
    "video_grid_thw", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "decoder_input_ids", "decoder_attention_mask",
)  # fmt: skip
_VISION = "an input of the vision or audio tower: the masks of the text layers depend only on its placeholder tokens"
_OUTPUT = "changes what forward() returns, not what a layer sees"
_LEFTOVER = "made by a tokenizer for other purposes: forward() does not take it"
# Inputs that a tower attends to: what it sees is no part of the answer, and the verdict says so.
TOWER_INPUTS = frozenset(("pixel_values", "pixel_values_videos", "input_features", "input_values", "image_grid_thw", "video_grid_thw"))
# Known fields that cannot change a mask of the text layers, with the reason.
IGNORED: dict[str, str] = {
    **dict.fromkeys(
        (
            "pixel_values", "pixel_values_videos", "pixel_attention_mask", "image_sizes", "image_attention_mask", "input_features",
            "feature_attention_mask", "input_features_mask", "input_values", "second_per_grid_ts", "video_second_per_grid", "spatial_shapes",
            "num_crops", "image_position_ids", "audio_feature_lengths",
        ),
        _VISION,
    ),
    **dict.fromkeys(
        (
            "use_cache", "return_dict", "output_attentions", "output_hidden_states", "output_router_logits", "logits_to_keep", "num_items_in_batch",
            "shift_labels", "loss_mask", "start_positions", "end_positions",
        ),
        _OUTPUT,
    ),
    **dict.fromkeys(
        ("special_tokens_mask", "offset_mapping", "length", "overflow_to_sample_mapping", "num_truncated_tokens", "overflowing_tokens"), _LEFTOVER
    ),
}  # fmt: skip
# Known fields that can change what a layer sees and are not modelled.
NOT_MODELLED: dict[str, str] = {
    "seq_idx": "the state layers of some hybrid models restart at each of its documents",
    "cross_attention_mask": "it is the mask of the cross-attention layers",
    "cross_attention_states": "it is what the cross-attention layers read",
    "past_key_values": "a filled cache adds keys: use --phase and --past",
    "cache_position": "it moves the queries: use --phase and --past",
    "encoder_outputs": "it replaces the encoder",
    "encoder_hidden_states": "it adds cross-attention",
    "encoder_attention_mask": "it is the mask of the cross-attention layers",
    "decoder_inputs_embeds": "it replaces decoder_input_ids",
    "decoder_position_ids": "it moves the decoder's queries",
    "global_attention_mask": "it opens keys to every query in Longformer and LED",
    "block_table": "it selects a paged cache",
    "head_mask": "transformers 5 no longer takes it",
}


def read_mask(path: str) -> tuple[NDArray[Any], str]:
    """Return a mask from a file, 2-D [B, S] or 4-D [B, 1|H, Q, KV] of numbers or bool, and "bfloat16" if that is its dtype, else "".

    Raises QuestionError for anything else.
    """
    from llmdoctor.mask.tensorfile import read_tensors

    file = read_tensors(path)
    found = _pick(file.tensors, ("attention_mask", "mask"), path, (2, 4))
    return found, "bfloat16" if any(file.tensors[name] is found for name in file.brain) else ""


def _pick(tensors: Mapping[str, NDArray[Any]], names: tuple[str, ...], path: str, ranks: tuple[int, ...]) -> NDArray[Any]:
    """Return the first tensor of `names`, or the only one of a file without names, if its rank is one of `ranks`."""
    found = next((tensors[name] for name in names if name in tensors), tensors.get(""))
    if found is None and len(tensors) == 1:
        found = next(iter(tensors.values()))
    if found is None:
        raise QuestionError(f"{path}: no tensor named {names[0]} in it, found {', '.join(sorted(tensors)) or 'none'}")
    if found.ndim not in ranks or 0 in found.shape:
        expected = " or ".join(f"{rank}-D" for rank in ranks)
        raise QuestionError(f"{path}: {names[0]} has the shape {list(found.shape)}, expected a {expected} tensor with something in it")
    if found.dtype.kind not in "biuf":
        raise QuestionError(f"{path}: {names[0]} is {found.dtype}, expected bool, integers or floats")
    if found.dtype.kind == "f" and bool(np.isnan(found).any()):
        raise QuestionError(f"{path}: {names[0]} holds NaN, expected numbers")
    if names[0] != "inputs_embeds" and found.size > MAX_TOKENS * 8:
        raise QuestionError(f"{path}: {names[0]} has {found.size} elements, at most {MAX_TOKENS * 8} are read")
    return found


def read_inputs(path: str, without: tuple[str, ...]) -> ForwardInputs:
    """Return the inputs that a file holds, as a prefill without a cache; fields named in `without` count as absent.

    Raises QuestionError for a field with a misspelt name, of a wrong shape or dtype, and for a name in `without` that the file lacks.
    """
    from llmdoctor.mask.tensorfile import read_tensors

    file = read_tensors(path)
    names = [name for name in (*file.tensors, *file.others) if name]
    for name in without:
        if name not in names:
            raise QuestionError(f"--without {name}: {path} has no such field, it has {', '.join(names) or 'none'}")
    tensors = {name: value for name, value in file.tensors.items() if name not in without}
    fields = {name: "x".join(map(str, value.shape)) or "number" for name, value in tensors.items() if name}
    fields |= {name: kind for name, kind in file.others.items() if name not in without}
    _refuse_misspelt(fields, path)
    inputs = _tokens_of(tensors, path)
    unread = tuple(name for name in fields if name not in (*READ, *IGNORED, *NOT_MODELLED))
    brain = "bfloat16" if "attention_mask" in file.brain else ""
    inputs = replace(
        inputs,
        mask_dtype=brain,
        source=path,
        fields=fields,
        without=without,
        unread=unread,
        words=f"{inputs.batch} x {inputs.q_len} tokens of {path}",
    )
    return _with_documents(_with_decoder(_with_rows(inputs, tensors, path), tensors, path), tensors, path)


def _refuse_misspelt(fields: Mapping[str, str], path: str) -> None:
    """Raise QuestionError for a name that is almost that of an argument: forward() would drop it without a word."""
    known = (*READ, *IGNORED, *NOT_MODELLED)
    for name in fields:
        if name in known:
            continue
        near = difflib.get_close_matches(name.lower(), (*READ, *NOT_MODELLED), 1, 0.84)
        if near and near[0] not in fields:
            raise QuestionError(
                f"{path}: {name} is not an argument of forward(), which would drop it: did you mean {near[0]}? "
                f"--without {name} answers without it"
            )


def _tokens_of(tensors: Mapping[str, NDArray[Any]], path: str) -> ForwardInputs:
    """Return batch and length, from input_ids or else from inputs_embeds [B, S, D]."""
    if "input_ids" not in tensors and "inputs_embeds" in tensors:
        embeds = _pick(tensors, ("inputs_embeds",), path, (3,))
        check_size(path, embeds.shape[0] * embeds.shape[1])
        return ForwardInputs(embeds.shape[0], embeds.shape[1])
    ids = _pick(tensors, ("input_ids",), path, (1, 2))
    if ids.dtype.kind not in "iu":
        raise QuestionError(f"{path}: input_ids is {ids.dtype}, expected integers")
    rows = np.atleast_2d(as_ints(ids))
    check_size(path, rows.size)
    return ForwardInputs(rows.shape[0], rows.shape[1], input_ids=rows)


def _with_rows(inputs: ForwardInputs, tensors: Mapping[str, NDArray[Any]], path: str) -> ForwardInputs:
    """Add the fields that have one element per token."""
    batch, shape = inputs.batch, (inputs.batch, inputs.q_len)
    if "attention_mask" in tensors:
        mask = _pick(tensors, ("attention_mask",), path, (2, 4))
        if mask.shape[0] != batch:
            raise QuestionError(f"{path}: attention_mask has {mask.shape[0]} rows, input_ids {batch}")
        inputs = replace(inputs, attention_mask=mask)
    if "position_ids" in tensors:
        inputs = replace(inputs, position_ids=_positions(_pick(tensors, ("position_ids",), path, (1, 2, 3)), inputs, path))
    if "labels" in tensors:
        inputs = replace(inputs, labels=np.atleast_2d(as_ints(_pick(tensors, ("labels",), path, (1, 2)))))
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name not in tensors:
            continue
        kinds = np.atleast_2d(as_ints(_pick(tensors, (name,), path, (1, 2))))
        if kinds.shape != shape:
            raise QuestionError(f"{path}: {name} has the shape {list(kinds.shape)}, expected {list(shape)} as input_ids")
        inputs = replace(inputs, token_types=kinds) if name == "token_type_ids" else replace(inputs, media=kinds)
    grids = {}
    for name in ("image_grid_thw", "video_grid_thw"):
        if name in tensors:
            grid = np.atleast_2d(as_ints(_pick(tensors, (name,), path, (1, 2))))
            if grid.shape[1] != 3:
                raise QuestionError(f"{path}: {name} has the shape {list(grid.shape)}, expected [pictures, 3]")
            grids[name] = grid
    return replace(inputs, grids=grids)


def _positions(found: NDArray[Any], inputs: ForwardInputs, path: str) -> Ints:
    rows = np.atleast_2d(as_ints(found))
    expected = (inputs.batch, inputs.q_len)
    if rows.shape[-1] != inputs.q_len or rows.shape[-2] not in (1, inputs.batch) or (rows.ndim == 3 and rows.shape[0] not in (3, 4)):
        raise QuestionError(f"{path}: position_ids has the shape {list(rows.shape)}, expected {list(expected)}, or 3 or 4 of these")
    return rows


def _with_decoder(inputs: ForwardInputs, tensors: Mapping[str, NDArray[Any]], path: str) -> ForwardInputs:
    """Add the decoder's own tokens and mask of an encoder-decoder."""
    ids, mask = None, None
    if "decoder_input_ids" in tensors:
        ids = np.atleast_2d(as_ints(_pick(tensors, ("decoder_input_ids",), path, (1, 2))))
        if ids.shape[0] != inputs.batch:
            raise QuestionError(f"{path}: decoder_input_ids has {ids.shape[0]} rows, input_ids {inputs.batch}")
    if "decoder_attention_mask" in tensors:
        mask = np.atleast_2d(_pick(tensors, ("decoder_attention_mask",), path, (1, 2)))
        length = inputs.q_len if ids is None else ids.shape[1]
        if mask.shape != (inputs.batch, length):
            raise QuestionError(f"{path}: decoder_attention_mask has the shape {list(mask.shape)}, expected {[inputs.batch, length]}")
    return replace(inputs, decoder_ids=ids, decoder_mask=mask)


def _with_documents(inputs: ForwardInputs, tensors: Mapping[str, NDArray[Any]], path: str) -> ForwardInputs:
    """Add the offsets of packed documents (FlashAttentionKwargs): they take effect only if all four fields are there."""
    given = {name: tensors[name] for name in ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k") if name in tensors}
    offsets = next((given[name] for name in ("cu_seq_lens_k", "cu_seq_lens_q") if name in given), None)
    if offsets is None:
        return inputs
    line = as_ints(offsets).reshape(-1)
    if any(not np.array_equal(line, as_ints(given[name]).reshape(-1)) for name in ("cu_seq_lens_q", "cu_seq_lens_k") if name in given):
        raise QuestionError(
            f"{path}: cu_seq_lens_q and cu_seq_lens_k differ, expected the same offsets: queries and keys are the same tokens"
        )
    tokens = inputs.batch * inputs.q_len
    if len(line) < 2 or line[0] != 0 or line[-1] != tokens or bool((np.diff(line) < 0).any()):
        raise QuestionError(f"{path}: cu_seq_lens is {line[:6].tolist()}, expected offsets that rise from 0 to the {tokens} tokens")
    longest = int(np.diff(line).max())
    for name in ("max_length_q", "max_length_k"):
        if name in given and int(as_ints(given[name]).reshape(-1)[0]) < longest:
            raise QuestionError(
                f"{path}: {name} is {int(as_ints(given[name]).reshape(-1)[0])}, and the longest document of cu_seq_lens has {longest} tokens: the "
                "kernel leaves out what is behind it"
            )
    return replace(inputs, cu_seqlens=tuple(int(offset) for offset in line), varlen=len(given) == 4)


def check_size(what: str, tokens: int) -> None:
    """Raise QuestionError if a plan of so many tokens would take minutes or more memory than a machine has."""
    if tokens > MAX_TOKENS:
        raise QuestionError(f"{what}: {tokens:,} tokens, a plan is made for at most {MAX_TOKENS:,}")

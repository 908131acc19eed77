"""The fields of an inputs file: read, ignored with a reason, refused; and what they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.core.report import Report
from llmdoctor.mask import test as mask_test
from llmdoctor.mask.inspect import inspect_report
from llmdoctor.mask.options import MaskInspectOptions, MaskTestOptions
from tests.mask.models import write_config

IDS = [[5, 6, 7, 8, 9, 10, 11, 12]]


def inspected(folder: Path, fields: dict[str, Any], model: str = "llama", **options: Any) -> Report:
    (folder / "in.json").write_text(json.dumps(fields))
    return inspect_report(MaskInspectOptions(model=str(write_config(folder, model)), input_ids=str(folder / "in.json"), **options))


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


def visible(report: Report) -> dict[str, int]:
    return {group["backend"]: group["visible"] for group in (report.result or {})["layers"]}


def test_a_misspelt_field_is_refused_by_name_and_can_be_left_out(tmp_path: Path) -> None:
    fields = {"input_ids": IDS, "attention_masks": [[1] * 8]}
    with pytest.raises(QuestionError, match=r"attention_masks is not an argument.*attention_mask"):
        inspected(tmp_path, fields)
    report = inspected(tmp_path, fields, without=("attention_masks",))
    assert report.verdict is not None
    assert "without attention_masks" in report.verdict.text


def test_what_can_change_the_answer_and_is_not_modelled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="past_key_values is not modelled"):
        inspected(tmp_path, {"input_ids": IDS, "past_key_values": [[1.0]]})
    with pytest.raises(QuestionError, match="seq_idx is not modelled"):
        inspected(tmp_path, {"input_ids": IDS, "seq_idx": [[0] * 8]}, model="jamba")
    report = inspected(tmp_path, {"input_ids": IDS, "seq_idx": [[0] * 8]})
    assert [each["key"] for each in (report.result or {})["inputs"]["ignored"]] == ["seq_idx"]


def test_an_unknown_field_is_named_in_the_verdict(tmp_path: Path) -> None:
    report = inspected(tmp_path, {"input_ids": IDS, "sample_number": [7]})
    assert report.verdict is not None
    assert "sample_number not read" in report.verdict.text


def test_offsets_reach_flash_attention_alone(tmp_path: Path) -> None:
    fields = {"input_ids": IDS, "cu_seq_lens_q": [0, 3, 8], "cu_seq_lens_k": [0, 3, 8], "max_length_q": 5, "max_length_k": 5}
    report = inspected(tmp_path, fields, backend=("sdpa", "flash_attention_2"))
    assert visible(report) == {"sdpa": 36, "flash_attention_2": 21}
    assert codes(report) == ["MSK007"]
    del fields["max_length_q"]  # flash-attention wants all four
    assert visible(inspected(tmp_path, fields, backend=("flash_attention_2",))) == {"flash_attention_2": 36}


def test_a_decoder_of_its_own_length(tmp_path: Path) -> None:
    fields = {"input_ids": [[5, 6, 7, 8, 9, 10]], "decoder_input_ids": [[0, 9, 9, 9]], "decoder_attention_mask": [[1, 0, 1, 1]]}
    report = inspected(tmp_path, fields, model="t5", backend=("eager",))
    groups = {group["type"]: (group["q_len"], group["kv_len"], group["visible"]) for group in (report.result or {})["layers"]}
    assert groups == {"encoder": (6, 6, 36), "full_attention": (4, 4, 7), "cross": (4, 6, 24)}


M_ROPE = [[[0, 1, 2, 2, 2, 2, 4, 5]], [[0, 1, 2, 2, 3, 3, 4, 5]], [[0, 1, 2, 3, 2, 3, 4, 5]]]


def test_the_ids_of_an_image_are_one_document(tmp_path: Path) -> None:
    report = inspected(tmp_path, {"input_ids": IDS, "position_ids": M_ROPE}, model="qwen2_vl", backend=("sdpa", "flash_attention_2"))
    assert codes(report) == []
    two = [[[*row[0][:4], 0, 1, 2, 3]] for row in M_ROPE]
    assert "MSK007" in codes(inspected(tmp_path, {"input_ids": IDS, "position_ids": two}, model="qwen2_vl", backend=("sdpa",)))


def test_positions_that_jump_cut_the_document_under_sdpa_alone(tmp_path: Path) -> None:
    report = inspected(tmp_path, {"input_ids": IDS, "position_ids": [[0, 1, 2, 3, 9, 10, 11, 12]]}, backend=("sdpa", "flash_attention_2"))
    assert codes(report) == ["MSK023"]
    assert report.findings[0].evidence["backends"] == ["sdpa"]


def test_documents_that_a_token_ends(tmp_path: Path) -> None:
    report = inspected(tmp_path, {"input_ids": [[5, 6, 2, 8, 9, 10, 2, 12]]}, backend=("sdpa",), eos=(2,))
    assert codes(report) == ["MSK007"]
    assert report.findings[0].evidence["query"] == 3
    with pytest.raises(QuestionError, match="--eos"):
        inspected(tmp_path, {"input_ids": IDS, "position_ids": [[0, 1, 2, 3, 0, 1, 2, 3]]}, eos=(2,))


@pytest.mark.live
def test_a_packed_and_padded_row_is_repaired_by_what_was_measured(tmp_path: Path) -> None:
    fields = {"input_ids": [[5, 6, 7, 8, 9, 10, 0, 0]], "attention_mask": [[1] * 6 + [0] * 2], "position_ids": [[0, 1, 2, 0, 1, 2, 0, 0]]}
    (tmp_path / "in.json").write_text(json.dumps(fields))
    options = MaskTestOptions(model=str(write_config(tmp_path, "llama")), input_ids=str(tmp_path / "in.json"), backend=("sdpa",))
    report = mask_test.test_report(options)
    (finding,) = report.findings
    assert finding.code == "MSK007"
    assert finding.evidence["fix_measured"] == 0.0
    assert finding.fix is not None
    assert "no attention_mask" in finding.fix
    assert "cumsum" not in finding.fix


@pytest.mark.live
def test_the_library_refuses_a_configuration_in_its_own_words(tmp_path: Path) -> None:
    folder = write_config(tmp_path, "llama", hidden_size="wide")
    report = mask_test.test_report(MaskTestOptions(model=str(folder), backend=("sdpa",)))
    assert "MSK020" in codes(report)
    assert "hidden_size" in next(finding.message for finding in report.findings if finding.code == "MSK020")


def test_prefixes_and_blocks_that_are_meant(tmp_path: Path) -> None:
    """The design of a prefix: no cut goes through it, and its tokens may see one another."""
    import numpy as np

    from llmdoctor.mask.meant import design_of
    from llmdoctor.mask.types import ForwardInputs

    prefix = np.tril(np.ones((1, 1, 6, 6), np.bool_))
    prefix[..., :3, :3] = True
    design = design_of(None, ForwardInputs(1, 6, attention_mask=prefix))
    assert [cut for cut in range(1, 6) if not design.crosses(cut)] == [3, 4, 5]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cu_seq_lens_k": [0, 4, 8]}, "cu_seq_lens_q and cu_seq_lens_k differ"),
        ({"max_length_k": 4}, "max_length_k is 4, and the longest document of cu_seq_lens has 5"),
    ],
)
def test_offsets_that_contradict_each_other_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    fields = {"input_ids": IDS, "cu_seq_lens_q": [0, 3, 8], "cu_seq_lens_k": [0, 3, 8], "max_length_q": 5, "max_length_k": 5}
    with pytest.raises(QuestionError, match=words):
        inspected(tmp_path, {**fields, **changes})


def test_document_numbers_in_a_padded_mask_are_no_inverted_additive_mask(tmp_path: Path) -> None:
    report = inspected(tmp_path, {"input_ids": IDS, "attention_mask": [[1, 1, 1, 2, 2, 2, 0, 0]]}, backend=("sdpa",))
    (found,) = [one for one in report.findings if one.code == "MSK006" or "cast to bool" in one.message]
    assert "documents are not kept apart" in found.message
    report = inspected(tmp_path, {"input_ids": IDS, "attention_mask": [[0.0] * 6 + [-1e4] * 2]}, backend=("sdpa",))
    assert "inverted" in next(one.message for one in report.findings if "cast to bool" in one.message)


def test_a_mask_of_cross_attention_matters_only_to_models_that_have_it(tmp_path: Path) -> None:
    report = inspected(tmp_path, {"input_ids": IDS, "cross_attention_mask": [[[[1]]] * 8]})
    assert [each["key"] for each in (report.result or {})["inputs"]["ignored"]] == ["cross_attention_mask"]


@pytest.mark.parametrize(
    ("model", "words"), [("qwen2_vl", "over 16 patches has a table of its own"), ("gemma3", "over 16 patches is not shown")]
)
def test_the_verdict_is_of_the_text_layers_if_there_is_an_image(tmp_path: Path, model: str, words: str) -> None:
    fields = {"input_ids": IDS, "pixel_values": [[0.1] * 4] * 16, "image_grid_thw": [[1, 4, 4]]}
    report = inspected(tmp_path, fields, model=model, backend=("sdpa",))
    assert report.verdict is not None
    assert "the text layers alone" in report.verdict.text
    assert words in report.verdict.text
    assert ("tower" in (report.result or {})) is (model == "qwen2_vl")


@pytest.mark.parametrize(
    ("options", "words"),
    [({"phase": "assisted"}, "--phase chunk:Q"), ({"cache": "paged"}, "continuous batching")],
    ids=["assisted", "paged"],
)
def test_what_is_not_modelled_is_named(options: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match=words):
        inspect_report(MaskInspectOptions(model=str(write_config(tmp_path, "llama")), shape="1,8", **options))  # type: ignore[arg-type]


@pytest.mark.live
def test_nothing_to_test_is_not_blamed_on_a_backend_that_the_class_lacks(tmp_path: Path) -> None:
    report = mask_test.test_report(MaskTestOptions(model=str(write_config(tmp_path, "bloom")), shape="1,1"))
    assert report.verdict is not None
    assert report.nothing
    assert "have nothing to test" in report.verdict.text


def test_labels_alone_give_the_decoder_its_tokens(tmp_path: Path) -> None:
    fields = {"input_ids": IDS, "attention_mask": [[1] * 6 + [0] * 2], "labels": [[7, 8, 9, -100]]}
    report = inspected(tmp_path, fields, "t5", backend=("sdpa",))
    assert [(group["type"], group["q_len"]) for group in (report.result or {})["layers"]] == [
        ("encoder", 8),
        ("full_attention", 4),
        ("cross", 4),
    ]


def test_labels_of_a_decoder_are_not_those_of_the_encoder(tmp_path: Path) -> None:
    fields = {"input_ids": IDS, "attention_mask": [[1] * 6 + [0] * 2], "labels": [[6, 7, 8, 9, 10, 11, 12, 1]]}
    assert codes(inspected(tmp_path, fields, "t5", backend=("sdpa",))) == []


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ([-1e4] * 3 + [0.0] * 5, "(attention_mask == 0).long()"),
        ([1, 1, 1, 2, 2, 2, 3, 3], "position_ids"),
        ([0.25] * 2 + [1.0] * 6, "> 0.5"),
    ],
)
def test_the_change_of_an_odd_mask_is_for_its_values(tmp_path: Path, row: list[float], wanted: str) -> None:
    report = inspected(tmp_path, {"input_ids": IDS, "attention_mask": [row]}, backend=("sdpa",))
    assert codes(report) == ["MSK014"]
    assert wanted in str(report.findings[0].fix)


def test_image_tokens_without_their_marks_are_found(tmp_path: Path) -> None:
    ids = [[5, 120, 120, 120, 120, 6, 7, 8]]
    assert codes(inspected(tmp_path, {"input_ids": ids}, "gemma3", backend=("sdpa",))) == ["MSK011"]
    marked = {"input_ids": ids, "token_type_ids": [[0, 1, 1, 1, 1, 0, 0, 0]]}
    assert codes(inspected(tmp_path, marked, "gemma3", backend=("sdpa",))) == []


@pytest.mark.parametrize(("ids", "found"), [([0, 0, 0, 5, 6, 7], True), ([0, 5, 6, 7, 8, 9], False), ([5, 6, 7, 0, 0, 0], False)])
def test_padding_without_a_mask_is_found_where_others_see_it(tmp_path: Path, ids: list[int], found: bool) -> None:
    assert codes(inspected(tmp_path, {"input_ids": [ids]}, backend=("sdpa",))) == (["MSK030"] if found else [])


@pytest.mark.parametrize(("positions", "found"), [([0] * 8, True), (list(range(8))[::-1], True), ([0, 1, 0, 1, 0, 1, 0, 1], False)])
def test_positions_that_never_go_up_are_found(tmp_path: Path, positions: list[int], found: bool) -> None:
    report = inspected(tmp_path, {"input_ids": IDS, "position_ids": [positions]}, backend=("sdpa",))
    assert ("MSK023" in codes(report)) is found


def test_more_tokens_than_learned_positions_raise(tmp_path: Path) -> None:
    model = str(write_config(tmp_path, "gpt2"))
    report = inspect_report(MaskInspectOptions(model=model, shape="1,257", backend=("eager",)))
    assert codes(report) == ["MSK020"]
    assert "256 learned positions" in report.findings[0].message
    assert codes(inspect_report(MaskInspectOptions(model=model, shape="1,256", backend=("eager",)))) == []

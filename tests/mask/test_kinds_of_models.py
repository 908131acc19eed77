"""Models whose masks are not a causal decoder's: windows on both sides, bidirectional text, heads with one stack, attention that hides its pattern."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdoctor.core.errors import QuestionError
from llmdoctor.mask import architectures
from llmdoctor.mask import test as mask_test
from llmdoctor.mask.forward_inputs import forward_inputs
from llmdoctor.mask.options import MaskOptions, MaskTestOptions
from llmdoctor.mask.plan import plan
from llmdoctor.mask.types import CachePlan, ForwardInputs
from tests.mask.models import write_config
from tests.mask.test_against_library import flat

_ENCODER = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 128, "pad_token_id": 0,
    "max_position_embeddings": 64,
}  # fmt: skip
_GEMMA = {
    **_ENCODER, "model_type": "gemma3_text", "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6, "use_bidirectional_attention": True,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip
_BART = {
    "model_type": "bart", "is_encoder_decoder": True, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 128, "max_position_embeddings": 64,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "modernbert": {**_ENCODER, "model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"], "local_attention": 8},
    "modernbert-decoder": {
        **_ENCODER, "model_type": "modernbert-decoder", "architectures": ["ModernBertDecoderForCausalLM"], "local_attention": 8,
    },
    "embeddinggemma": {**_GEMMA, "architectures": ["Gemma3TextModel"]},
    "t5 encoder": {
        "model_type": "t5", "architectures": ["T5EncoderModel"], "is_encoder_decoder": True, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2,
        "num_heads": 4, "vocab_size": 128,
    },
    "bart decoder": {**_BART, "architectures": ["BartForCausalLM"]},
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "long": {"shape": "1,33"},
    "long left": {"lengths": "21,33"},
    "packed": {"packed": "9,24"},
    "decode": {"lengths": "21,33", "phase": "decode"},
}


def written(folder: Path, config: dict[str, Any]) -> tuple[str, architectures.Architecture]:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder), architectures.read(config)


@pytest.mark.live
@pytest.mark.parametrize("name", KINDS)
def test_behind_twice_its_window_the_plan_is_what_the_layers_get(name: str, tmp_path: Path) -> None:
    from llmdoctor.mask.live import build, run

    build.quiet()
    folder, arch = written(tmp_path / "model", KINDS[name])
    assert arch.verified
    config = build.config_of(folder)
    for backend in ("eager", "sdpa", "flash_attention_2"):
        if arch.refusal(backend) is not None:
            continue
        dtype = "bfloat16" if backend == "flash_attention_2" else "float32"
        model = build.build(config, backend, dtype)
        for case, case_options in CASES.items():
            if (case == "decode" and not arch.layers) or (case == "packed" and name in ("t5 encoder", "bart decoder", "modernbert")):
                continue
            inputs = forward_inputs(MaskOptions(model="", **case_options))
            made, seen = plan(arch, inputs, backend, dtype), run.run(model, inputs, backend)
            assert flat(made) == flat(seen), f"{backend} {case}"
            assert all(group.exact for group in made.layers)


WITHOUT_MASK = {
    "big_bird": {**_ENCODER, "model_type": "big_bird", "architectures": ["BigBirdForMaskedLM"], "attention_type": "block_sparse", "block_size": 2},
    "gpt_neo": {
        "model_type": "gpt_neo", "architectures": ["GPTNeoForCausalLM"], "hidden_size": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 128,
        "attention_types": [[["global", "local"], 1]], "window_size": 4, "max_position_embeddings": 64,
    },
}  # fmt: skip


@pytest.mark.live
@pytest.mark.parametrize("name", WITHOUT_MASK)
def test_what_no_mask_shows_is_exact_only_if_a_run_saw_it(name: str, tmp_path: Path) -> None:
    from llmdoctor.mask.live import build, run

    build.quiet()
    folder, arch = written(tmp_path / "model", WITHOUT_MASK[name])
    inputs = forward_inputs(MaskOptions(model="", shape="1,40"))
    seen = run.run(build.build(build.config_of(folder), "eager", "float32"), inputs, "eager")
    assert arch.doubt
    assert [group.exact for group in plan(arch, inputs, "eager", "float32").layers] == [False]
    # GPT-Neo's attention returns its probabilities, so a run sees 40 * 41 / 2 pairs and a window of 4; BigBird's blocks are not seen.
    assert [(group.exact, group.count) for group in seen.layers] == {"gpt_neo": [(True, 820), (True, 154)]}.get(
        name, [(False, None)] * len(seen.layers)
    )


@pytest.mark.parametrize(
    "config",
    [
        {**_GEMMA, "model_type": "gemma4_text", "use_bidirectional_attention": "all"},
        {**_BART, "architectures": ["BartForSequenceClassification"]},
        {**WITHOUT_MASK["big_bird"], "attention_type": None},
    ],
    ids=["use_bidirectional_attention", "another head", "another attention"],
)
def test_a_field_that_no_run_had_is_not_exact(config: dict[str, Any]) -> None:
    made = plan(architectures.read(config), ForwardInputs(1, 8), "eager", "float32")
    assert made.layers
    assert not any(group.exact for group in made.layers)


def test_what_such_models_cannot_do_is_refused() -> None:
    encoder, both = (
        architectures.read(KINDS["modernbert"]),
        architectures.read({**_BART, "architectures": ["BartForConditionalGeneration"]}),
    )
    with pytest.raises(QuestionError, match="decodes nothing"):
        plan(encoder, forward_inputs(MaskOptions(model="", shape="1,8", phase="decode")), "sdpa", "float32")
    with pytest.raises(QuestionError, match="static cache of an encoder-decoder"):
        plan(both, ForwardInputs(1, 8, cache=CachePlan("static", 20)), "sdpa", "float32")


@pytest.mark.live
@pytest.mark.parametrize("columns", [5, 12])
@pytest.mark.parametrize("name", ["llama", "mistral", "jamba"])
def test_a_mask_of_other_columns_than_tokens(name: str, columns: int, tmp_path: Path) -> None:
    from llmdoctor.mask.live import build, run

    build.quiet()
    folder = write_config(tmp_path, name)
    arch = architectures.read(json.loads((folder / "config.json").read_text()))
    config = build.config_of(str(folder))
    inputs = ForwardInputs(1, 8, attention_mask=np.ones((1, columns), np.int64))
    for backend in ("eager", "sdpa", "flash_attention_2"):
        dtype = "bfloat16" if backend == "flash_attention_2" else "float32"
        made, seen = plan(arch, inputs, backend, dtype), run.attempt(build.build(config, backend, dtype), inputs, backend)
        assert (made.error is None) == (seen.error is None), f"{backend}: {made.error}, {seen.error}"
        assert flat(made) == flat(seen)


def inputs_file(folder: Path, **tensors: Any) -> str:
    path = folder / "inputs.json"
    path.write_text(json.dumps({"input_ids": [[5, 6, 7, 8, 9, 10, 11, 12]], **tensors}))
    return str(path)


@pytest.mark.live
def test_packed_images_are_kept_apart_in_sliding_layers(tmp_path: Path) -> None:
    from llmdoctor.mask.live import build, run

    build.quiet()
    folder = write_config(tmp_path, "gemma3")
    arch = architectures.read(json.loads((folder / "config.json").read_text()))
    path = inputs_file(tmp_path, position_ids=[[0, 1, 2, 3, 0, 1, 2, 3]], token_type_ids=[[0, 1, 1, 0, 0, 1, 1, 0]])
    inputs = forward_inputs(MaskOptions(model="", input_ids=path))
    made, seen = (
        plan(arch, inputs, "sdpa", "float32"),
        run.run(build.build(build.config_of(str(folder)), "sdpa", "float32"), inputs, "sdpa"),
    )
    assert flat(made) == flat(seen)
    assert [group.count for group in made.layers] == [22, 22]


@pytest.mark.live
def test_an_exception_over_the_users_inputs_is_a_finding(tmp_path: Path) -> None:
    folder = str(write_config(tmp_path, "llama"))
    short = inputs_file(tmp_path, attention_mask=[[1] * 5])
    report = mask_test.test_report(MaskTestOptions(model=folder, input_ids=short, backend=("eager",)))
    assert [one.code for one in report.findings] == ["MSK005"]
    odd = inputs_file(tmp_path, position_ids=[[0, 1, 2, 3, 4, 5, 6, 10**15]])
    report = mask_test.test_report(MaskTestOptions(model=str(write_config(tmp_path, "gpt2")), input_ids=odd, backend=("eager",)))
    assert [one.code for one in report.findings] == ["MSK020"]
    assert "position 1000000000000000 of a table of 256" in report.findings[0].message
    assert report.verdict is not None
    assert "1 test did not run" in report.verdict.text

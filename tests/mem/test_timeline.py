"""Repeated layers: five of them traced and repeated are, event by event, the whole model traced."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmdoctor.mem.timeline import NotAlike, Segment, Stack, expand
from llmdoctor.mem.workload import Lora, Workload
from tests.mem.conftest import LAYERS

BASE = {"batch": 2, "seq_len": 32}
CASES = [
    ("qwen2", Workload(**BASE)),
    ("qwen2", Workload(**BASE, dtype="float32", autocast="bfloat16", float_outputs=True)),
    ("qwen2", Workload(**BASE, checkpointing=True)),
    ("qwen2", Workload(**BASE, lora=Lora(4))),
    ("qwen3", Workload(**BASE, attention="eager", dtype="float32")),
    ("gpt2", Workload(**BASE, dtype="float32", autocast="float16")),
    ("gpt_neox", Workload(**BASE)),
    ("qwen2_vl", Workload(**BASE, image=(56, 112))),
    ("qwen2_vl", Workload(**BASE, image=(56, 112), trainable=("visual",))),
]


def shape(events: tuple) -> list[tuple]:
    """Events without their ids; a free by what it frees, frees in a row in any order (autocast's cache has none)."""
    sizes = {event[1]: event[2:] for event in events if event[0] == "+"}
    out = []
    for event in events:
        if event[0] == "+":
            out.append(("+", *event[2:]))
        elif event[0] == "-":
            if not out or out[-1][0] != "-":
                out.append(("-", []))
            out[-1][1].append(sizes[event[1]])
            out[-1][1].sort()
        elif event[0] == "g":
            out.append(("g", event[1], sizes[event[2]]))
        else:
            out.append(event)
    return out


@pytest.mark.live
@pytest.mark.parametrize(("family", "workload"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_expanded_is_the_whole_model_traced(models: dict[str, Path], family: str, workload: Workload) -> None:
    from llmdoctor.mem.live.trace import _trace

    short, whole = (_trace(str(models[family]), workload, short=flag) for flag in (True, False))
    assert short.weights == whole.weights
    assert "5 of" in short.layers
    assert len(short.events) == len(whole.events)
    assert shape(short.events) == shape(whole.events)


@pytest.mark.live
def test_every_trained_parameter_that_is_reached_gets_one_gradient(models: dict[str, Path]) -> None:
    from llmdoctor.mem.live.trace import trace

    traced = trace(str(models["qwen2_vl"]), Workload(**BASE))
    grads = [event[1] for event in traced.events if event[0] == "g"]
    assert len(grads) == len(set(grads))
    assert set(grads) == {weight.name for weight in traced.weights if "visual" not in weight.name}
    live = {event[1] for event in traced.events if event[0] == "+"} - {event[1] for event in traced.events if event[0] == "-"}
    sizes = {event[1]: event for event in traced.events if event[0] == "+"}
    assert sum(sizes[identity][2] for identity in live) < 64 * 1024


@pytest.mark.live
def test_attention_keeps_a_matrix_under_eager_and_none_under_sdpa(models: dict[str, Path]) -> None:
    from llmdoctor.mem.live.trace import trace

    def matrices(attention: str) -> int:
        events = trace(str(models["llama"]), Workload(batch=1, seq_len=72, attention=attention)).events
        return sum(event[2] == 4 * 72 * 72 * 4 for event in events if event[0] == "+")

    assert matrices("eager") >= LAYERS
    assert matrices("sdpa") == 0


@pytest.mark.live
def test_dropout_keeps_one_byte_an_element(models: dict[str, Path]) -> None:
    from llmdoctor.mem.live.trace import trace

    events = trace(str(models["gpt2"]), Workload(batch=2, seq_len=32)).events
    masks = [event for event in events if event[0] == "+" and event[2] == 2 * 32 * 48 and event[3] in ("attention", "mlp")]
    assert len(masks) == 2 * LAYERS


def test_layers_that_differ_are_not_extrapolated() -> None:
    segments = [Segment(("layers", "forward", layer), (("+", (layer, 0), 512 if layer != 3 else 1024, "other"),)) for layer in range(5)]
    with pytest.raises(NotAlike):
        expand(segments, [Stack("layers", 9, 5)])


def test_a_free_after_the_layers_frees_every_layer() -> None:
    segments = [Segment(("layers", "forward", layer), (("+", (layer, 0), 512, "other"),)) for layer in range(5)]
    segments.append(Segment(None, tuple(("-", (layer, 0)) for layer in range(5))))
    events = expand(segments, [Stack("layers", 40, 5)])
    assert sum(event[0] == "+" for event in events) == sum(event[0] == "-" for event in events) == 40
    assert {event[1] for event in events if event[0] == "+"} == {event[1] for event in events if event[0] == "-"}

"""What a watched layer shows: a module's own causal buffer, masks and kernels that do not fit, and exceptions of the library."""

from __future__ import annotations

from typing import Any

import pytest

from llmdoctor.mask.forward_inputs import forward_inputs
from llmdoctor.mask.options import MaskOptions

pytestmark = pytest.mark.live


def test_a_causal_buffer_under_eager_is_read_from_the_probabilities() -> None:
    """GPT-2 until transformers 4.52 is given no mask, and its eager function masks by the module's buffer."""
    import torch

    from llmdoctor.mask.live.seen import sees
    from llmdoctor.mask.live.watch import LayerCall

    inputs = forward_inputs(MaskOptions(model="", shape="1,4"))
    layer = LayerCall(path="", index=0, role="self", mask=None, q_len=4, kv_len=4, kernel={"interface": True, "own": True})
    assert sees(layer, inputs, 4) is None
    layer.weighed = torch.ones(1, 4, 4).tril().bool()
    assert sees(layer, inputs, 4).sum() == 10
    layer.kernel["sdpa"], layer.kernel["attn_mask"], layer.kernel["is_causal"] = True, None, True
    assert sees(layer, inputs, 4).sum() == 10
    layer.kernel = {"interface": True, "own": False}
    assert sees(layer, inputs, 4).sum() == 16


def test_a_mask_that_does_not_fit_its_kernel_is_not_known() -> None:
    import torch

    from llmdoctor.mask.live.seen import sees
    from llmdoctor.mask.live.watch import LayerCall

    inputs = forward_inputs(MaskOptions(model="", shape="1,4"))
    layer = LayerCall(path="", index=0, role="self", mask=torch.zeros(1, 1, 4, 3), q_len=4, kv_len=4, kernel={"interface": True})
    assert sees(layer, inputs, 4) is None


def test_a_class_of_tuples_makes_its_own_cache() -> None:
    from llmdoctor.core.errors import QuestionError
    from llmdoctor.mask.live import run

    class Old:
        _supports_cache_class = False

        def __call__(self, **arguments: Any) -> Any:
            assert "past_key_values" not in arguments
            return type("Output", (), {"past_key_values": "tuples"})

        def modules(self) -> list[Any]:
            return []

        named_modules = modules

    inputs = forward_inputs(MaskOptions(model="", shape="1,4", phase="decode"))
    assert run._makes_own_cache(Old(), inputs, "past_key_values", {})
    import torch

    assert run._filled(Old(), torch.zeros(1, 4), None, object(), "past_key_values", legacy=True) == "tuples"
    with pytest.raises(QuestionError, match="say dynamic"):
        run._makes_own_cache(Old(), forward_inputs(MaskOptions(model="", shape="1,4", cache="static:8")), "past_key_values", {})

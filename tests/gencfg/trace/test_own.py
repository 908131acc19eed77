"""Calls that do not go through the library's own generate(): a class's, a model's, generate_batch(); and calls in a pool of threads."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytestmark = pytest.mark.live
for package in ("torch", "transformers"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

from llmdoctor.gencfg.trace.recording import Recording, recording  # noqa: E402

EOS = 5


def tiny(kind: str = "LlamaForCausalLM", own: Any = None) -> Any:
    """A model that produces its eos at once; of a class with the generate() `own` if one is given."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, eos_token_id=EOS, pad_token_id=0
    )
    base = getattr(transformers, kind)
    model = (base if own is None else type("Own", (base,), {"generate": own}))(config).eval()

    def lead(_module: Any, _inputs: Any, output: Any) -> Any:
        forced = torch.zeros_like(output)
        forced[..., EOS] = 50.0
        return forced

    model.get_output_embeddings().register_forward_hook(lead)
    return model


def ids() -> Any:
    import torch

    return torch.tensor([[6, 7]])


def calls(found: Recording) -> list[dict[str, Any]]:
    return [record for record in found.records if record["kind"] == "generate"]


def test_a_function_that_is_assigned_to_one_model() -> None:
    with recording() as found:
        model = tiny()
        model.generate = types.MethodType(lambda self, prompt, temperature=1.0: prompt, model)
        model.generate(ids(), temperature=0.3)
        twin = copy.deepcopy(model)
        assert twin.generate.__wrapped__.__self__ is twin, "a copy calls its own model"
        del model.generate
        model.generate(ids(), max_new_tokens=3)
        with pytest.raises(AttributeError):
            del model.generate
    own, library = calls(found)
    assert "test_own.py" in own["own"]
    assert own["effective"]["temperature"] == 0.3
    assert library.get("own") is None


def test_a_function_that_calls_what_it_replaced_is_one_call_of_the_library() -> None:
    with recording() as found:
        model = tiny()
        before = model.generate
        model.generate = lambda *args, **kwargs: before(*args, **kwargs, max_new_tokens=3)
        model.generate(ids())
    (record,) = calls(found)
    assert record.get("own") is None
    assert record["effective"]["max_new_tokens"] == 3


def test_a_decorated_generate_has_the_line_of_its_definition() -> None:
    import torch

    @torch.no_grad()
    def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0]

    with recording() as found:
        tiny(own=generate).generate(ids(), max_new_tokens=4)
    (record,) = calls(found)
    assert record["own"].endswith(f"test_own.py:{generate.__wrapped__.__code__.co_firstlineno}")


def test_work_of_a_pool_has_the_line_that_gave_it() -> None:
    with recording() as found:
        model = tiny()
        with ThreadPoolExecutor(1) as pool:
            first = sys._getframe().f_lineno + 1
            pool.submit(model.generate, ids(), max_new_tokens=2).result()

        async def later() -> None:
            await asyncio.to_thread(model.generate, ids(), max_new_tokens=2)

        second = later.__code__.co_firstlineno + 1
        asyncio.run(later())
    assert [record["source"] for record in calls(found)] == [f"test_own.py:{first}", f"test_own.py:{second}"]


def test_generate_batch_takes_no_eos_from_the_model() -> None:
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    small = ContinuousBatchingConfig(
        num_blocks=8, max_batch_tokens=32, page_size=16, use_cuda_graph=False, use_async_batching=False, auto_switch_to_flash=False
    )
    more = {"continuous_batching_config": small, "warmup": False}
    with recording() as found:
        model = tiny()
        model.generate_batch([[6, 7], [8]], generation_config=GenerationConfig(max_new_tokens=4, do_sample=False), **more)
        model.generate_batch([[6, 7], [8]], max_new_tokens=4, **more)
    runs_on, stops = calls(found)
    assert [each["stop_reason"] for each in runs_on["sequences"]] == ["length", "length"]
    assert [each["passed_terminator"] for each in runs_on["sequences"]] == [EOS, EOS]
    assert [(each["stop_reason"], each["new_tokens"]) for each in stops["sequences"]] == [("eos", 1), ("eos", 1)]
    report = found.report()
    assert report.verdict is not None
    assert "generate_batch() takes none from the model" in report.verdict.text
    (finding,) = report.findings
    assert "4 new tokens" in finding.message
    assert f"eos_token_id={EOS}" in (finding.fix or "")


def test_a_wrapper_with_a_config_of_its_own_is_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    pytest.importorskip("trl")
    from transformers import GenerationConfig
    from trl.experimental.nash_md.nash_md_trainer import GeometricMixtureWrapper

    with recording() as found:
        passed = GenerationConfig(max_new_tokens=3, do_sample=False)
        line = sys._getframe().f_lineno - 1
        # trl 1.0.0 does not know what generate() of transformers 5.23 asks of a model since: the model inside answers it.
        kind = type("Mixture", (GeometricMixtureWrapper,), {"__getattr__": lambda self, name: getattr(vars(self)["model"], name)})
        mixture = kind(tiny(), tiny(), passed, device=ids().device)
        mixture.generate(input_ids=ids(), generation_config=passed)
    report = found.report()
    assert report.verdict is not None
    assert "the generation_config of Mixture has no eos_token_id" in report.verdict.text
    (finding,) = report.findings
    assert f"test_own.py:{line}" in (finding.cause or "")
    assert finding.fix == f"trainer.generation_config.eos_token_id = [{EOS}]"

"""What is changed in the libraries while a forward is watched, and put back afterwards, also after an exception."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any
from unittest import mock

from llmdoctor.mask.live.older import flash_by_name, watched_mapping


def has_flash_attn() -> bool:
    """Whether the real flash-attention could run here: the package is there, and a GPU."""
    import torch

    return find_spec("flash_attn") is not None and torch.cuda.is_available()


@contextmanager
def reference_flash(record: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """transformers' own flash-attention path over CPU kernels, as if flash-attn were installed."""
    from transformers import modeling_flash_attention_utils as utils
    from transformers import modeling_utils
    from transformers.modeling_utils import PreTrainedModel

    from llmdoctor.mask.live.flash import make_kernels

    fixed, varlen = make_kernels(record)
    if not hasattr(utils, "lazy_import_flash_attention"):
        with flash_by_name(fixed, varlen):
            yield
        return
    process = utils._lazy_define_process_function(varlen)
    paged = (
        (None,) if hasattr(utils, "_flash_with_kvcache_fn") else ()
    )  # releases with kernels for a paged cache hand out one more function
    processes = (process, process) if hasattr(utils, "_process_with_kvcache_kwargs_fn") else process
    kernels: Any = ((fixed, varlen, *paged, utils._pad_input, utils._unpad_input), processes)
    checked = next(name for name in ("_flash_attn_can_dispatch", "_flash_attn_2_can_dispatch") if hasattr(PreTrainedModel, name))
    original = getattr(PreTrainedModel, checked)

    def can_dispatch(self: Any, *args: Any, **kwargs: Any) -> Any:
        """The class's own refusal stays; that the package is missing is what the reference kernel is for."""
        if not getattr(self, "_supports_flash_attn", False):
            return original(self, *args, **kwargs)
        return True

    with ExitStack() as stack:
        for module in (utils, modeling_utils):
            if hasattr(module, "lazy_import_flash_attention"):
                stack.enter_context(mock.patch.object(module, "lazy_import_flash_attention", return_value=kernels))
        stack.enter_context(mock.patch.object(PreTrainedModel, checked, can_dispatch))
        matrix = getattr(utils, "FLASH_ATTENTION_COMPATIBILITY_MATRIX", {})
        if 2 in matrix:  # else the package `kernels` would be asked for a kernel from the hub
            stack.enter_context(mock.patch.dict(matrix[2], {"general_availability_check": lambda *_args, **_kwargs: True}))
        yield


@contextmanager
def real_flash(record: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """The installed flash-attention, whose two kernels tell their arguments."""
    from transformers import modeling_flash_attention_utils as utils

    def telling(function: Callable[..., Any]) -> Callable[..., Any]:
        def told_and_called(q: Any, k: Any, *args: Any, **kwargs: Any) -> Any:
            offsets = [None if kwargs.get(name) is None else kwargs[name].tolist() for name in ("cu_seqlens_q", "cu_seqlens_k")]
            fixed = offsets[0] is None
            record({
                "causal": kwargs.get("causal", False), "window": tuple(kwargs.get("window_size", (-1, -1))), "cu_q": offsets[0], "cu_k": offsets[1],
                "q_len": q.shape[1] if fixed else None, "kv_len": k.shape[1] if fixed else None,
            })  # fmt: skip
            return function(q, k, *args, **kwargs)

        return told_and_called

    if not hasattr(utils, "lazy_import_flash_attention"):
        with ExitStack() as stack:
            for name in ("flash_attn_func", "flash_attn_varlen_func", "flash_attn_2_func", "flash_attn_2_varlen_func"):
                if getattr(utils, name, None) is not None:
                    stack.enter_context(mock.patch.object(utils, name, telling(getattr(utils, name))))
            yield
        return
    original = utils.lazy_import_flash_attention

    def lazy(*args: Any, **kwargs: Any) -> Any:
        functions, rest = original(*args, **kwargs)
        return (telling(functions[0]), telling(functions[1]), *functions[2:]), rest

    with mock.patch.object(utils, "lazy_import_flash_attention", lazy):
        yield


@contextmanager
def flash_in_module(model: Any, on_call: Callable[[Any], None]) -> Iterator[None]:
    """Modeling files from before the attention interface (falcon, gptj) import the path themselves, and only where flash-attn is installed."""
    from transformers import modeling_flash_attention_utils as utils

    def watched(query: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
        on_call(key)
        return utils._flash_attention_forward(query, key, *args, **kwargs)

    module = sys.modules[type(model).__module__]
    if "_flash_attention_forward" not in getattr(module, "__dict__", {}) and not _names_flash(module):
        yield
        return
    with mock.patch.object(module, "_flash_attention_forward", watched, create=True):
        yield


def _names_flash(module: Any) -> bool:
    import inspect

    try:
        return "_flash_attention_forward(" in inspect.getsource(module)
    except (OSError, TypeError):
        return False


_UNTRACED = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"


@contextmanager
def plain_flex() -> Iterator[None]:
    """flex_attention and its block masks uncompiled: on a CPU compiling takes minutes, and its results are not to be trusted there.

    torch's own function traces itself at each new shape even so, which takes seconds; its switch for debugging leaves that out. The results without
    gradients are the same (torch 2.14, nn/attention/flex_attention.py).
    """
    import torch
    from torch.nn.attention import flex_attention as torch_flex
    from transformers import modeling_utils  # noqa: F401 it loads the modules below, those that the release has

    def uncompiled(query: Any, key: Any, value: Any, training: bool = False, **kwargs: Any) -> Any:
        del training
        return torch_flex.flex_attention(query, key, value, **kwargs)

    def block_mask(*args: Any, **kwargs: Any) -> Any:
        return torch_flex.create_block_mask(*args, **{**kwargs, "_compile": False})

    if torch.cuda.is_available():
        yield
        return
    with ExitStack() as stack:
        for module, name, plain in (
            (sys.modules.get("transformers.integrations.flex_attention"), "compile_friendly_flex_attention", uncompiled),
            (sys.modules.get("transformers.integrations.flex_attention"), "create_block_causal_mask_flex", block_mask),  # 4.49 to 4.57
            (sys.modules.get("transformers.integrations.flex_attention"), "create_block_mask", block_mask),  # 5.0: OPT and BART
            (sys.modules.get("transformers.masking_utils"), "create_block_mask", block_mask),
        ):
            if hasattr(module, name):
                stack.enter_context(mock.patch.object(module, name, plain))
        if hasattr(torch_flex, _UNTRACED):  # older releases of torch have none
            stack.enter_context(mock.patch.object(torch_flex, _UNTRACED, True))
        yield


@contextmanager
def watched_interface(wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Every attention function that a model looks up passes through `wrap` first."""
    from transformers import modeling_utils

    if not hasattr(getattr(modeling_utils, "AttentionInterface", None), "get_interface"):
        with watched_mapping(wrap):
            yield
        return
    AttentionInterface = modeling_utils.AttentionInterface
    original = AttentionInterface.get_interface

    def get_interface(self: Any, name: str, default: Callable[..., Any]) -> Callable[..., Any]:
        return wrap(original(self, name, default))

    with mock.patch.object(AttentionInterface, "get_interface", get_interface):
        yield


@contextmanager
def watched_factories(on_call: Callable[[str, dict[str, Any], Any], None]) -> Iterator[None]:
    """Every entry of the mask interface reports its arguments and its result; the mapping is the same object with the same entries after."""
    try:
        from transformers.masking_utils import AttentionMaskInterface
    except ImportError:  # transformers before 4.53 makes its masks in each modeling file
        yield
        return

    def reporting(name: str, function: Callable[..., Any], **kwargs: Any) -> Any:
        result = function(**kwargs)
        on_call(name, kwargs, result)
        return result

    mapping = AttentionMaskInterface._global_mapping
    with mock.patch.dict(mapping, {name: partial(reporting, name, function) for name, function in mapping.items()}):
        yield


@contextmanager
def watched_functions(on_call: Callable[[dict[str, Any]], None], weighed: Callable[[Any], None]) -> Iterator[None]:
    """Report each call of scaled_dot_product_attention with its mask and flags, and the result of each softmax."""
    import torch
    from torch.overrides import TorchFunctionMode

    target = torch.nn.functional.scaled_dot_product_attention
    softmax = (torch.softmax, torch.nn.functional.softmax, torch.Tensor.softmax, torch.special.softmax)

    class Watching(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func is target:
                named = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False)) | kwargs
                on_call(named)
            result = func(*args, **kwargs)
            if func in softmax:
                weighed(result)
            return result

    with Watching():
        yield

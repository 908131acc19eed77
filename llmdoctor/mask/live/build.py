"""A model to run: from a directory's config with random weights, narrowed where it would not fit, or with its real weights."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from llmdoctor.core.errors import MissingExtra, QuestionError
from llmdoctor.modeldir.live.classes import class_of


def need(*packages: str) -> None:
    """Raise MissingExtra where a package is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtra("mask --mode run", package, "live")


def quiet() -> None:
    """The libraries' own chatter would bury the answer: their warnings are switched off for this process."""
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"torch|transformers")


class LibraryRefusal(Exception):
    """transformers cannot make a configuration or a model of the directory; the message is the library's."""


def config_of(directory: str) -> Any:
    """Return the directory's configuration, made by its real class. Raises LibraryRefusal if the class refuses it."""
    need("torch", "transformers")
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 a configuration class validates its fields with errors of its own
        raise LibraryRefusal(f"transformers refuses the configuration: {words_of(error)}") from None


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Random weights that are the same each time; the caller's random state is as before afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build(config: Any, backend: str, dtype: str) -> Any:
    """A random model in eval mode. Raises what the library raises where its class does not support `backend`."""
    import torch

    from llmdoctor.mask.live import patches
    from llmdoctor.mask.live.older import aligned_at_the_end

    def ignore(_arguments: dict[str, Any]) -> None:
        return None

    with seeded(), patches.reference_flash(ignore):
        model = class_of(config)._from_config(copy.deepcopy(config), attn_implementation=backend)
    return aligned_at_the_end(model).to(getattr(torch, dtype)).eval()


def load(directory: str, backend: str, dtype: str) -> Any:
    """The directory's real weights, in eval mode."""
    import torch

    from llmdoctor.mask.live import patches

    config = config_of(directory)
    kind = class_of(config)
    with patches.reference_flash(lambda _call: None):
        try:
            return kind.from_pretrained(directory, attn_implementation=backend, dtype=getattr(torch, dtype)).eval()
        except OSError as error:
            raise QuestionError(f"{directory}: its weights cannot be loaded: {words_of(error)}") from None


def from_function(reference: str) -> Any:
    """Return the model that `module:function` builds, called without arguments. Raises QuestionError if there is no such function or model."""
    return as_model(reference, called(reference, function_of(reference)))


def function_of(reference: str) -> Any:
    """Return the function of `module:function`. Raises QuestionError if there is none."""
    import importlib

    module_name, _, name = reference.partition(":")
    here = os.getcwd()
    if here not in sys.path:  # an installed command has its own folder there, python -m the working directory
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise QuestionError(f"{reference}: no such function: {words_of(error)}") from None
    except Exception as error:  # noqa: BLE001 the caller's own module can raise anything
        raise QuestionError(f"{reference}: importing its module raises {words_of(error)}") from None
    if not callable(function):
        raise QuestionError(f"{reference}: {type(function).__name__} is not a function")
    return function


def called(reference: str, function: Any) -> Any:
    """Return what the function makes without arguments. Raises QuestionError if it raises."""
    try:
        return function()
    except Exception as error:  # noqa: BLE001 the caller's own code can raise anything
        raise QuestionError(f"{reference}: called without arguments it raises {words_of(error)}") from None


def as_model(reference: str, model: Any) -> Any:
    """Return `model` in eval mode. Raises QuestionError if it is no transformers model."""
    if not hasattr(model, "forward") or not hasattr(model, "config"):
        raise QuestionError(f"{reference}: returned {type(model).__name__}, expected a transformers model")
    return model.eval()


def words_of(error: BaseException) -> str:
    """Return an exception in the library's own words, on one line."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)}"[:400] if lines else type(error).__name__

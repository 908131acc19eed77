"""One teacher-forced pass of a real model: the logits that stood before each token. torch and transformers are imported here alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdoctor.core.errors import MissingExtra, QuestionError
from llmdoctor.files.opening import Refusal, read_bytes

_LIMIT = 64 << 20
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}  # without the second, transformers asks on the terminal


def teacher_forced(
    model: str, prompt: str, tokens: Sequence[int], dtype: str = "float32", images: Sequence[str] = ()
) -> tuple[NDArray[np.float32], list[int]]:
    """Logits [steps, V] float32 in front of each of `tokens`, and the prompt's ids. The model runs in `dtype`, on a GPU where there is one.

    `prompt` is a file: a JSON list of ids, a JSON list of messages, or text. `images` go through the model's own processor.
    Raises QuestionError, MissingExtra.
    """
    try:
        import torch
        import transformers
    except ImportError:
        raise MissingExtra("sample replay --model", "transformers with torch", "live") from None

    transformers.logging.set_verbosity_error()
    said = _read(prompt)
    try:
        with torch.no_grad():
            loaded = _load(model, dtype)
            inputs = _inputs(model, said, images, prompt)
            ids = inputs["input_ids"]
            vocab = loaded.get_input_embeddings().num_embeddings
            outside = next((token for token in [*ids[0].tolist(), *tokens] if not 0 <= token < vocab), None)
            if outside is not None:
                raise QuestionError(f"token {outside} lies outside the model's vocabulary, expected 0 to {vocab - 1}")
            full = torch.cat([ids, torch.tensor([list(tokens)])], dim=1)
            extra = {name: value.to(loaded.device) for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
            extra = {name: _longer(value, full.shape[1]) for name, value in extra.items()}
            out = loaded(input_ids=full.to(loaded.device), attention_mask=torch.ones_like(full).to(loaded.device), use_cache=False, **extra)
            logits = out.logits[0, ids.shape[1] - 1 : -1].to(torch.float32).cpu().numpy()
    except QuestionError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise QuestionError(f"{model}: the model could not be run: {type(error).__name__}: {str(error).splitlines()[0][:200]}") from None
    values: NDArray[np.float32] = logits
    return values, [int(token) for token in ids[0]]


def _read(prompt: str) -> Any:
    data = read_bytes(prompt, _LIMIT)
    if data is None:
        raise QuestionError(f"{prompt}: no such file")
    if isinstance(data, Refusal):
        raise QuestionError(f"{prompt} {data.reason}")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise QuestionError(f"{prompt}: not UTF-8, expected token ids, messages or text") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _load(model: str, dtype: str) -> Any:
    import torch
    import transformers

    from llmdoctor.modeldir.live.classes import dtype_argument

    kwargs: dict[str, Any] = {**dtype_argument(getattr(torch, dtype)), **_LOCAL}
    config = transformers.AutoConfig.from_pretrained(model, **_LOCAL)
    auto = transformers.AutoModelForImageTextToText if hasattr(config, "vision_config") else transformers.AutoModelForCausalLM
    loaded = auto.from_pretrained(model, **kwargs).eval()
    return loaded.to("cuda") if torch.cuda.is_available() else loaded


def _inputs(model: str, said: Any, images: Sequence[str], prompt: str) -> dict[str, Any]:
    import torch
    import transformers

    if isinstance(said, list) and said and all(isinstance(token, int) and not isinstance(token, bool) for token in said) and not images:
        return {"input_ids": torch.tensor([said])}
    if isinstance(said, list) and said and all(isinstance(message, dict) for message in said):
        tools = transformers.AutoProcessor if images else transformers.AutoTokenizer
        tool = tools.from_pretrained(model, **_LOCAL)
        said = tool.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    if not isinstance(said, str) or not said:
        raise QuestionError(f"{prompt}: expected a JSON list of token ids or of messages, or text")
    if images:
        from PIL import Image

        processor = transformers.AutoProcessor.from_pretrained(model, **_LOCAL)
        pictures = [Image.open(path).convert("RGB") for path in images]
        return dict(processor(text=[said], images=pictures, return_tensors="pt"))
    return dict(transformers.AutoTokenizer.from_pretrained(model, **_LOCAL)(said, return_tensors="pt"))


def _longer(value: Any, length: int) -> Any:
    """A per-token input of the prompt (mm_token_type_ids) as long as prompt and answer together: the answer's tokens are text."""
    import torch

    if value.dim() == 2 and value.shape[0] == 1 and value.dtype in (torch.int64, torch.int32) and value.shape[1] > 3:
        return torch.nn.functional.pad(value, (0, length - value.shape[1]))
    return value

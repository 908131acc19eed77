"""Tests that run the model: gradients show exactly what reaches a token's logits, the row alone shows what padding changes.

A gradient of a real token's logits with respect to the embedding of a token that it must not see is 0.0 where the mask holds, whatever the
weights are, so that random ones do. Rows that are padding are never asked about.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmdoctor.mask.documents import documents_meant
from llmdoctor.mask.live import run
from llmdoctor.mask.live.build import seeded
from llmdoctor.mask.meant import Design
from llmdoctor.mask.own_mask import padding_of
from llmdoctor.mask.types import ForwardInputs

# Logits may differ by this share of their own spread before a difference counts: rounding alone stays a hundred times below.
TOLERANCE = {"float32": 1e-3, "bfloat16": 8e-2, "float16": 2e-2}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One test of one row: what was measured against which threshold. `code` is the rule that a failure belongs to.

    `span` is [first, last + 1] of the tokens that reached where they must not, or whose logits differ.
    """

    name: str
    backend: str
    code: str
    value: float
    threshold: float
    row: int
    span: tuple[int, int]
    text: str
    fix: str | None = None  # a change that was applied and measured, or a sentence on those that did not help
    fix_measured: float | None = None
    tried: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """NaN is no pass."""
        return self.value <= self.threshold


@dataclass(frozen=True, slots=True)
class FailedTest:
    """A test that could not be made: the backend, which test, the library's words, and whether a plain forward over the inputs raises too."""

    backend: str
    test: str
    error: str
    plainly: bool


def measure(model: Any, inputs: ForwardInputs, backend: str, design: Design, *, causal: bool) -> tuple[list[Measurement], list[FailedTest]]:
    """Return the results of every test that the inputs allow, and the tests that the model raised in."""
    found: list[Measurement] = []
    failed: list[FailedTest] = []
    tests: dict[str, Callable[[], Iterator[Measurement]]] = {
        "leaks": lambda: _leaks(model, inputs, backend, design, causal),
        "each row against itself alone": lambda: _against_alone(model, inputs, backend),
    }
    for name, test in tests.items():
        try:
            with seeded(), run.reference_kernels(model):
                found += list(test())
        except run.RAISED as error:
            line = (str(error).strip().splitlines() or [""])[0][:160]
            plain = run.attempt(model, inputs, backend).error
            failed.append(FailedTest(backend, name, plain or f"{type(error).__name__}: {line}", plain is not None))
    return found, failed


# --- leaks, by gradients ------------------------------------------------------------------------------------------------------------


def _leaks(model: Any, inputs: ForwardInputs, backend: str, design: Design, causal: bool) -> Iterator[Measurement]:
    if inputs.phase != "prefill":
        return
    probe = _probe(model, inputs)
    encoder_decoder = bool(getattr(model.config, "is_encoder_decoder", False))
    real = _real(inputs)
    if not real.all():
        yield from _padding_leaks(probe, real, backend)
    documents = documents_meant(inputs)
    if documents is not None and not encoder_decoder:
        yield _document_leak(probe, documents, backend)
    elif causal and design.causal and not encoder_decoder and inputs.q_len > 1:
        yield from _future_leak(probe, real, design, backend)


class _Gradients:
    """How much chosen logits hang on each token's embedding, by gradients: one forward, kept alive."""

    threshold = 0.0

    def __init__(self, model: Any, arguments: dict[str, Any]) -> None:
        import torch

        ids = arguments.pop("input_ids")
        self.embeds = model.get_input_embeddings()(ids).detach().requires_grad_()
        with torch.enable_grad():
            output = model(inputs_embeds=self.embeds, **arguments)
        self.logits = _logits(output)
        self.weights = torch.randn(self.logits.shape[-1])

    def reach(self, targets: Any, masked: Any) -> tuple[float, int, int]:
        """The largest gradient of the logits `targets` (bool [B, S']) at a token of `masked` (bool [B, S]): (value, row, token)."""
        import torch

        chosen = (self.logits.float() @ self.weights)[torch.from_numpy(np.array(targets))]
        (gradient,) = torch.autograd.grad(chosen.sum(), self.embeds, retain_graph=True)
        return _largest(np.where(masked, gradient.abs().amax(dim=-1).float().numpy(), 0.0))


class _Perturbed:
    """The same where there are no gradients (flex_attention on a CPU): the hidden tokens are exchanged, the logits compared."""

    threshold = 1e-5

    def __init__(self, model: Any, arguments: dict[str, Any]) -> None:
        import torch

        self.model, self.arguments = model, arguments
        ids = arguments.pop("input_ids")
        with torch.no_grad():
            self.embeds = model.get_input_embeddings()(ids)
            self.logits = _logits(model(inputs_embeds=self.embeds, **arguments))
            self.other = self.embeds.roll(1, dims=-1) + self.embeds.std()

    def reach(self, targets: Any, masked: Any) -> tuple[float, int, int]:
        """The largest change of the logits `targets`, in their spread, and the first token of `masked` in the row that changed."""
        import torch

        with torch.no_grad():
            exchanged = torch.where(torch.from_numpy(np.ascontiguousarray(masked))[..., None], self.other, self.embeds)
            moved = _logits(self.model(inputs_embeds=exchanged, **self.arguments))
        gap = ((moved - self.logits).abs().amax(dim=-1) / (self.logits.std() + 1e-12)).float().numpy()
        value, row, _ = _largest(np.where(targets, gap, 0.0))
        return value, row, int(np.flatnonzero(masked[row])[0]) if masked[row].any() else 0


def _probe(model: Any, inputs: ForwardInputs) -> _Gradients | _Perturbed:
    if model.config._attn_implementation == "flex_attention" and not next(model.parameters()).is_cuda:
        return _Perturbed(model, run.prepared(model, inputs))
    return _Gradients(model, run.prepared(model, inputs))


def _logits(output: Any) -> Any:
    logits = getattr(output, "logits", None)
    return output[0] if logits is None else logits


def _largest(values: Any) -> tuple[float, int, int]:
    """(value, row, token) of the largest, NaN before everything."""
    row, token = (int(at) for at in np.unravel_index(np.nan_to_num(values, nan=np.inf).argmax(), values.shape))
    return float(values[row, token]), row, token


def _padding_leaks(probe: _Gradients | _Perturbed, real: Any, backend: str) -> Iterator[Measurement]:
    same = probe.logits.shape[1] == real.shape[1]
    targets = real if same else np.ones(tuple(probe.logits.shape[:2]), np.bool_)
    value, row, token = probe.reach(targets, ~real)
    if np.isnan(value):
        yield Measurement(
            name="no NaN",
            backend=backend,
            code="MSK003",
            value=value,
            threshold=0.0,
            row=row,
            span=(0, real.shape[1]),
            text=f"row {row}: a real token's logits are NaN",
        )
        return
    text = f"masked token {token} of row {row} reaches a real token's logits"
    yield Measurement(
        name="masked tokens stay out",
        backend=backend,
        code="MSK019",
        value=value,
        threshold=probe.threshold,
        row=row,
        span=(token, token + 1),
        text=text,
    )


def _document_leak(probe: _Gradients | _Perturbed, documents: Any, backend: str) -> Measurement:
    worst = (0.0, 0, 0, 0)
    rows = np.ascontiguousarray(np.broadcast_to(documents, tuple(probe.embeds.shape[:2])))
    for document in np.unique(documents[documents >= 0])[:8]:
        inside = rows == document
        value, row, token = probe.reach(inside, ~inside)
        if not value <= worst[0]:
            worst = (value, row, token, int(document))
    value, row, token, document = worst
    text = f"token {token} of row {row} reaches document {document + 1}, which it is no part of"
    return Measurement(
        name="documents stay apart",
        backend=backend,
        code="MSK007",
        value=value,
        threshold=probe.threshold,
        row=row,
        span=(token, token + 1),
        text=text,
    )


def _future_leak(probe: _Gradients | _Perturbed, real: Any, design: Design, backend: str) -> Iterator[Measurement]:
    """Tokens behind a cut must not reach those before it; no cut goes through tokens that see one another by design."""
    length = probe.embeds.shape[1]
    places = [cut for cut in range(1, length) if not design.crosses(cut)]
    cuts = {places[0], places[len(places) // 2], places[-1]} if places else set()
    worst = (0.0, 0, 0)
    tested = False
    for cut in sorted(cuts):
        before = np.broadcast_to(np.arange(length) < cut, (probe.embeds.shape[0], length))
        targets = np.ascontiguousarray(before & real)
        if targets.any():
            tested = True
            value, row, token = probe.reach(targets, ~before)
            worst = worst if value <= worst[0] else (value, row, token)
            if np.isnan(value):
                break
    if not tested:
        return
    value, row, token = worst
    if np.isnan(value):
        text = f"row {row}: a token's logits are NaN"
        yield Measurement(
            name="no NaN", backend=backend, code="MSK003", value=value, threshold=0.0, row=row, span=(token, token + 1), text=text
        )
        return
    text = f"token {token} of row {row} reaches a token before it"
    yield Measurement(
        name="the future stays out",
        backend=backend,
        code="MSK019",
        value=value,
        threshold=probe.threshold,
        row=row,
        span=(token, token + 1),
        text=text,
    )


# --- a row against itself alone ----------------------------------------------------------------------------------------------------


def _against_alone(model: Any, inputs: ForwardInputs, backend: str) -> Iterator[Measurement]:
    import torch

    mask = inputs.mask_2d
    total = inputs.past + inputs.q_len
    if mask is None or (bool((mask != 0).all()) and mask.shape[1] >= total) or _marked(inputs) or documents_meant(inputs) is not None:
        return
    with torch.no_grad():
        arguments = run.prepared(model, inputs)
        together = model(**arguments)
        for row in range(inputs.batch):
            found = _one_row(model, inputs, backend, together, row)
            if found is not None:
                yield found


def _one_row(model: Any, inputs: ForwardInputs, backend: str, together: Any, row: int) -> Measurement | None:
    """Row `row`'s logits in the batch against the same tokens without padding; a hole counts as tokens that should be there."""
    given = np.asarray(inputs.attention_mask)[row] != 0
    missing = max(inputs.past + inputs.q_len - len(given), 0)  # columns that the caller forgot: their tokens are real
    mask = np.concatenate((given, np.ones(missing, np.bool_)))
    places = np.flatnonzero(mask)
    if len(places) == 0 or (mask.all() and not missing):
        return None
    prompt = places[places < inputs.past] if inputs.past else places
    if len(prompt) == 0:
        return None
    span = np.concatenate((np.arange(prompt[0], prompt[-1] + 1), places[places >= inputs.past] if inputs.past else places[:0]))
    hole = len(span) != len(places)
    behind = bool(inputs.past) and prompt[-1] != inputs.past - 1
    ids = run.token_ids(model, inputs)[row : row + 1].to(model.device)
    logits = _logits(together)[row]
    if getattr(model.config, "is_encoder_decoder", False):
        alone = model(
            input_ids=ids[:, : inputs.past or inputs.q_len][:, span[span < (inputs.past or inputs.q_len)]],
            decoder_input_ids=run.decoder_ids(model, inputs)[row : row + 1].to(model.device),
            use_cache=False,
        )
        alone = _logits(alone)[0][-logits.shape[0] :]
        mine, kept = logits, np.arange(logits.shape[0])
    else:
        parameters = inspect.signature(model.forward).parameters
        open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
        more = {"use_cache": False} if open_ended or "use_cache" in parameters else {}
        alone = _logits(model(input_ids=ids[:, span], **more))[0]
        first = inputs.past
        kept = span[span >= first] - first
        mine, alone = logits[kept], alone[-len(kept) :]
    spread = float(alone.float().std()) or 1.0
    gap = (mine.float() - alone.float()).abs().amax(dim=-1)
    value = float(gap.max()) / spread
    worst = int(gap.argmax())
    dtype = str(logits.dtype).removeprefix("torch.")
    code = "MSK005" if missing else "MSK001" if behind else "MSK002" if hole else "MSK018"
    token = int(kept[worst]) + inputs.past
    text = f"row {row}: the logits of token {token} are not those of the row without its {'holes' if hole else 'padding'}"
    return Measurement(
        name="as alone",
        backend=backend,
        code=code,
        value=value,
        threshold=TOLERANCE.get(dtype, 1e-3),
        row=row,
        span=(token, token + 1),
        text=text,
    )


def _real(inputs: ForwardInputs) -> Any:
    mask = inputs.mask_2d
    if inputs.mask_4d is not None:
        return ~padding_of(inputs.mask_4d, inputs.past)
    if mask is None:
        return np.ones((inputs.batch, inputs.q_len), np.bool_)
    return np.ascontiguousarray(mask[:, -inputs.q_len :] != 0)


def _marked(inputs: ForwardInputs) -> bool:
    """Return whether the row alone would need fields besides its tokens: token types, M-RoPE ids, a decoder's own inputs."""
    mrope = inputs.position_ids is not None and inputs.position_ids.ndim == 3
    return mrope or any(field is not None for field in (inputs.token_types, inputs.media, inputs.decoder_ids))

"""Counts live storages while a model runs on fake tensors, as a CUDA device would hold them.

Integers are real and floats are fake: what a model's code decides by values (masks, image grids) runs, and no weight exists.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmdoctor.mem.timeline import Event, RepeatKey, Segment

if TYPE_CHECKING:
    import torch

MAX_REAL = 2**24  # elements of an integer tensor that is still computed for real


class StorageRecorder:
    """What happened so far: segments of events. Not thread-safe; one backward at a time."""

    def __init__(self) -> None:
        self._segments: list[tuple[RepeatKey, list[Event]]] = [(None, [])]
        self._live: dict[int, tuple[int, int]] = {}
        self._references: dict[int, weakref.ref[Any]] = {}
        self._count = 0
        self.kind: Callable[[], str] = lambda: "other"
        self.static: set[int] = set()
        self.open = True
        self.backward = False
        self.part = "forward"  # or "reference": which model runs

    def segment(self, key: RepeatKey) -> None:
        """Begin a new segment, unless `key` is that of the current one."""
        if self._segments[-1][0] != key:
            self._segments.append((key, []))
            self._count = 0

    def mark(self, *event: Any) -> None:
        """Record one event that does not concern a storage."""
        self._segments[-1][1].append(event)

    def see(self, tensor: torch.Tensor, kind: str | None = None) -> None:
        """Record the storage of an operation's output as allocated, unless it is known already."""
        storage = tensor.untyped_storage()
        identity = storage._cdata
        if identity in self._live or identity in self.static:
            return
        self._begin(storage, identity, kind or self.kind())

    def _begin(self, storage: Any, identity: int, kind: str) -> None:
        place = (len(self._segments) - 1, self._count)
        self._count += 1
        self._segments[-1][1].append(("+", place, storage.nbytes(), kind))
        self._watch(storage, identity, place)

    def _watch(self, storage: Any, identity: int, place: tuple[int, int]) -> None:
        self._live[identity] = place
        self._references[identity] = weakref.ref(storage, self._ender(identity))

    def _ender(self, identity: int) -> Callable[[Any], None]:
        return lambda _: self._end(identity)

    def _end(self, identity: int) -> None:
        place = self._live.pop(identity, None)
        self._references.pop(identity, None)
        if place is not None and self.open:
            self._segments[-1][1].append(("-", place))

    def place(self, tensor: torch.Tensor) -> tuple[int, int]:
        """Where in the trace `tensor`'s storage was allocated."""
        return self._live[tensor.untyped_storage()._cdata]

    def hand_over(self, old: torch.Tensor, new: torch.Tensor) -> None:
        """`new` takes the place of `old`, as an operation in place would: nothing is allocated, and the old one's end frees nothing."""
        before, after = old.untyped_storage(), new.untyped_storage()
        if before._cdata == after._cdata or before._cdata not in self._live:
            self.see(new)
            return
        place = self._live.pop(before._cdata)
        self._references.pop(before._cdata)
        self._watch(after, after._cdata, place)
        self.static.discard(after._cdata)

    def finish(self) -> list[Segment]:
        """Return the segments and stop recording."""
        self.open = False
        return [Segment(key, tuple(events)) for key, events in self._segments if events or key is not None]


def make_mode(recorder: StorageRecorder, fake: Any) -> Any:
    """The dispatch mode that records into `recorder` and computes on `fake`, a FakeTensorMode."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import arg_tree_leaves

    add = torch.ops.aten.add.Tensor

    class Counting(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            tensors = [leaf for leaf in arg_tree_leaves(*args, **kwargs) if isinstance(leaf, torch.Tensor)]
            inherits = func is add and recorder.backward and not torch.is_grad_enabled() and _owns(args)
            if _is_fake(tensors, args, kwargs, FakeTensor):
                with fake:
                    out = func(*args, **kwargs)
            else:
                out = func(*args, **kwargs)
            if inherits and isinstance(out, torch.Tensor):
                recorder.hand_over(args[0], out)
            else:
                for tensor in out if isinstance(out, tuple | list) else (out,):
                    if isinstance(tensor, torch.Tensor):
                        recorder.see(tensor)
            for moment in _on_cuda(func, tensors, fake):
                recorder.see(moment)
                del moment
            return out

    return Counting()


def _on_cuda(func: Any, tensors: list[Any], fake: Any) -> Iterator[Any]:
    """Yield what an operation allocates for a moment on CUDA and not on the CPU.

    The backward of softmax multiplies gradient and output (torch 2.11, SoftMax.cu, softmax_backward_cuda_out); _safe_softmax looks for rows
    that are masked whole.
    """
    import torch

    aten = torch.ops.aten
    if func is aten._softmax_backward_data.default:
        with fake:
            yield torch.empty(tensors[0].shape, dtype=tensors[0].dtype)
    elif func is aten._safe_softmax.default:
        with fake:
            yield torch.empty(tensors[0].shape, dtype=torch.bool)


def _owns(args: Any) -> bool:
    """Whether autograd would add in place: the buffer's storage belongs to it alone (input_buffer.cpp, can_accumulate_inplace).

    2: the tensor and the wrapper that asks. A subclass such as a fake tensor is never added to in place, so it is done here.
    """
    import torch

    old, new = args[0], args[1] if len(args) > 1 else None
    if not isinstance(new, torch.Tensor) or old.shape != new.shape or old.dtype != new.dtype:
        return False
    uses: int = torch._C._storage_Use_Count(old.untyped_storage()._cdata)
    return uses == 2


def _is_fake(tensors: list[Any], args: Any, kwargs: Any, fake: type) -> bool:
    if any(isinstance(tensor, fake) for tensor in tensors):
        return True
    if tensors:
        return any(tensor.numel() > MAX_REAL for tensor in tensors)
    dtype = kwargs.get("dtype")
    size = args[0] if args and isinstance(args[0], list | tuple) else ()
    return (dtype is not None and dtype.is_floating_point) or _product(size) > MAX_REAL


def _product(size: Any) -> int:
    out = 1
    for extent in size:
        out *= extent if isinstance(extent, int) else 1
    return out


@contextmanager
def recording(recorder: StorageRecorder, fake: Any) -> Iterator[None]:
    """Everything that runs inside is recorded, with CUDA's attention, dropout and autocast."""
    from llmdoctor.mem.live.cuda import make_function_mode

    with make_function_mode(), make_mode(recorder, fake):
        yield

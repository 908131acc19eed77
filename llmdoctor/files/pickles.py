"""Pickles read without Python's unpickler: nothing is imported, called or hashed; every global becomes a Record that names it.

The opcodes are those of CPython 3.10 to 3.14 (Lib/pickletools.py, protocols 0 to 5). What torch.save writes is read as well: a zip archive
with data.pkl in it (torch 1.6 and later), and the older format of four pickles in a row. Tensors stay names: a storage is a Record.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PICKLE_LIMIT = 2**20  # bytes; a training_args.bin has 5,000 to 10,000
MAX_OPS, MAX_STACK, MAX_MEMO, MAX_BITS = 200_000, 20_000, 50_000, 512
MAX_VALUES, MAX_DEPTH = 20_000, 40
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py:65
_KEYS = (str, int, float, bool, bytes, type(None))


@dataclass(slots=True, eq=False)
class Record:
    """What a pickle says of an object: the global's `name` (module and name), the arguments it would have been called with, its state."""

    name: str
    args: Any = None
    state: Any = None
    items: list[Any] = field(default_factory=list)


def parse_pickle(data: bytes) -> Any:
    """The object in `data`: lists, dicts, tuples, texts, numbers and Records. An object of a dict's or a list's kind keeps its entries in `items`.

    Raises ValueError, with the reason, for what is no pickle, is cut short, or passes a limit.
    """
    if len(data) > PICKLE_LIMIT:
        raise ValueError(f"a pickle of {len(data)} bytes, at most {PICKLE_LIMIT} are read")
    if data.startswith(b"PK\x03\x04"):
        return _Machine(_from_zip(data)).run()
    machine = _Machine(data)
    value = machine.run()
    if value == _TORCH_MAGIC:
        for _ in range(3):  # the protocol's version, the machine's byte order, then the object
            value = machine.run()
    return value


def plain(value: Any, budget: list[int] | None = None, depth: int = 0) -> Any:
    """`value` as JSON could hold it. A Record of one argument (an enum's member, a path) is that argument, one with a state is its state.

    At most MAX_VALUES values and MAX_DEPTH levels; what lies beyond is None: a few references can stand for a billion values.
    """
    left = budget if budget is not None else [MAX_VALUES]
    left[0] -= 1
    if left[0] < 0 or depth > MAX_DEPTH:
        return None
    if isinstance(value, Record):
        inner = value.state if value.state is not None else value.args
        if isinstance(inner, list | tuple) and len(inner) == 1:
            inner = inner[0]
        return value.name if inner is None else plain(inner, left, depth + 1)
    if isinstance(value, dict):
        return {str(key): plain(item, left, depth + 1) for key, item in value.items() if left[0] > 0}
    if isinstance(value, list | tuple):
        return [plain(item, left, depth + 1) for item in value if left[0] > 0]
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str | int | float) else None


def _from_zip(data: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl" and name.count("/") <= 1]
            if len(names) != 1:
                raise ValueError("a zip archive without one data.pkl in it, so not torch.save's")
            with archive.open(names[0]) as file:
                inner = file.read(PICKLE_LIMIT + 1)
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 zipfile, zlib, lzma and bz2 raise a dozen kinds on a damaged archive
        raise ValueError(f"a broken zip archive: {error}") from None
    if len(inner) > PICKLE_LIMIT:
        raise ValueError(f"its data.pkl has more than {PICKLE_LIMIT} bytes")
    return inner


_MARK = object()


class _Machine:
    """The unpickler's stack and memo over inert values. run() reads one pickle; the next call reads the one that follows it."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)
        self.ops = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        self.stack, self.memo = [], {}
        try:
            for opcode, argument, _ in pickletools.genops(self.file):
                self.ops += 1
                if self.ops > MAX_OPS or len(self.stack) > MAX_STACK or len(self.memo) > MAX_MEMO:
                    raise ValueError("a pickle that is too much: limits on steps, stack and memo are passed")
                if opcode.name == "STOP":
                    return self.stack.pop()
                self._step(opcode.name, argument)
        except (IndexError, KeyError, TypeError, AttributeError, OverflowError):
            raise ValueError("a pickle that makes no sense: it takes from an empty stack, or builds on what is no object") from None
        except RecursionError:
            raise ValueError("a pickle that is nested too deeply") from None
        raise ValueError("a pickle that ends too early")

    def _step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            if isinstance(argument, int) and argument.bit_length() > MAX_BITS:
                raise ValueError(f"a number of more than {MAX_BITS} bits")
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _WITH_ARGUMENT:
            _WITH_ARGUMENT[name](self, argument)
        elif name in _ACTIONS:
            _ACTIONS[name](self)
        elif name not in _IGNORED:
            raise ValueError(f"a pickle with the opcode {name}, which is not read here")

    def marked(self) -> list[Any]:
        """What lies above the topmost mark, taken off with it."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError
        above = self.stack[at + 1 :]
        del self.stack[at:]
        return above

    def put(self, key: Any) -> None:
        self.memo[key] = self.stack[-1]

    def tuple_of(self, count: int) -> None:
        if count > len(self.stack):
            raise IndexError
        self.stack[len(self.stack) - count :] = [tuple(self.stack[len(self.stack) - count :])]

    def call(self) -> None:
        """REDUCE and NEWOBJ: the callable and its arguments become a Record of both; nothing is called."""
        arguments, target = self.stack.pop(), self.stack.pop()
        self.stack.append(Record(target.name if isinstance(target, Record) else "?", arguments))

    def call_with_names(self) -> None:
        names, arguments, target = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(Record(target.name if isinstance(target, Record) else "?", arguments, names))

    def instance(self, name: str) -> None:
        self.stack.append(Record(name.replace(" ", "."), tuple(self.marked())))

    def old_object(self) -> None:
        target, *arguments = self.marked()
        self.stack.append(Record(target.name if isinstance(target, Record) else "?", tuple(arguments)))

    def global_from_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError
        self.stack.append(Record(f"{module}.{name}"))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif isinstance(target, dict) and isinstance(state, dict):
            target.update(state)

    def set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if len(pairs) % 2:
            raise IndexError
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(target, Record):
                target.items.append((key, value))
            elif isinstance(key, _KEYS):
                target[key] = value
            else:  # a tuple of tuples of tuples takes for ever to hash
                target[f"key {len(target)}"] = value

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, Record) else target).extend(values)


def _set_item(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items([key, value])


def _dict(machine: _Machine) -> None:
    pairs = machine.marked()
    machine.stack.append({})
    machine.set_items(pairs)


_VALUES = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE "
    "BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
    "MARK": lambda: _MARK,
}
_IGNORED = frozenset(("PROTO", "FRAME"))
_WITH_ARGUMENT: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, key: machine.stack.append(machine.memo[key])),
    "GLOBAL": lambda machine, name: machine.stack.append(Record(name.replace(" ", "."))),
    "INST": _Machine.instance,
    "PERSID": lambda machine, name: machine.stack.append(Record("persistent", name)),
}
_ACTIONS: dict[str, Callable[[_Machine], object]] = {
    "POP": lambda machine: machine.stack.pop(),
    "POP_MARK": _Machine.marked,
    "DUP": lambda machine: machine.stack.append(machine.stack[-1]),
    "MEMOIZE": lambda machine: machine.put(len(machine.memo)),
    "TUPLE": lambda machine: machine.stack.append(tuple(machine.marked())),
    "TUPLE1": lambda machine: machine.tuple_of(1),
    "TUPLE2": lambda machine: machine.tuple_of(2),
    "TUPLE3": lambda machine: machine.tuple_of(3),
    "LIST": lambda machine: machine.stack.append(machine.marked()),
    "FROZENSET": lambda machine: machine.stack.append(machine.marked()),
    "DICT": _dict,
    "APPEND": lambda machine: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine: machine.extend(machine.marked()),
    "ADDITEMS": lambda machine: machine.extend(machine.marked()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine: machine.set_items(machine.marked()),
    "STACK_GLOBAL": _Machine.global_from_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.call_with_names,
    "OBJ": _Machine.old_object,
    "BUILD": _Machine.build,
    "BINPERSID": lambda machine: machine.stack.append(Record("persistent", machine.stack.pop())),
}

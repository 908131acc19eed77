"""Reads pickles without Python's unpickler: nothing is imported, called or hashed; every global becomes a PickledObject that names it.

The opcodes are those of CPython 3.10 to 3.14 (Lib/pickletools.py, protocols 0 to 5). What torch.save writes is read as well: a zip archive
with data.pkl in it (torch 1.6 and later), and the older format of four pickles in a row. Tensors stay names: a storage is a PickledObject.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PICKLE_LIMIT = 2**20  # bytes; a training_args.bin has 5,000 to 10,000
MAX_BITS = 512
MAX_VALUES, MAX_DEPTH = 20_000, 40
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py:65
_KEYS = (str, int, float, bool, bytes, type(None))
_PLAIN_KEYS = frozenset(_KEYS)


@dataclass(slots=True, eq=False)
class PickledObject:
    """What a pickle holds of an object: the global's `name` (module and name), the arguments it would have been called with, its state."""

    name: str
    args: Any = None
    state: Any = None
    items: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class PickleLimits:
    """What a pickle may have: bytes, steps of the unpickler, values on its stack and in its memo; and whether it may name `objects` at all."""

    size: int = PICKLE_LIMIT
    steps: int = 200_000
    stack: int = 20_000
    memo: int = 50_000
    objects: bool = True


def parse_pickle(data: bytes, limits: PickleLimits = PickleLimits()) -> Any:
    """Return the object in `data`: lists, dicts, tuples, texts, numbers and PickledObjects. A subclass of dict or list keeps its entries in `items`.

    Raises ValueError, with the reason, for what is not a pickle, is cut short, or passes a limit.
    """
    if len(data) > limits.size:
        raise ValueError(f"a pickle of {len(data)} bytes, at most {limits.size} are read")
    if data.startswith(b"PK\x03\x04"):
        return _Machine(_from_zip(data), limits).run()
    machine = _Machine(data, limits)
    value = machine.run()
    if value == _TORCH_MAGIC:
        for _ in range(3):  # the protocol's version, the machine's byte order, then the object
            value = machine.run()
    return value


def plain(value: Any, budget: list[int] | None = None, depth: int = 0) -> Any:
    """Return `value` as JSON values. A PickledObject with one argument (an enum's member, a path) becomes that argument, one with a state its state.

    At most MAX_VALUES values and MAX_DEPTH levels; what lies beyond is None: a few references can mean a billion values.
    """
    left = budget if budget is not None else [MAX_VALUES]
    left[0] -= 1
    if left[0] < 0 or depth > MAX_DEPTH:
        return None
    if isinstance(value, PickledObject):
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


WIDEST, ROUNDS = 12, 1000
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}


class _Machine:
    """The unpickler's stack and memo over inert values. run() reads one pickle; the next call reads the one that follows it."""

    def __init__(self, data: bytes, limits: PickleLimits) -> None:
        self.data = data
        self.file = io.BytesIO(data)
        self.at = 0
        self.limits = limits
        self.ops = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.marks: list[int] = []

    def run(self) -> Any:
        self.stack, self.memo, self.marks = [], {}, []
        try:
            while self.at < len(self.data):
                self._frequent()
                if self.at >= len(self.data):
                    break
                self._count()
                name, argument = self._operation()
                if name == "STOP":
                    return self.stack.pop()
                if not self.limits.objects and name in _OBJECTS:
                    raise ValueError(f"it asks for {str(argument).replace(' ', '.') if argument else 'an object'}, and may hold none")
                handler = _HANDLERS.get(name)
                if handler is None:
                    raise ValueError(f"a pickle with the opcode {name}, which is not read here")
                handler(self, argument)
        except (IndexError, KeyError, TypeError, AttributeError, OverflowError):
            raise ValueError("a damaged pickle: it takes from an empty stack, or builds on what is not an object") from None
        except RecursionError:
            raise ValueError("a pickle that is nested too deeply") from None
        raise ValueError("a pickle that ends too early")

    def _count(self, steps: int = 1) -> None:
        """Count steps, and compare what the machine holds with its limits."""
        self.ops += steps
        most = self.limits
        if self.ops > most.steps or len(self.stack) + len(self.marks) > most.stack or len(self.memo) > most.memo:
            raise ValueError("a pickle that is too large: it passes the limits on steps, stack or memo")

    def _frequent(self) -> None:  # noqa: PLR0912 one branch per opcode
        """Run the opcodes of which a memory snapshot consists, up to any other one: in one loop, because a snapshot has millions of them.

        A round adds one value at most, so that counting after ROUNDS of them keeps the limits to within ROUNDS values.
        """
        data, stack, memo, marks = self.data, self.stack, self.memo, self.marks
        at, end, begun = self.at, len(self.data) - WIDEST, 0
        number = int.from_bytes
        while at < end:
            begun += 1
            code = data[at]
            if code == 0x68:  # BINGET
                stack.append(memo[data[at + 1]])
                at += 2
            elif code == 0x6A:  # LONG_BINGET
                stack.append(memo[number(data[at + 1 : at + 5], "little")])
                at += 5
            elif code == 0x94:  # MEMOIZE
                memo[len(memo)] = stack[-1]
                at += 1
            elif code == 0x28:  # MARK
                marks.append(len(stack))
                at += 1
            elif code == 0x4B:  # BININT1
                stack.append(data[at + 1])
                at += 2
            elif code == 0x7D:  # EMPTY_DICT
                stack.append({})
                at += 1
            elif code == 0x75:  # SETITEMS
                self.set_items(self.marked())
                at += 1
            elif code == 0x4A:  # BININT
                stack.append(number(data[at + 1 : at + 5], "little", signed=True))
                at += 5
            elif code == 0x5D:  # EMPTY_LIST
                stack.append([])
                at += 1
            elif code == 0x65:  # APPENDS
                self.extend(self.marked())
                at += 1
            elif code == 0x8A and data[at + 1] <= 8:  # LONG1
                width = data[at + 1]
                stack.append(number(data[at + 2 : at + 2 + width], "little", signed=True))
                at += 2 + width
            else:
                break
            if begun >= ROUNDS:
                self.at = at
                self._count(begun)
                begun = 0
        self.at = at
        self._count(begun)

    def _operation(self) -> tuple[str, Any]:
        """Return the name and the argument of the next opcode: the frequent ones decoded here, the others by pickletools."""
        data, end = self.data, len(self.data)
        code, start = data[self.at], self.at + 1
        fast = _FAST.get(code)
        argument: Any = None
        if fast is None:
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise ValueError(f"at byte {self.at}: not an opcode of a pickle")
            self.file.seek(start)
            argument = None if opcode.arg is None else opcode.arg.reader(self.file)
            self.at = self.file.tell()
            return opcode.name, argument
        name, width, kind = fast
        self.at = start + width
        if width:
            argument = int.from_bytes(data[start : self.at], "little")
        if kind is not None:
            start, self.at = self.at, self.at + argument
            inside = data[start : self.at]
            argument = inside.decode("utf-8", "surrogatepass") if kind is str else int.from_bytes(inside, "little", signed=True)
        if self.at > end:
            raise ValueError("a pickle that ends too early")
        return name, argument

    def value(self, argument: Any) -> None:
        """Put a text or a number on the stack."""
        if isinstance(argument, int) and argument.bit_length() > MAX_BITS:
            raise ValueError(f"a number of more than {MAX_BITS} bits")
        self.stack.append(argument)

    def marked(self) -> list[Any]:
        """What lies above the topmost mark, taken off with it."""
        at = self.marks.pop()
        above = self.stack[at:]
        del self.stack[at:]
        return above

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def pop(self) -> None:
        """Take off the topmost value, or the mark above it."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def put(self, key: Any) -> None:
        self.memo[key] = self.stack[-1]

    def tuple_of(self, count: int) -> None:
        if count > len(self.stack):
            raise IndexError
        self.stack[len(self.stack) - count :] = [tuple(self.stack[len(self.stack) - count :])]

    def call(self) -> None:
        """REDUCE and NEWOBJ: the callable and its arguments become a PickledObject of both; nothing is called."""
        arguments, target = self.stack.pop(), self.stack.pop()
        self.stack.append(PickledObject(target.name if isinstance(target, PickledObject) else "?", arguments))

    def call_with_names(self) -> None:
        names, arguments, target = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(PickledObject(target.name if isinstance(target, PickledObject) else "?", arguments, names))

    def instance(self, name: str) -> None:
        self.stack.append(PickledObject(name.replace(" ", "."), tuple(self.marked())))

    def old_object(self) -> None:
        target, *arguments = self.marked()
        self.stack.append(PickledObject(target.name if isinstance(target, PickledObject) else "?", tuple(arguments)))

    def global_from_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError
        self.stack.append(PickledObject(f"{module}.{name}"))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, PickledObject):
            target.state = state
        elif isinstance(target, dict) and isinstance(state, dict):
            target.update(state)

    def set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if len(pairs) % 2:
            raise IndexError
        if type(target) is dict and _PLAIN_KEYS.issuperset(map(type, pairs[::2])):
            target.update(zip(pairs[::2], pairs[1::2], strict=True))
            return
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(target, PickledObject):
                target.items.append((key, value))
            elif isinstance(key, _KEYS):
                target[key] = value
            else:  # a tuple of tuples of tuples takes for ever to hash
                target[f"key {len(target)}"] = value

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, PickledObject) else target).extend(values)


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
}
_IGNORED = frozenset(("PROTO", "FRAME"))
_OBJECTS = frozenset(
    ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4")
)
_WITH_ARGUMENT: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, key: machine.stack.append(machine.memo[key])),
    "GLOBAL": lambda machine, name: machine.stack.append(PickledObject(name.replace(" ", "."))),
    "INST": _Machine.instance,
    "PERSID": lambda machine, name: machine.stack.append(PickledObject("persistent", name)),
}
_ACTIONS: dict[str, Callable[[_Machine], object]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
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
    "BINPERSID": lambda machine: machine.stack.append(PickledObject("persistent", machine.stack.pop())),
}

Handler = Callable[[_Machine, Any], object]


def _constant(make: Callable[[], Any]) -> Handler:
    return lambda machine, _: machine.stack.append(make())


def _action(act: Callable[[_Machine], object]) -> Handler:
    return lambda machine, _: act(machine)


_HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(_VALUES, _Machine.value),
    **{name: _constant(make) for name, make in _CONSTANTS.items()},
    **_WITH_ARGUMENT,
    **{name: _action(act) for name, act in _ACTIONS.items()},
    **dict.fromkeys(_IGNORED, lambda _machine, _argument: None),
}
# By opcode: its name, the bytes of its number or length, and what as many bytes as that length are.
_FAST: dict[int, tuple[str, int, type | None]] = {
    **{
        ord(code): (name, 0, None)
        for code, name in (
            ("(", "MARK"), ("}", "EMPTY_DICT"), ("]", "EMPTY_LIST"), (")", "EMPTY_TUPLE"), ("u", "SETITEMS"), ("e", "APPENDS"), ("s", "SETITEM"),
            ("a", "APPEND"), ("N", "NONE"), ("\x88", "NEWTRUE"), ("\x89", "NEWFALSE"), ("\x94", "MEMOIZE"), (".", "STOP"),
            ("\x85", "TUPLE1"), ("\x86", "TUPLE2"), ("\x87", "TUPLE3"),
        )
    },
    **{
        ord(code): (name, width, kind)
        for code, name, width, kind in (
            ("h", "BINGET", 1, None), ("j", "LONG_BINGET", 4, None), ("q", "BINPUT", 1, None), ("r", "LONG_BINPUT", 4, None),
            ("K", "BININT1", 1, None), ("M", "BININT2", 2, None), ("\x8a", "LONG1", 1, int), ("\x8c", "SHORT_BINUNICODE", 1, str),
            ("X", "BINUNICODE", 4, str),
        )
    },
}  # fmt: skip

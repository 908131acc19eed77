"""The reader of pickles against Python's own unpickler, where that is harmless, and against bytes that are not."""

from __future__ import annotations

import collections
import contextlib
import enum
import io
import pathlib
import pickle
import tracemalloc
import zipfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdoctor.files.pickles import MAX_VALUES, PICKLE_LIMIT, PickledObject, PickleLimits, parse_pickle, plain

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20) | st.binary(max_size=20)
)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=20,
)


class Optim(enum.Enum):
    ADAM = "adamw_torch"


class Holder:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(value=DATA, protocol=st.integers(0, 5))
def test_plain_data_is_what_pickle_loads(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    if protocol < 3 and (b"_codecs" in data or b"__builtin__" in data):
        return  # bytes of the old protocols are a call of codecs.encode, and nothing is called here
    assert parse_pickle(data) == pickle.loads(data)


@settings(max_examples=300, derandomize=True, deadline=2000)
@given(data=st.data())
def test_mutated_bytes_are_read_or_refused(data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps(Holder(a=[1, {"b": Optim.ADAM}], c=(1.5, None), d={1, 2}), data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        plain(parse_pickle(bytes(whole)))


@pytest.mark.parametrize("protocol", range(6))
def test_an_object_is_its_name_and_its_state(protocol: int) -> None:
    value = parse_pickle(pickle.dumps(Holder(optim=Optim.ADAM, path=pathlib.PurePosixPath("out/x"), seen={1}), protocol))
    assert isinstance(value, PickledObject)
    seen = plain(value)
    assert seen["optim"] == "adamw_torch"
    assert value.name in (f"{__name__}.Holder", "copy_reg._reconstructor")


def test_entries_of_a_dicts_subclass_are_kept() -> None:
    value = parse_pickle(pickle.dumps(collections.OrderedDict(a=1, b=2)))
    assert value.name == "collections.OrderedDict"
    assert value.items == [("a", 1), ("b", 2)]


def test_references_that_stand_for_a_billion_values_have_an_end() -> None:
    bomb: Any = ["x"] * 10
    for _ in range(12):
        bomb = [bomb] * 10

    def count(value: Any) -> int:
        return 1 + sum(map(count, value)) if isinstance(value, list) else 1

    assert count(plain(parse_pickle(pickle.dumps(bomb)))) <= MAX_VALUES * 2


def test_a_list_in_itself_has_an_end() -> None:
    value: list[Any] = []
    value.append(value)
    plain(parse_pickle(pickle.dumps(value)))


def archive(name: str, data: bytes, **more: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, data)
        for other, content in more.items():
            file.writestr(other, content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends too early"),
        (b"hello", "a damaged pickle"),
        (b"{,", "not an opcode"),
        (b"\x80\x04", "ends|exhausted"),
        (b"\x80\x04.", "a damaged pickle"),
        (b"0.", "a damaged pickle"),
        (b"N" * 100_000 + b".", "too large"),
        (b"(" + b"K\x01" * 90_000 + b"l" * 3, "too large"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f", "expected|not enough|bytes"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "ends too early"),
        (pickle.dumps(1 << 5000), "more than 512 bits"),
        (b"L" + b"9" * 6000 + b"L\n.", "."),
        (b"\x82\x01.", "opcode EXT1"),
        (archive("a/data.pkl", b"N" * (PICKLE_LIMIT + 5)), "more than"),
        (archive("a/other.pkl", b"N."), "without one data.pkl"),
        (archive("a/data.pkl", b"N.", **{"b/data.pkl": b"N."}), "without one data.pkl"),
        (archive("a/data.pkl", b"N.")[:-10], "broken zip"),
        (b"N" * (PICKLE_LIMIT + 1), "at most"),
    ],
)
def test_what_is_refused_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_pickle(data)


def test_nothing_is_imported_or_called() -> None:
    """Each of these writes a file when Python's own unpickler reads it."""
    for payload in (
        b"cos\nsystem\n(S'touch /tmp/llmdoctor-pickle'\ntR.",
        b"(S'touch /tmp/llmdoctor-pickle'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch /tmp/llmdoctor-pickle'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x1btouch /tmp/llmdoctor-pickle\x85R.",
        b"\x80\x02cbuiltins\nexec\nX\x05\x00\x00\x00\x31/0#)\x85\x81}b.",
    ):
        value = parse_pickle(payload)
        assert isinstance(value, PickledObject)
        assert value.name in ("os.system", "builtins.exec")
    assert not pathlib.Path("/tmp/llmdoctor-pickle").exists()


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02Nr\xff\xff\xff\x3f.",  # a place in the memo of four bytes: pickle makes room for as many
        b"\x80\x04})" + b"2\x86" * 300 + b"Ns.",  # a tuple of tuples as a key: its hash takes 2**300 steps
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # a number of two gigabytes
        b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",  # a text of more than any memory
    ],
)
def test_a_few_bytes_take_no_memory_and_no_time(data: bytes) -> None:
    tracemalloc.start()
    with contextlib.suppress(ValueError):
        parse_pickle(data, PickleLimits(size=2**30, steps=10**9, stack=10**7, memo=10**8, objects=False))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4) | st.tuples(inner, inner),
)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(value=JSON_LIKE, protocol=st.integers(0, 5))
def test_without_objects_it_reads_what_a_snapshot_holds(value: Any, protocol: int) -> None:
    assert parse_pickle(pickle.dumps(value, protocol), PickleLimits(objects=False)) == value


@pytest.mark.parametrize("protocol", range(6))
def test_without_objects_a_global_is_refused(protocol: int) -> None:
    with pytest.raises(ValueError, match="may hold none"):
        parse_pickle(pickle.dumps(Holder(a=1), protocol), PickleLimits(objects=False))

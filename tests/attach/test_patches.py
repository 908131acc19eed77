"""Whatever is patched, in whatever order, undo() gives back exactly what was there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmdoctor.attach.patches import Patches


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from(["own", "inherited", "absent"]), st.integers()), max_size=12),
    st.permutations(range(3)),
)
def test_undo_is_exact_in_any_order(changes: list[tuple[int, int, str, int]], order: list[int]) -> None:
    class Base:
        own = 1
        inherited = 2

    class Child(Base):
        own = 3

    class Grandchild(Child):
        pass

    kinds = (Base, Child, Grandchild)
    before = [dict(vars(kind)) for kind in kinds]
    patches = [Patches() for _ in range(3)]
    for who, index, name, value in changes:
        patches[who].set(kinds[index], name, value)
        assert vars(kinds[index])[name] == value
    for who in order:
        patches[who].undo()
        patches[who].undo()
    assert [dict(vars(kind)) for kind in kinds] == before
    assert Patches._over == {}

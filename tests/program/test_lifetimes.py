"""Temporaries that live at one time never share memory; those that do not, do."""

from hypothesis import given
from hypothesis import strategies as st

from tridsl.program.lifetimes import ALIGNMENT, Lifetime, arena


def make(items: list[tuple[int, int, int]]) -> tuple[Lifetime, ...]:
    return tuple(
        Lifetime(value=f"v{i}", bytes=size, first=first, last=first + span)
        for i, (size, first, span) in enumerate(items)
    )


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 12), st.integers(0, 6)), max_size=14))
def test_live_values_are_disjoint_and_aligned(items: list[tuple[int, int, int]]) -> None:
    spans = make(items)
    result = arena(spans)
    offsets = dict(result.offsets)
    for a in spans:
        assert offsets[a.value] % ALIGNMENT == 0
        assert offsets[a.value] + a.bytes <= result.bytes
        for b in spans:
            if a.value < b.value and a.first <= b.last and b.first <= a.last and a.bytes and b.bytes:
                assert offsets[a.value] + a.bytes <= offsets[b.value] or offsets[b.value] + b.bytes <= offsets[a.value]


def test_chain_alternates_between_two_places() -> None:
    chain = make([(640, i, 1) for i in range(6)])
    assert arena(chain).bytes == 2 * 640


def test_disjoint_lifetimes_share() -> None:
    assert arena(make([(100, 0, 0), (64, 1, 0), (128, 2, 3)])).bytes == 128

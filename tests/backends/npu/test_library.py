"""The whole library on both generations: what runs equals the oracle, what does not is named here with the reason.

The ordinary run takes every op with one of its element types on one generation, at sizes from a seed; `full` takes all types, both generations, every
number of columns and several seeds.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

import tridsl
from tests.backends.npu.cases import CASES, Sizes, Trits
from tests.backends.npu.designs import GENERATIONS, called, chip
from tridsl import stdlib
from tridsl.diagnostics import TriError

REFUSED: dict[str, tuple[str, str]] = {}
"""Ops that are refused, with the code and the limit that the message names. What is here and runs has to leave; what is not here has to be right."""

FROM_SUMS = {"rmsnorm_quantise"}
"""Ops whose integers are rounded from sums of floats, which cores add in another order: one in a hundred may fall on the other side of a tie."""


def device_of(generation: str) -> str:
    return f"npu:sim:{generation}"


def arguments(name: str, dtype: Any, seed: int = 0) -> tuple[Any, ...]:
    case, _ = CASES[name]
    found = case(Sizes(zlib.crc32(name.encode()) + seed), dtype)
    return tuple(tridsl.pack(np.asarray(a), "t16") if isinstance(a, Trits) else a for a in found)


@cache
def wanted(name: str, kind: str, seed: int) -> tuple[Any, ...]:
    dtype = next(t for t in CASES[name][1] if np.dtype(t).name == kind)
    with np.errstate(all="ignore"):
        want = getattr(stdlib, name).reference(*arguments(name, dtype, seed))
    return want if isinstance(want, tuple) else (want,)


def compare(name: str, dtype: Any, generation: str, seed: int = 0) -> None:
    kind = np.dtype(dtype).name
    refusal = REFUSED.get(name)
    given = arguments(name, dtype, seed)
    if refusal is not None:
        code, limit = refusal
        with pytest.raises(TriError) as problem:  # one that runs is no longer refused: its line has to go
            getattr(stdlib, name)(*given, device=device_of(generation))
        said = problem.value.diagnostics[0]
        assert said.code == code and limit in said.message and said.help, said
        return
    got = getattr(stdlib, name)(*given, device=device_of(generation))
    close(name, got if isinstance(got, tuple) else (got,), wanted(name, kind, seed))


def close(name: str, got: Sequence[Any], want: Sequence[Any]) -> None:
    for g, w in zip(got, want):
        g, w = np.asarray(g), np.asarray(w)
        if w.dtype.kind in "iub":
            apart = np.abs(g.astype(np.int64) - w.astype(np.int64))
            few = name in FROM_SUMS and apart.max(initial=0) <= 1 and np.count_nonzero(apart) <= apart.size // 100
            assert few or not apart.any(), (name, apart.max(initial=0))
            continue
        narrow = g.dtype.itemsize == 2
        exact = w.astype(np.float64)
        scale = float(np.abs(exact[np.isfinite(exact)]).max(initial=0)) or 1.0
        np.testing.assert_allclose(g.astype(np.float64), exact, rtol=8e-3 if narrow else 1e-5, atol=scale * (4e-3 if narrow else 2e-6), err_msg=name)


def test_every_op_of_the_library_is_in_the_table() -> None:
    assert set(CASES) == set(stdlib.names()), set(CASES) ^ set(stdlib.names())
    assert set(REFUSED) <= set(CASES)


TYPES = [(name, dtype) for name, (_, types) in CASES.items() for dtype in types]


@pytest.mark.parametrize(("place", "name"), list(enumerate(CASES)), ids=list(CASES))
def test_an_op_of_the_library(place: int, name: str) -> None:
    types = CASES[name][1]
    compare(name, types[place % len(types)], GENERATIONS[place // 2 % 2])


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(("name", "dtype"), TYPES, ids=[f"{n}-{np.dtype(t).name}" for n, t in TYPES])
def test_every_op_with_every_type_on_both_generations(name: str, dtype: Any, generation: str, seed: int) -> None:
    compare(name, dtype, generation, seed + 1)


@pytest.mark.full
@pytest.mark.parametrize("columns", [1, 2, 4, 8])
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("name", [name for name in CASES if name not in REFUSED and not name.startswith("tgem")])
def test_every_number_of_columns(name: str, generation: str, columns: int) -> None:
    """Of every launch that can have so many. (Packed arguments are for calls only.)"""
    if columns > (chip(generation).columns or 0):
        return
    for dtype in CASES[name][1]:
        got, want = called(name, *arguments(name, dtype, columns), generation=generation, asked=lambda what: columns if what.endswith(".columns") else None)
        close(name, [got[n] for n in want], list(want.values()))

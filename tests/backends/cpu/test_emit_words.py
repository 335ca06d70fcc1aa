"""Sums over the channels of a pixel as products of pairs of words, and integers packed where they fit: exact against the oracle."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.backends.cpu.kernels import agrees, const, host, kernel, load, loop, op, store, tensor, values
from tridsl.backends.cpu.build import assembly
from tridsl.backends.cpu.emit import emit
from tridsl.devices.spec import load_chip
from tridsl.dtypes import I16, I32, U8, U16, DType
from tridsl.ir.expr import Cast, Expr, Var, add, minimum, mul, sub
from tridsl.ir.loop import Kernel

LANES = 32
POSITION = mul(Var(name="o"), const(LANES))


def pixel(channel: int, channels: int = 4) -> Expr:
    return Cast(a=load("x", U8, add(POSITION, Var(name="v")), channel), dtype=I32)


def weighted(terms: Sequence[tuple[int, int]]) -> Expr:
    total: Expr = const(8192, I32)
    for number, (channel, factor) in enumerate(terms):
        product = op("mul", const(factor, I32), pixel(channel))
        total = op("sub" if number % 2 else "add", total, product)
    return total


def over_pixels(value: Expr, dtype: DType, length: int) -> Kernel:
    body = store("y", add(POSITION, Var(name="v")), value=value)
    inner = loop("v", minimum(const(LANES), sub(const(length), POSITION)), body, kind="vector", bound=LANES)
    params = [tensor("x", U8, length, 4), tensor("y", dtype, length, role="output")]
    return kernel("pixels", params, loop("o", -(-length // LANES), inner))


TERMS = [
    [(0, 4899), (1, 9617), (2, 1868)], [(0, 1), (3, -1)], [(1, 32767), (3, 32767)], [(0, 40000), (1, 3), (2, 5)], [(0, 7), (0, 9), (1, 2)],
    [(0, -32767), (1, 12), (2, 0), (3, 9)],
]  # fmt: skip


@pytest.mark.parametrize("length", [1, 31, 64, 97])
@pytest.mark.parametrize("terms", TERMS, ids=str)
def test_channel_sums(terms: list[tuple[int, int]], length: int) -> None:
    for chip in (host(), load_chip("x86_64_v3")):
        agrees(over_pixels(weighted(terms), I32, length), {"x": values(U8, (length, 4))}, {}, spec=chip)


@pytest.mark.parametrize("dtype", [I16, U16, U8], ids=str)
@pytest.mark.parametrize("shift", [0, 6, 7, 14])
def test_narrowed_sums(dtype: DType, shift: int) -> None:
    """Shifted by 14 the sum fits every type, by 7 only an unsigned word, by less none: packing must not saturate then."""
    value = Cast(a=op("shr", weighted([(0, 4899), (1, -9617), (2, 1868)]), const(shift, I32)), dtype=dtype)
    for chip in (host(), load_chip("x86_64_v3")):
        agrees(over_pixels(value, dtype, 80), {"x": values(U8, (80, 4))}, {}, spec=chip)


def test_grey_takes_two_products_and_one_pack() -> None:
    zen4 = load_chip("zen4")
    value = Cast(a=op("shr", weighted(TERMS[0]), const(14, I32)), dtype=I16)
    text = assembly(emit(over_pixels(value, I16, 64), zen4), zen4)
    assert "vpackssdw" in text and "vpmulld" not in text and "vpmullw" not in text
    assert text.count("vpmaddwd") + text.count("vpdpwssd") == 4  # two products for each of the two registers

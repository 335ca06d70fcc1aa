"""Sums of constant multiples of a group's channels as products of pairs of words (`vpmaddwd`).

A pixel of four bytes is a register lane of 32 bits. Its even bytes and its odd bytes, each widened to words in place, are two
pairs of words, and one instruction multiplies a pair by two constants and adds: `4899*r + 9617*g + 1868*b` takes two of them
in place of three multiplications of 32 bits (two instructions of 10 cycles each on Intel's cores).
"""

from __future__ import annotations

from tridsl.backends.cpu.emit_frame import Frame, Place
from tridsl.backends.cpu.emit_group import channel_of, first_group, load_group
from tridsl.backends.cpu.emit_index import Access, access_of
from tridsl.backends.cpu.emit_llvm import (
    SHORT,
    WORD,
    Value,
    constant,
    declare,
    ir,
    joined,
    shuffle,
    splat,
    together,
    vector_constant,
)
from tridsl.backends.cpu.emit_memory import address, lane_mask
from tridsl.dtypes import I32, U8
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load
from tridsl.structs import dataclass

CHANNELS = 4
MULTIPLY_ADD = {512: ("avx512bw", "llvm.x86.avx512.pmaddw.d.512"), 256: ("avx2", "llvm.x86.avx2.pmadd.wd")}
"""Register width: the feature that has the instruction, and its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Channel:
    """`factor * i32(load)`, where `load` is byte `number` of each lane's group."""

    factor: int
    number: int
    load: Load


def emit_channel_sum(frame: Frame, node: Binary) -> Value | None:
    """The value of a sum in which several channels of one group occur; None for any other expression."""
    if node.op not in ("add", "sub") or node.dtype != I32 or frame.lane is None or _instruction(frame) is None:
        return None
    terms = list(_terms(node, 1))
    channels = [c for sign, term in terms if (c := _channel(sign, term)) is not None]
    groups = {(c.load.tensor, c.load.index[:-1]) for c in channels}
    if len(channels) < 2 or len(groups) != 1 or len({c.number for c in channels}) != len(channels):
        return None
    load = channels[0].load
    place = frame.places[load.tensor]
    access = access_of(frame, place, load.index)
    found = channel_of(place, load.index, access)
    if found is None or found[1] != CHANNELS or access.lanes % _parts_of(frame):
        return None
    rest: Value = constant(WORD, 0)
    for sign, term in terms:
        if _channel(sign, term) is None:
            rest, value = together(frame.builder, rest, frame.evaluate(term))
            rest = frame.builder.add(rest, value) if sign > 0 else frame.builder.sub(rest, value)
    return _weighted(frame, place, access, load, found, {c.number: c.factor for c in channels}, rest)


def _terms(node: Expr, sign: int) -> list[tuple[int, Expr]]:
    if isinstance(node, Binary) and node.op in ("add", "sub"):
        return [*_terms(node.a, sign), *_terms(node.b, sign if node.op == "add" else -sign)]
    return [(sign, node)]


def _channel(sign: int, term: Expr) -> _Channel | None:
    factor = 1
    if isinstance(term, Binary) and term.op == "mul":
        fixed, term = (term.a, term.b) if isinstance(term.a, Const) else (term.b, term.a)
        if not isinstance(fixed, Const):
            return None
        factor = int(fixed.value)
    if not (isinstance(term, Cast) and isinstance(term.a, Load) and term.a.dtype == U8 and term.a.mask is None and len(term.a.index) > 1):
        return None
    channel = term.a.index[-1]
    if not isinstance(channel, Const) or not -(1 << 15) <= sign * factor < 1 << 15:
        return None
    return _Channel(factor=sign * factor, number=int(channel.value), load=term.a)


def _instruction(frame: Frame) -> str | None:
    feature, name = MULTIPLY_ADD.get(frame.chip.vector_bits, ("", ""))
    return name if feature in frame.chip.features and frame.chip.x86 else None


def _parts_of(frame: Frame) -> int:
    """Groups in one register."""
    return frame.chip.vector_bits // (8 * CHANNELS)


def _weighted(
    frame: Frame, place: Place, access: Access, load: Load, channel: tuple[int, int], factors: dict[int, int], rest: Value
) -> Value:
    """`rest` plus the channels times their factors (0 for those that are left out)."""
    builder, size = frame.builder, _parts_of(frame)
    pointer = address(frame, place, first_group(access, channel))
    groups = load_group(frame, place, pointer, access.lanes, CHANNELS, lane_mask(frame, place, load.index, None))
    words = ir.VectorType(SHORT, 2 * size)
    lanes = ir.VectorType(WORD, size)
    rest = splat(builder, rest, access.lanes)
    name = _instruction(frame)
    assert name is not None
    function = declare(builder.module, name, lanes, [words, words])
    even, odd = ([factors.get(first, 0), factors.get(first + 2, 0)] for first in (0, 1))
    parts = []
    for start in range(0, access.lanes, size):
        part = list(range(start, start + size))
        pairs = builder.bitcast(shuffle(builder, groups, part), words)
        total = shuffle(builder, rest, part)  # first: LLVM makes the sum and the product one instruction where there is one
        for weights, bytes_of in ((even, builder.and_(pairs, constant(words, 255))), (odd, builder.lshr(pairs, constant(words, 8)))):
            if any(weights):
                total = builder.add(total, builder.call(function, [bytes_of, vector_constant(SHORT, weights * size)]))
        parts.append(total)
    return joined(builder, parts)

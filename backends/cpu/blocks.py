"""Blocks that instructions of AMX multiply: their axes, and whether they lie in memory as they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

from tridsl.devices.intrinsics import INTRINSICS
from tridsl.diagnostics import error
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Binary, Expr, Load, Var, index
from tridsl.ir.loop import Kernel, Mma
from tridsl.ir.op import Tensor
from tridsl.ir.strides import contiguous_axis
from tridsl.ir.walk import variables, walk
from tridsl.structs import dataclass


def is_block(statement: object) -> TypeGuard[Mma]:
    return isinstance(statement, Mma) and INTRINSICS[statement.intrinsic].is_matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockAxis:
    """An axis of an instruction's block: how it is written there, its extent, and what it is called where the block is loaded."""

    place: Expr
    extent: int
    name: str


def blocks_of(mma: Mma) -> tuple[tuple[BlockAxis, ...], tuple[BlockAxis, ...]]:
    """Axes of the left and the right factor, rows first: m by k, and k by n with `interleave` elements of k together."""
    (m, rows), (n, columns), (k, depth) = mma.axes
    group = INTRINSICS[mma.intrinsic].interleave
    along = Var(name=k)
    left = (BlockAxis(place=Var(name=m), extent=rows, name=m), BlockAxis(place=along, extent=depth, name=k))
    number, within = (Binary(op=op, a=along, b=index(group), dtype=along.dtype) for op in ("floordiv", "mod"))
    right = (
        BlockAxis(place=number, extent=depth // group, name=f"{k}.o"), BlockAxis(place=Var(name=n), extent=columns, name=n),
        BlockAxis(place=within, extent=group, name=f"{k}.i"),
    )  # fmt: skip
    return left, right


def check_blocks(kernel: Kernel) -> None:
    """E0491 unless each row of every block lies in one piece, and rows at equal distances."""
    tensors = {p.name: p for p in kernel.params if isinstance(p, Tensor)}
    for mma in filter(is_block, walk(tuple(kernel.phases))):
        for side, axes, name in zip((mma.a, mma.b), blocks_of(mma), ("left", "right")):
            if isinstance(side, Load) and side.mask is None and _lies_in_rows(side, axes, tensors):
                continue
            group = f", interleave={INTRINSICS[mma.intrinsic].interleave}" if name == "right" else ""
            raise error(
                "E0491", f"`{mma.intrinsic}` cannot load its {name} factor: the rows of its blocks do not lie in one piece", mma.span,
                help=f"copy the factor before: `.pack(at=…{group})`",
            )  # fmt: skip


def _lies_in_rows(side: Load, axes: tuple[BlockAxis, ...], tensors: Mapping[str, Tensor]) -> bool:
    """The first axis of a block steps from row to row, the others are innermost in memory, in order."""
    tensor = tensors.get(side.tensor)
    if tensor is not None and contiguous_axis(tensor) != len(side.index) - 1:
        return False
    rows, *within = axes
    inner, outer = side.index[-len(within) :], side.index[: -len(within)]
    if len(within) > 1:
        return inner == tuple(axis.place for axis in within) and outer[-1:] == (rows.place,)
    (along,) = variables(within[0].place)
    (row,) = variables(rows.place)
    once = normal_form(inner[0]).coefficient(along) == 1 and along not in variables(outer)
    return once and row in variables(outer) and row not in variables(inner)

"""`intrin("vpdpbusd")`; Halide and TVM: tensorize, Exo: replace."""

from __future__ import annotations

from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError, error
from tridsl.ir.expr import Binary, Cast, Expr, Load
from tridsl.ir.loop import Accumulate, For, Kernel
from tridsl.ir.walk import variables, walk
from tridsl.schedule.nest import axis_of, loops_of, replace_loop, stages, trip_bound, unknown_stage
from tridsl.schedule.steps import Intrin
from tridsl.structs import replace

CODED_BITS = 8
"""Codecs are functions of bytes."""


def intrin(kernel: Kernel, step: Intrin, spec: DeviceSpec) -> Kernel:
    """
    before:  for k.o: unroll i.i: vector j.i < 32: for k.i < 4: C[i, j] += i32(A.pack[…, k.i]) * i32(B.pack[…, j.i, k.i])
    after:   the same, marked `by vpdpbssd`; once the tiles have their registers, `passes.form_mma` puts
             mma vpdpbssd (j.i < 32, k.i < 4) C[i, j] += A.pack[…] * B.pack[…] in the place of the two innermost loops

    The innermost loops must be the instruction's: lanes (vector, any multiple) or its m and n, then its k; for one product of words k alone. E0420: no such instruction.
    E0710: the device lacks it. E0421: loops, types or the statement do not fit, with what was expected.
    """
    row = INTRINSICS.get(step.name)
    if row is None:
        raise error("E0420", f"there is no instruction `{step.name}`", step.span, help=f"use one of {', '.join(INTRINSICS)}")
    if row.feature and row.feature not in spec.features:
        raise error(
            "E0710", f"`{spec.name}` has no `{row.name}`: it lacks the feature {row.feature}", step.span,
            help="leave the step out: the same loops run without the instruction",
        )  # fmt: skip
    if step.stage not in stages(kernel):
        raise unknown_stage(kernel, step.stage, step.span)
    if row.lanes and row.k == 1:
        return kernel  # the loops already are that instruction: a multiply and an add per lane contract to one FMA
    loops = loops_of(kernel, step.stage)
    innermost = next((l for l in loops if len(l.body) == 1 and isinstance(l.body[0], Accumulate)), None)
    if innermost is None:
        raise _misfit(row, step, "the innermost statement is not a sum of products")
    nest = [l for l in loops if l.var == innermost.var or _wraps(l, innermost.var)][-row.loops :]
    statement = innermost.body[0]
    assert isinstance(statement, Accumulate)
    factors = factors_of(statement, row)
    if factors is None:
        raise _misfit(row, step, f"the statement is not a {row.acc} sum of products of plain {row.a} and {row.b} elements")
    shape = [(l.var, trip_bound(l) or 0) for l in nest]
    if len(nest) < row.loops or not row.fits([n for _, n in shape]) or (row.lanes and nest[0].kind != "vector"):
        names = ", ".join(f"{axis_of(v)} < {n}" for v, n in shape)
        raise _misfit(row, step, f"its innermost loops are {names}")
    if not nest[-1].reduce:
        raise _misfit(row, step, f"`{axis_of(nest[-1].var)}` is not reduced over")
    k = nest[-1].var
    if not all(k in variables(factor) for factor in factors):
        raise _misfit(row, step, f"`{axis_of(k)}` does not index both factors")
    marked = replace(innermost, body=(replace(statement, intrinsic=row.name),))
    return replace_loop(kernel, innermost.var, lambda _: marked)


def _wraps(loop: For, variable: str) -> bool:
    """Whether the loop of `variable` is reached from `loop` through single-statement bodies."""
    while len(loop.body) == 1 and isinstance(loop.body[0], For):
        loop = loop.body[0]
        if loop.var == variable:
            return True
    return False


def factors_of(statement: Accumulate, row: Intrinsic) -> tuple[Expr, Expr] | None:
    """The two operands whose products `statement` sums, in the row's types; None when it is anything else."""
    value = statement.values[0]
    if statement.reducer.op != "add" or not isinstance(value, Binary) or value.op != "mul" or value.dtype != row.acc:
        return None
    a, b = _operand(value.a, row), _operand(value.b, row)
    if a is None or b is None:
        return None
    return (a, b) if row.takes(a.dtype, b.dtype) else (b, a) if row.takes(b.dtype, a.dtype) else None


def _operand(factor: Expr, row: Intrinsic) -> Expr | None:
    """An element, or (but for blocks) what a codec makes of bytes: values as wide as what is stored."""
    while isinstance(factor, Cast) and factor.dtype.bits > CODED_BITS:
        factor = factor.a
    if isinstance(factor, Load):
        return factor
    stored = [n for n in walk(factor) if isinstance(n, Load)]
    coded = not row.is_matrix and stored and all(n.dtype.storage_bits == CODED_BITS and n.mask is None for n in stored)
    return factor if coded and factor.dtype.storage_bits == CODED_BITS else None


def _misfit(row: Intrinsic, step: Intrin, why: str) -> TriError:
    shape = f"m < {row.m}, n < {row.n}, k < {row.k}" if row.is_matrix else f"{'a vector loop over lanes, then ' if row.lanes else ''}k < {row.k}"
    shape += " or any multiples of them" if row.flexible else ""
    return error(
        "E0421", f"`{row.name}` does not fit stage `{step.stage}`: {why}", step.span,
        help=f"it computes {row.acc} += {row.a} * {row.b} over the innermost loops {shape}",
    )  # fmt: skip

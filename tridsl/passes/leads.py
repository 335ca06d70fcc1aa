"""Where a vector loop should begin so that its stores fill whole registers' places in memory.

A store that crosses a cache line costs two, and one around the caches needs an aligned address; NumPy aligns its large arrays to 16
bytes only. Elementwise loops may begin anywhere, so their first lanes are done apart. (Reductions may not: their order, and with it
the last digits, would depend on where an array lies.)
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.affine import normal_form, simplify_index, to_expression
from tridsl.ir.expr import Const, Expr, Lead, Load, add, binary, index, minimum, mul, sub
from tridsl.ir.loop import For, Prefetch, Ref, Store
from tridsl.ir.op import Tensor
from tridsl.ir.walk import substitute, variables, walk

LEAST_REGISTERS, WIDENED = 16, 10
"""Loops that store fewer registers gain less than two masked ones cost (measured: a sixth is gained at 32), and those that widen what they
load, so that they wait for their stores (rows of 170 bytes made floats, 10.6 registers each, take 0.62 of the time; a blur of 12.4 a
tenth more)."""


def lead_of(loop: For, lanes: int, results: Mapping[str, Tensor], spec: DeviceSpec) -> Expr | None:
    """Iterations of `loop` to do before the first whose store is aligned; None where that does not matter or is not known to pay."""
    size = loop.bound if not isinstance(loop.extent, Const) else int(loop.extent.value)
    if not spec.has_masks or not spec.vector_bits or size is None:
        return None
    if not all(isinstance(s, Store | Prefetch) for s in loop.body) or not _plain(loop):
        return None
    stores = [s.target for s in loop.body if isinstance(s, Store) and s.target.tensor in results]
    for target in stores:
        tensor = results[target.tensor]
        place = _offset(target, tensor, loop)
        if place is not None:
            count = min(lanes, spec.vector_bits // tensor.dtype.storage_bits)
            if size < (WIDENED if _widens(loop, tensor) else LEAST_REGISTERS) * count:
                return None
            lead: Expr = Lead(tensor=tensor.name, count=count)
            multiple = all(factor % count == 0 for _, factor in normal_form(place).terms) and normal_form(place).constant % count == 0
            first = lead if multiple else simplify_index(binary("mod", sub(lead, place), index(count)))
            return minimum(first, loop.extent) if not isinstance(loop.extent, Const) else first
    return None


def _widens(loop: For, result: Tensor) -> bool:
    """Whether everything that is read along the loop, but for one row that all iterations around it share, is narrower than the result."""
    moving = [n for n in walk(loop.body) if isinstance(n, Load) and any(loop.var in variables(i) for i in n.index)]
    several = [n for n in moving if any(variables(i) - {loop.var} for i in n.index)]
    return bool(several) and all(n.dtype.storage_bits < result.dtype.storage_bits for n in several)


def _plain(loop: For) -> bool:
    """Whether every access is a straight line in the loop's variable: conditions and clamps are decided for long stretches that begin
    where the loop does (`passes.partition_loops`)."""
    for node in walk(loop.body):
        indices = node.index if isinstance(node, Load | Ref) else ()
        if any(normal_form(i).coefficient(loop.var) is None for i in indices):
            return False
        if isinstance(node, Load) and node.mask is not None and loop.var in variables(node.mask):
            return False
    return True


def _offset(target: Ref, tensor: Tensor, loop: For) -> Expr | None:
    """The place of iteration 0's element in a row-major tensor, or None where iterations do not store one behind the other."""
    if tensor.strides is not None or not target.index or normal_form(target.index[-1]).coefficient(loop.var) != 1:
        return None
    if any(loop.var in variables(i) for i in target.index[:-1]):
        return None
    place: Expr = index(0)
    for position, extent in zip(target.index, tensor.shape):
        place = add(mul(place, extent), substitute(position, {loop.var: index(0)}))
    return to_expression(normal_form(place))

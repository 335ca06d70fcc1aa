"""How many elements the vectors of a function have."""

from __future__ import annotations

from tridsl.dtypes import BOOL, I32, INDEX, DType, compute_type
from tridsl.ir.expr import Binary, Cast
from tridsl.ir.loop import Accumulate, Block
from tridsl.ir.walk import walk

VECTOR_BITS = 512
"""Of every vector: a native register of both generations."""


def lanes_of(block: Block) -> int:
    """What a register holds of the widest type that is computed in."""
    bits = 8
    nodes = [n for s in block for n in walk(s)]
    amounts = {n.b for n in nodes if isinstance(n, Binary) and n.op in ("shl", "shr")}
    for node in nodes:
        dtype = getattr(node, "dtype", None)
        if isinstance(node, Accumulate):
            dtype = node.reducer.dtypes[0]
        if isinstance(node, Cast) and node.a.dtype == INDEX and node not in amounts:
            dtype = I32  # a place as a value
        if isinstance(dtype, DType) and dtype not in (INDEX, BOOL):
            bits = max(bits, compute_type(dtype).storage_bits)
    return VECTOR_BITS // bits

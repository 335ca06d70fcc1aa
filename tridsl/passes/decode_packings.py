"""Reads of packed parameters become reads of their bytes.

    W: trit[M, K] as t16:  i32(W[m, k])     ->     W: u8[ceil(M/16), ceil(K/16), 16, 4]:  i32(i8((W[m//16, k//16, m%16, k%4] >> …) & 3) - 1)

Until here a packed parameter is read like any other, so schedules, panels and instructions mean elements.
"""

from __future__ import annotations

from tridsl.ir.loop import Kernel
from tridsl.ir.op import Tensor
from tridsl.ir.packings import bytes_of, is_packed, unpacked
from tridsl.structs import replace


def decode_packings(kernel: Kernel) -> Kernel:
    """Every packed parameter of the kernel."""
    packed = {p.name: p for p in kernel.params if isinstance(p, Tensor) and is_packed(p)}
    if not packed:
        return kernel
    params = tuple(bytes_of(p) if isinstance(p, Tensor) and p.name in packed else p for p in kernel.params)
    return replace(kernel, params=params, phases=unpacked(kernel.phases, packed))

"""Trits in panels of a core's memory: bytes are copied, and elements decoded where they are read; unpacked ones are bytes already."""

from __future__ import annotations

from tridsl.dtypes import I8, INDEX, TRIT
from tridsl.ir.affine import fold_ranges, simplify_index
from tridsl.ir.expr import Cast, Expr, Load
from tridsl.ir.loop import For, Kernel, Phase
from tridsl.ir.op import Tensor
from tridsl.ir.packings import bytes_of, is_packed, unpacked
from tridsl.ir.walk import rewrite, walk
from tridsl.schedule.nest import loop_ranges
from tridsl.structs import replace


def on_bytes(kernel: Kernel) -> Kernel:
    """Packed parameters as their bytes, which is what travels (in whole blocks, one behind another); reads decode them. A trit that is not packed is a
    byte of its value."""
    plain = {p.name for p in kernel.params if isinstance(p, Tensor) and p.dtype == TRIT and not is_packed(p)}
    if plain:
        params = tuple(replace(p, dtype=I8) if isinstance(p, Tensor) and p.name in plain else p for p in kernel.params)
        kernel = replace(kernel, params=params, phases=rewrite(kernel.phases, {
            Load: lambda n: replace(n, dtype=I8) if n.tensor in plain else n,
            Cast: lambda n: n.a if n.a.dtype == n.dtype else n,
        }))  # fmt: skip
    packed = {p.name: p for p in kernel.params if isinstance(p, Tensor) and is_packed(p)}
    if not packed:
        return kernel
    ranges = loop_ranges(tuple(n for p in kernel.phases for n in walk(p) if isinstance(n, For)))
    params = tuple(bytes_of(p) if isinstance(p, Tensor) and p.name in packed else p for p in kernel.params)

    def place(i: Expr) -> Expr:
        return simplify_index(fold_ranges(simplify_index(i), ranges))

    decoded: tuple[Phase, ...] = rewrite(unpacked(kernel.phases, packed), {
        Load: lambda n: replace(n, index=tuple(map(place, n.index))) if n.tensor in packed else n,
        Cast: lambda n: replace(n, a=place(n.a)) if n.a.dtype == INDEX else n,
    })  # fmt: skip
    return replace(kernel, params=params, phases=decoded)

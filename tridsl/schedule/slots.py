"""`v.vector(slot)` of a top-k: the slots behind a new element shift a vector at a time."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import F32
from tridsl.ir.expr import Const
from tridsl.ir.insertion import insertion_of
from tridsl.ir.loop import Alloc, For, Kernel
from tridsl.ir.walk import walk
from tridsl.schedule.nest import enclosing, replace_loop
from tridsl.structs import replace


def slots_in_lanes(kernel: Kernel, stage: str, loop: For, spec: DeviceSpec) -> Kernel | None:
    """
    before:  if x[n] beats v[k - 1]: for slot < k carried: if moved or x[n] beats v[slot]: v[slot], carry = carry, v[slot]
    after:   if x[n] beats v[k - 1]: for strips of 16, from the last one on: vector lanes: v[slot] = v[slot - 1] if x[n] beats that,
                                                                                           x[n] if it beats v[slot], else v[slot]

    None where `loop` is not that over the slots of a top-k, or their list does not lie in a core's memory with room for whole vectors.
    """
    around = enclosing(kernel, loop.var)
    inserting = next(((n, found) for n in around if (found := insertion_of(stage, n)) is not None), None)
    lanes = spec.lanes(F32)  # what is compared has 32 bits
    if inserting is None or not isinstance(inserting[1].k, Const) or lanes < 2:
        return None
    rooms = {n.buffer.name: n.buffer for p in kernel.phases for n in walk(p) if isinstance(n, Alloc) and n.buffer.space == "l1"}
    outer, found = inserting
    strips = -(-int(inserting[1].k.value) // lanes)
    for ref in (found.values, found.indices):
        last = rooms[ref.tensor].shape[-1] if ref.tensor in rooms else None
        if not isinstance(last, Const) or int(last.value) < strips * lanes:
            return None
    return replace_loop(kernel, outer.var, lambda l: replace(l, body=found.in_lanes(lanes, strips)))

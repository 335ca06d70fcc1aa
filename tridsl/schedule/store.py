"""`e.store(l1)`; Halide: store_in. For a parameter: a staged copy, TVM: cache_read."""

from __future__ import annotations

from typing import get_args

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Const, add, index
from tridsl.ir.loop import Accumulate, Alloc, Buffer, Kernel, Space, Store
from tridsl.ir.op import Tensor
from tridsl.ir.walk import rewrite, walk
from tridsl.schedule.cache import cache
from tridsl.schedule.hold import hold
from tridsl.schedule.narrow import narrow
from tridsl.schedule.nest import axis_of, loops_of, stage_of, stages, unknown_stage
from tridsl.schedule.pack import stage_copy
from tridsl.schedule.panels import SPACE, is_number, panels
from tridsl.schedule.steps import StoreIn
from tridsl.schedule.weights import weights
from tridsl.schedule.widen import widen
from tridsl.structs import replace

SPACES: tuple[Space, ...] = get_args(Space)
STREAM = "stream"


def store(kernel: Kernel, step: StoreIn, spec: DeviceSpec) -> Kernel:
    """
    before:  alloc e: f32[N] in l1                    e.store(shared)
    after:   alloc e: f32[N] in shared

    For a parameter `x.store(reg)` makes a copy of it a stage of its own (`schedule.cache`), and `A.store(shared, at=k.o)` stages what the loop `k.o` reads, copied by all lanes together; so it does for a stage that is computed as a whole. On a stage, `C.store(l1, at=k.o)`
    stages everything that its loop `k.o` touches in a core's own memory (`schedule.panels`); `y.store(l1)` all of a stage that is a single number. For a result `y.store(stream)` writes around the caches (LLVM: nontemporal); a compaction holds what it
    keeps until it can (`schedule.hold`). `gray.store(l1, type=i16)` keeps the values of an integer stage in a wider type, the one
    that its readers compute in; a narrower one is for sums that are converted to it (`schedule.narrow`), or weights in that of what they weigh
    (`schedule.weights`). `turned`: the copy's axes lie backwards (lanes that walk the columns of `A[i, k]` then read neighbours). `buffers=2` in `shared`: one copy
    is filled while lanes read the other, so that they wait for each other once an iteration. E0416: no such space. E0417: the stage has storage for the
    whole device (use `.at` first), or a register or shared buffer would have no constant size. E0425: the type does not hold all values of the stage's.
    """
    if step.space == STREAM:
        return _stream(kernel, step)
    if step.space not in SPACES:
        raise error("E0416", f"there is no space `{step.space}`", step.span, help=f"use one of {', '.join((*SPACES, STREAM))}")
    space: Space = step.space
    if step.turned and (space != "shared" or step.at is None):
        raise error(
            "E0417", f"`{step.stage}` in `{space}` cannot lie the other way round: only copies that lanes share can", step.span,
            help=f"write `{step.stage}.store(shared, at=k.o, turned=true)`, or leave `turned` out",
        )  # fmt: skip
    if step.at is not None and space == SPACE and any(axis_of(loop.var) == step.at for loop in loops_of(kernel, step.stage)):
        return panels(kernel, step, spec)
    if step.at is None and space == SPACE and is_number(kernel, step.stage):
        return panels(kernel, step, spec)
    parameter = any(isinstance(p, Tensor) and p.name == step.stage for p in kernel.params)
    if step.at is not None and (parameter or any(b.name == step.stage for b in kernel.scratch)):
        return stage_copy(
            kernel, step.stage, None, step.at, space, step.span,
            cooperative=space == "shared", buffers=step.buffers, pad=step.pad, turned=step.turned,
        )  # fmt: skip
    if parameter and step.space == "reg":
        return cache(kernel, step, spec)
    if parameter:
        raise error(
            "E0417", f"a copy of parameter `{step.stage}` needs the loop that it is made in", step.span,
            help=f"write `{step.stage}.store({step.space}, at=k.o)`",
        )  # fmt: skip
    found = [n.buffer for p in kernel.phases for n in walk(p) if isinstance(n, Alloc) and _belongs(n.buffer, step.stage)]
    if not found:
        if step.stage not in stages(kernel) and step.stage not in {b.name for b in kernel.scratch}:
            raise unknown_stage(kernel, step.stage, step.span)
        raise error(
            "E0417", f"stage `{step.stage}` is computed as a whole, its storage cannot be in `{space}`", step.span,
            help=f"write `{step.stage}.at(reader, axis)` before `.store({space})`",
        )  # fmt: skip
    for buffer in found:
        if space in ("reg", "shared", "fragment") and not all(isinstance(n, Const) for n in buffer.shape):
            raise error(
                "E0417", f"`{step.stage}` has no constant size here, so it cannot be in `{space}`", step.span,
                help="split the loop it is computed in, so that a bounded part is needed",
            )  # fmt: skip

    if step.type is not None:
        own = tuple(b for b in found if b.name == step.stage)
        narrower = own and step.type.storage_bytes < own[0].dtype.storage_bytes
        kernel = (widen if not narrower else narrow if _is_summed(kernel, own) else weights)(kernel, own, step)
        found = [replace(b, dtype=step.type) if b.name == step.stage else b for b in found]

    def move(alloc: Alloc) -> Alloc:
        return replace(alloc, buffer=_padded(replace(alloc.buffer, space=space), step.pad)) if alloc.buffer in found else alloc

    return replace(kernel, phases=rewrite(kernel.phases, {Alloc: move}))


def _stream(kernel: Kernel, step: StoreIn) -> Kernel:
    if not any(isinstance(p, Tensor) and p.name == step.stage and p.role == "output" for p in kernel.params):
        raise error(
            "E0417", f"`{step.stage}` is no result, so it is read again and belongs in a cache", step.span,
            help="use `.store(stream)` on a result of the op",
        )  # fmt: skip

    def mark(store: Store) -> Store:
        return replace(store, stream=True) if store.target.tensor == step.stage else store

    return hold(replace(kernel, phases=rewrite(kernel.phases, {Store: mark})), step.stage)


def _is_summed(kernel: Kernel, buffers: tuple[Buffer, ...]) -> bool:
    """Whether the stage is a reduction, which adds to its elements again and again."""
    names = {buffer.name for buffer in buffers}
    return any(isinstance(n, Accumulate) and any(t.tensor in names for t in n.targets) for p in kernel.phases for n in walk(p))


def _padded(buffer: Buffer, pad: int) -> Buffer:
    """With `pad` elements that nobody uses behind each row."""
    if not pad or not buffer.shape:
        return buffer
    *outer, last = buffer.shape
    return replace(buffer, shape=(*outer, simplify_index(add(last, index(pad)))))


def _belongs(buffer: Buffer, stage: str) -> bool:
    return buffer.name == stage or stage_of(buffer.name) == stage or buffer.name.startswith(f"{stage}.")

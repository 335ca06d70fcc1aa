"""Apply a schedule: a table from step type to the function of its file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.loop import Kernel
from tridsl.schedule.at import NotYet, at
from tridsl.schedule.beside import beside
from tridsl.schedule.bind import bind
from tridsl.schedule.block import block
from tridsl.schedule.fuse import fuse
from tridsl.schedule.grid import grid
from tridsl.schedule.inline import inline
from tridsl.schedule.intrin import intrin
from tridsl.schedule.layout import layout
from tridsl.schedule.lines import lines
from tridsl.schedule.order import order
from tridsl.schedule.pack import pack
from tridsl.schedule.pad import pad
from tridsl.schedule.parallel import parallel
from tridsl.schedule.parts import parts
from tridsl.schedule.pipeline import pipeline
from tridsl.schedule.planes import planes
from tridsl.schedule.slide import slide
from tridsl.schedule.split import split
from tridsl.schedule.steps import (
    At,
    Beside,
    Bind,
    BlockBy,
    Fuse,
    Grid,
    Inline,
    Intrin,
    Layout,
    Lines,
    Order,
    Pack,
    Pad,
    Parallel,
    Parts,
    Pipeline,
    Planes,
    Schedule,
    Slide,
    Split,
    StoreIn,
    Tile,
    Unit,
    Unroll,
    Vector,
)
from tridsl.schedule.store import store
from tridsl.schedule.tile import tile
from tridsl.schedule.unit import unit
from tridsl.schedule.unroll import unroll
from tridsl.schedule.vector import vector

STEPS: dict[type, Callable[[Kernel, Any, DeviceSpec], Kernel]] = {
    Tile: tile,
    Split: split,
    Pad: pad,
    Parts: parts,
    Fuse: fuse,
    Order: order,
    Parallel: parallel,
    Vector: vector,
    Unroll: unroll,
    Bind: bind,
    At: at,
    Slide: slide,
    Lines: lines,
    Beside: beside,
    Inline: inline,
    StoreIn: store,
    Pack: pack,
    Planes: planes,
    Unit: unit,
    Intrin: intrin,
    Pipeline: pipeline,
    BlockBy: block,
    Layout: layout,
    Grid: grid,
}


def apply_schedule(kernel: Kernel, schedule: Schedule, spec: DeviceSpec) -> Kernel:
    """The scheduled kernel. Raises the first illegal step's TriError (E04xx).

    An `at` whose stage still has a reader elsewhere waits until later `at`s have brought that reader in, so producers
    may be written before or behind their consumers; steps on a waiting stage wait with it.
    """
    waiting: list[Any] = []
    reason = ""

    def attempt(step: Any) -> bool:
        nonlocal kernel, reason
        try:
            kernel = STEPS[type(step)](kernel, step, spec)
        except NotYet as late:
            reason = str(late)
            return False
        return True

    for step in schedule:
        if any(step.stage == late.stage for late in waiting) or not attempt(step):
            waiting.append(step)
            continue
        progress = isinstance(step, At | Inline)
        while progress and waiting:
            before = len(waiting)
            blocked: set[str] = set()
            still: list[Any] = []
            for late in waiting:
                if late.stage in blocked or not attempt(late):
                    blocked.add(late.stage)
                    still.append(late)
            waiting = still
            progress = len(waiting) < before
    if waiting:
        step = waiting[0]
        raise error("E0410", reason, step.span, help="compute those readers inside the same loop too, or name a loop around them all")
    return kernel

"""Apply a schedule: a table from step type to the file that has its function."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.loop import Kernel
from tridsl.schedule.at import NotYet
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

STEPS: dict[type, str] = {
    Tile: "tile",
    Split: "split",
    Pad: "pad",
    Parts: "parts",
    Fuse: "fuse",
    Order: "order",
    Parallel: "parallel",
    Vector: "vector",
    Unroll: "unroll",
    Bind: "bind",
    At: "at",
    Slide: "slide",
    Lines: "lines",
    Beside: "beside",
    Inline: "inline",
    StoreIn: "store",
    Pack: "pack",
    Planes: "planes",
    Unit: "unit",
    Intrin: "intrin",
    Pipeline: "pipeline",
    BlockBy: "block",
    Layout: "layout",
    Grid: "grid",
}
"""By step: the file of its function, and the function. It is imported by the first schedule that has the step: most schedules have
few of them, and all of them would be 5 ms of every first compilation."""


def function_of(kind: type) -> Callable[[Kernel, Any, DeviceSpec], Kernel]:
    """What applies steps of this type."""
    name = STEPS[kind]
    function: Callable[[Kernel, Any, DeviceSpec], Kernel] = getattr(import_module(f"tridsl.schedule.{name}"), name)
    return function


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
            kernel = function_of(type(step))(kernel, step, spec)
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
